"""`talkalong serve` as a person and a supervisor meet it: how it begins, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.cli import main
from pipeline import checkpoint
from stream import listening
from stream.config import NetworkConfig
from stream.errors import ListenError
from stream.serve import address

ROOT = Path(__file__).parents[2]
STAND_IN = "model: {factory: 'tests.streaming.energy_mouth', nice: 0, warm_up_windows: 4%s}\n"
READY = "Talkalong is ready: "
TIMEOUT_S = 60.0
GONE_S = 3.0


class ServeProcess:
    """The command in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        with self._out.open("w") as out, self._err.open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "client.cli", "serve", *options],
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | (environment or {}),
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._children: set[int] = set()

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self._process.poll() is None, f"it ended before {what}: {self.err}"
            assert time.monotonic() < end, f"{what} did not come: {self.out} {self.err}"
            time.sleep(0.02)

    def url(self) -> str:
        """Where it says that it is ready."""
        self.wait_for(lambda: READY in self.out, READY)
        return self.out.partition(READY)[2].split()[0]

    def model(self) -> int:
        self.wait_for(self._models, "a model process")
        return self._models()[0]

    def _models(self) -> list[int]:
        return [child for child in self.children() if "stream.model_process" in command_of(child)]

    def children(self) -> list[int]:
        found = [
            int(word)
            for task in Path(f"/proc/{self.pid}/task").glob("*/children")
            for word in task.read_text().split()
        ]
        self._children.update(found)
        return found

    def send(self, number: signal.Signals, *, group: bool) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    def end(self, timeout_s: float = 20.0) -> int:
        """Its exit status, when it and all of its children are gone."""
        status = self._process.wait(timeout_s)
        end = time.monotonic() + GONE_S
        while left := [child for child in self._children if alive(child)]:
            assert time.monotonic() < end, f"{left} live on"
            time.sleep(0.02)
        return status

    def close(self) -> None:
        for process in (self.pid, *self._children):
            if process != self.pid or self._process.poll() is None:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self._process.wait()


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # an orphan that nobody waits for has ended all the same


