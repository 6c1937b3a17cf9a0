"""Network namespaces of a test's own: made with names that nothing else has, and taken down whatever happens."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NAMES = "/run/netns"
"""Where `ip` keeps its namespaces: a folder that it mounts onto itself, and leaves so."""


@contextlib.contextmanager
def _mounts_as_found() -> Iterator[None]:
    """Takes down `ip`'s own mount, if it was not there before: a root folder with it in use cannot be removed."""
    found = _is_mounted()
    try:
        yield
    finally:
        if not found and _is_mounted() and not os.listdir(NAMES):
            subprocess.run(["umount", NAMES], check=False)


def _is_mounted() -> bool:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(mount.split()[4] == NAMES for mount in mounts)


def unavailable() -> str | None:
    """Why no namespaces can be made here; None where they can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "there is no `ip` command to make network namespaces with"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"tk{secrets.token_hex(3)}p"
    with _mounts_as_found():
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
        if made.returncode:
            return f"no network namespace can be made here: {made.stderr.strip()}"
        try:
            link = ["ip", "-n", name, "link", "add", "name", "one", "type", "veth", "peer", "name", "other"]
            done = subprocess.run(link, capture_output=True, text=True, check=False)
        finally:
            subprocess.run(["ip", "netns", "del", name], check=False)
    return f"no veth pair can be made here: {done.stderr.strip()}" if done.returncode else None


class Network:
    """`with Network("client", "middle", "server") as network`: those namespaces, empty but for lo."""

    def __init__(self, *names: str) -> None:
        mark = secrets.token_hex(3)
        self._spaces = {name: f"tk{mark}{name[:6]}" for name in names}
        self._mark = mark
        self._links = 0
        self._processes: list[subprocess.Popen[Any]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Network:
        try:
            self._stack.enter_context(_mounts_as_found())
            for space in self._spaces.values():
                _run("ip", "netns", "add", space)
                self._stack.callback(subprocess.run, ["ip", "netns", "del", space], check=False)
                _run("ip", "-n", space, "link", "set", "lo", "up")
        except BaseException:
            self._stack.close()
            raise
        self._stack.callback(self._end_processes)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def link(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        """A cable between (name, address/prefix) and (name, address/prefix)."""
        self._links += 1
        ends = [f"tk{self._mark}{self._links}{side}" for side in "ab"]
        first, second = self._spaces[one[0]], self._spaces[other[0]]
        far = ["netns", second]
        _run(
            "ip",
            "link",
            "add",
            "name",
            ends[0],
            "netns",
            first,
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            *far,
        )
        for space, end, address in ((first, ends[0], one[1]), (second, ends[1], other[1])):
            _run("ip", "-n", space, "addr", "add", address, "dev", end)
            _run("ip", "-n", space, "link", "set", end, "up")

    def ip(self, name: str, *words: str) -> None:
        _run("ip", "-n", self._spaces[name], *words)

    def command(self, name: str, words: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._spaces[name], *words]

    def run(
        self, name: str, *words: str, timeout_s: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs to its end; stdout and stderr as text."""
        return subprocess.run(
            self.command(name, words),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=ROOT,
            check=False,
        )

    def start(self, name: str, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """Runs until the network is taken down; what it prints goes into `log`."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.command(name, words),
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _end_processes(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(12)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def two_sides_of_a_relay() -> Iterator[Network]:
    """client - middle - server: each side reaches the middle, which passes nothing on; RELAY is the middle's address
    for both."""
    with Network("client", "middle", "server") as network:
        network.link(("client", "10.201.1.2/24"), ("middle", "10.201.1.1/24"))
        network.link(("server", SERVER + "/24"), ("middle", "10.201.2.1/24"))
        network.ip("middle", "addr", "add", RELAY + "/32", "dev", "lo")
        network.ip("client", "route", "add", "default", "via", "10.201.1.1")
        network.ip("server", "route", "add", "default", "via", "10.201.2.1")
        shown = network.run("middle", "cat", "/proc/sys/net/ipv4/ip_forward")
        if shown.stdout.strip() != "0":
            raise RuntimeError("the middle would pass packets on")
        yield network


RELAY = "10.201.9.1"
SERVER = "10.201.2.2"
FORWARDER = "10.201.1.1"