Serve = Callable[..., ServeProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts the command with the loudness stand-in on any free port, unless told otherwise."""
    started: list[ServeProcess] = []

    def start(
        *options: str, settings: str = "", environment: dict[str, str] | None = None, stand_in: bool = True
    ) -> ServeProcess:
        config = tmp_path / "serve.yaml"
        config.write_text(STAND_IN % settings)
        words = ["--port", "0", "--config", str(config)] if stand_in else ["--port", "0"]
        started.append(ServeProcess(tmp_path, *words, *options, environment=environment))
        return started[-1]

    yield start
    for process in started:
        process.close()


def health(url: str) -> str:
    with urllib.request.urlopen(f"{url}healthz", timeout=10) as answer:
        return str(json.load(answer)["status"])


def quiet(process: ServeProcess) -> None:
    """It ended without alarming anybody."""
    for word in ("Traceback", "starting it again", "went away", "ERROR", "WARNING", "CRITICAL", "Exception"):
        assert word not in process.err


@pytest.mark.parametrize("group", [True, False], ids=["group", "process"])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)], ids=str
)
def test_it_ends_quietly_when_it_is_asked_to(
    serve: Serve, number: signal.Signals, status: int, group: bool
) -> None:
    process = serve()
    assert health(process.url()) == "ready"  # where it says, whichever port that is
    process.model()
    process.send(number, group=group)
    assert process.end() == status
    quiet(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_it_ends_quietly_and_soon_while_the_model_loads(serve: Serve, number: signal.Signals) -> None:
    process = serve(environment={"ENERGY_MOUTH_LOAD_S": "60"})
    process.model()
    process.wait_for(lambda: "startup complete" in process.err, "its start")
    process.send(number, group=True)
    assert process.end(10) == (130 if number == signal.SIGINT else 0)
    quiet(process)
    assert READY not in process.out


def test_it_ends_quietly_while_it_is_imported(serve: Serve) -> None:
    process = serve()
    maps = Path(f"/proc/{process.pid}/maps")
    process.wait_for(lambda: "_pydantic_core" in maps.read_text(), "FastAPI")
    process.send(signal.SIGINT, group=True)
    # 130 to a shell, either way: CPython ends by the signal where it came while text was executed (dataclasses), though
    # the exception was handled.
    assert process.end() in (130, -signal.SIGINT)
    quiet(process)


def test_a_supervisor_that_ends_every_process_gets_no_restart(serve: Serve) -> None:
    process = serve()
    process.url()
    model = process.model()
    process.send(signal.SIGSTOP, group=False)  # so that it hears of both at once, in whatever order
    os.kill(model, signal.SIGKILL)
    process.send(signal.SIGTERM, group=True)
    process.send(signal.SIGCONT, group=False)
    assert process.end() == 0
    quiet(process)


def test_the_second_ctrl_c_ends_it_at_once(serve: Serve) -> None:
    process = serve()
    process.url()
    os.kill(process.model(), signal.SIGSTOP)  # it would be waited for
    process.send(signal.SIGINT, group=True)
    process.wait_for(lambda: "application shutdown" in process.err, "the orderly end")
    process.send(signal.SIGINT, group=True)
    assert process.end() == 130
    assert "shutdown complete" not in process.err
    quiet(process)


def test_a_port_beyond_the_last_is_refused_before_anything_starts(serve: Serve) -> None:
    process = serve("--port", "99999", stand_in=False)
    assert process.end() == 2
    assert "'99999' is no port" in process.err
    assert process.out == ""


@pytest.mark.parametrize("port", ["-1", "abc", "65536", "8080.5", "", "٨٠٨٠"])
def test_what_is_no_port_is_a_sentence(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["serve", "--port", port])
    assert stop.value.code == 2
    assert f"'{port}' is no port; give a number from 1 to 65535, or 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("network: {port: 99999}", "99999 is no port"),
        ("network: {port: -1}", "-1 is no port"),
        ("a: 2020-13-45", "cannot be read"),
        ("network: [", "not valid YAML"),
        ("\udcff", "not text in UTF-8"),
    ],
)
def test_a_configuration_that_is_none_is_a_sentence(
    tmp_path: Path, settings: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "my.yaml"
    config.write_text(settings, errors="surrogateescape")
    assert main(["serve", "--config", str(config)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"talkalong serve: {config}")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_configuration_may_have_any_name_and_an_unknown_one_names_the_known(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--config", "fast"]) == 2
    said = capsys.readouterr().err
    assert "no configuration 'fast'; name a YAML file, or one of default, gpu, low_latency." in said
    other = tmp_path / "my settings"
    other.write_text(STAND_IN % "")
    process = serve("--config", str(other), stand_in=False)
    assert health(process.url()) == "ready"


def test_a_port_in_use_is_a_sentence(serve: Serve) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = serve("--port", str(port))
        assert process.end() == 1
    assert f"Port {port} is in use already" in process.err
    assert "--port" in process.err
    assert "Errno" not in process.err
    assert process.err.count("\n") == 1
    assert process.out == ""


@pytest.mark.parametrize(
    ("host", "words"),
    [("no-such-host.invalid", "no host"), ("192.0.2.250", "no address of this machine"), ("a..b", "no host")],
)
def test_a_host_that_is_none_is_a_sentence(host: str, words: str) -> None:
    with pytest.raises(ListenError, match=rf"{words}.*127\.0\.0\.1"):
        listening.listen(host, 0)


def test_a_privileged_port_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listening, "_listen", refuse)  # root, as which tests often run, may use it
    with pytest.raises(ListenError, match=r"Port 80 is for privileged programs.*--port 8080"):
        listening.listen("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("host", "announced"),
    [
        ("127.0.0.1", "http://localhost:81/"),
        ("", "http://localhost:81/"),
        ("0.0.0.0", "http://localhost:81/"),
        ("::1", "http://[::1]:81/"),
        ("talk.lan", "http://talk.lan:81/"),
    ],
)
def test_what_is_announced_can_be_opened(host: str, announced: str) -> None:
    assert address(NetworkConfig(host=host, port=81)) == announced
    secure = NetworkConfig(host=host, port=81, certificate="c", key="k")
    assert address(secure) == announced.replace("http", "https")


def test_all_addresses_of_a_host_share_one_port() -> None:
    sockets = listening.listen("", 0)
    try:
        assert len({opened.getsockname()[1] for opened in sockets}) == 1
        port = sockets[0].getsockname()[1]
        with pytest.raises(ListenError, match=f"Port {port} is in use"):
            listening.listen("", port)
    finally:
        for opened in sockets:
            opened.close()


def damage(folder: Path) -> None:
    weights = next(folder.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01")


def cut(folder: Path) -> None:
    """Whole by its checksums, and yet no weights: as saved by a version that wrote something else."""
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    checkpoint.write_sums(folder)


def lose(folder: Path) -> None:
    next(folder.rglob("*.safetensors")).unlink()


def lose_the_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (damage, "does not match its recorded SHA-256"),
        (cut, "could not be loaded: "),
        (lose, "is missing, but SHA256SUMS lists it"),
        (lose_the_index, "There is no model at"),
        (shutil.rmtree, "There is no model at"),
    ],
)
def test_a_model_that_does_not_load_ends_the_server_with_a_sentence(
    serve: Serve, tmp_path: Path, tiny_model: Path, harm: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    harm(folder)
    process = serve("--model", str(folder), "--log-level", "warning", stand_in=False)
    assert process.end(TIMEOUT_S) == 1
    assert process.err.startswith("talkalong serve: The server could not start: ")
    assert words in process.err
    assert process.err.count("\n") == 1
    assert READY not in process.out


def test_a_model_that_dies_while_it_loads_ends_the_server(serve: Serve) -> None:
    process = serve(environment={"ENERGY_MOUTH_LOAD_S": "60"})
    os.kill(process.model(), signal.SIGKILL)
    assert process.end() == 1
    assert "The model process was killed before it was ready; perhaps" in process.err


def test_a_model_that_dies_later_comes_back_and_is_given_up_only_in_the_end(serve: Serve) -> None:
    process = serve(settings=", max_restarts_per_minute: 1")
    url = process.url()
    first = process.model()
    os.kill(first, signal.SIGKILL)
    process.wait_for(
        lambda: "starting it again" in process.err and first not in process.children(), "another"
    )
    second = process.model()
    assert second != first
    process.wait_for(lambda: health_or_status(url) == "ready", "its return")
    os.kill(second, signal.SIGKILL)
    assert process.end() == 1
    assert process.err.splitlines()[-1].startswith(
        "talkalong serve: The model process ended 2 times within a minute"
    )


def health_or_status(url: str) -> str:
    try:
        return health(url)
    except urllib.error.HTTPError as error:
        with error:
            return str(json.load(error)["status"])


def test_it_serves_without_uvloop(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "uvloop.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join([str(tmp_path / "without"), str(ROOT)])
    process = serve(environment={"PYTHONPATH": path})
    assert health(process.url()) == "ready"
    process.send(signal.SIGINT, group=True)
    assert process.end() == 130
    quiet(process)
