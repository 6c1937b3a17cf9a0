"""Two machines that reach each other through coturn only, and Talkalong between them."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.latency.chromium import chromium_path
from stream.ice import turn_credentials
from tests.network import namespaces
from tests.network.conversation import PORT, check_pictures_and_sound, converse, start_server
from tests.network.namespaces import FORWARDER, RELAY, ROOT, SERVER, Network, two_sides_of_a_relay

SECRET = "a-secret-of-two-servers"
WRONG = "another-secret-altogether"
TURN = f"turn:{RELAY}:3478"
URL = f"http://{FORWARDER}:{PORT}"
SECONDS = 4.0
SEND = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'hello', (sys.argv[1], 5))"
HEAR = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 5))
print("listening", flush=True)
print("heard", s.recv(99), flush=True)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn is not installed (turnserver)"),
]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if reason := namespaces.unavailable():
        pytest.skip(reason)
    with two_sides_of_a_relay() as network:
        yield network


@pytest.fixture(scope="module")
def coturn(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """coturn in the middle, with the configuration that the documentation shows; returns its log."""
    folder = tmp_path_factory.mktemp("coturn")
    text = (ROOT / "docs" / "turnserver.conf").read_text()
    for name, value in (("LISTENING-IP", RELAY), ("SECRET", SECRET), ("REALM", "talkalong.test")):
        assert f"={name}\n" in text
        text = text.replace(f"={name}\n", f"={value}\n")
    config, log = folder / "turnserver.conf", folder / "turnserver.log"
    config.write_text(text)
    process = network.start(
        "middle", "turnserver", "-c", str(config), "-v", "--log-file", "stdout", "--pidfile", str(folder / "pid"),
        "--userdb", str(folder / "turndb"), log=log,
    )  # fmt: skip
    end = time.monotonic() + 20
    probe = f"import socket; socket.create_connection(('{RELAY}', 3478), 1).close()"
    while network.run("client", sys.executable, "-c", probe).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    return log


@pytest.fixture(scope="module")
def signalling(network: Network, tmp_path_factory: pytest.TempPathFactory) -> None:
    """HTTP alone passes the middle, by a program that copies TCP."""
    words = [sys.executable, "-m", "tests.network.forwarder", FORWARDER, str(PORT), SERVER, str(PORT)]
    network.start("middle", *words, log=tmp_path_factory.mktemp("forwarder") / "log")


@pytest.fixture(scope="module")
def server(
    network: Network, coturn: Path, signalling: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Talks through its relay only."""
    ice = {"servers": [{"urls": TURN, "secret": SECRET}], "policy": "relay"}
    return start_server(network, tmp_path_factory.mktemp("server"), host=SERVER, ice=ice)


def test_the_two_sides_do_not_reach_each_other(network: Network, tmp_path: Path) -> None:
    """Also by UDP, with a listener on the other side, which hears the middle."""
    for sender, heard in (("client", False), ("middle", True)):
        log = tmp_path / f"{sender}.log"
        process = network.start("server", sys.executable, "-c", HEAR, log=log)
        end = time.monotonic() + 10
        while "listening" not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        network.run(sender, sys.executable, "-c", SEND, SERVER)
        time.sleep(0.5)
        assert ("heard" in log.read_text()) is heard
        process.terminate()
        process.wait()


@pytest.mark.usefixtures("server")
def test_pictures_and_sound_come_through_one_relay(network: Network, coturn: Path) -> None:
    outcome = converse(network, URL, "--seconds", str(SECONDS))
    check_pictures_and_sound(outcome, seconds=SECONDS)
    assert outcome["pair"][1] == "relay"
    assert all(f" {RELAY} " in line and "typ relay" in line for line in outcome["announced"])
    assert "ALLOCATE processed, success" in coturn.read_text()


@pytest.mark.parametrize("way", [[], ["--over-tcp"]], ids=["udp", "tcp"])
@pytest.mark.usefixtures("server")
def test_pictures_and_sound_come_through_a_relay_on_each_side(network: Network, way: list[str]) -> None:
    outcome = converse(network, URL, "--relay-only", "--seconds", str(SECONDS), *way)
    check_pictures_and_sound(outcome, seconds=SECONDS)
    assert outcome["pair"] == ["relay", "relay"]


@pytest.mark.browser
@pytest.mark.skipif(chromium_path() is None, reason="no Chromium is installed")
@pytest.mark.usefixtures("server")
def test_the_page_gets_through_with_credentials_of_its_own(network: Network) -> None:
    done = network.run("client", sys.executable, "-m", "tests.network.visitor", URL)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["credentials"] == 1
    assert "relay" in outcome["gathered"]  # coturn took them
    assert outcome["pair"][1] == "relay"
    assert outcome["frames"] > 50
    assert outcome["energy"] > 0


@pytest.mark.usefixtures("server")
def test_the_doctor_asks_for_a_relay_and_holds_a_conversation(network: Network, coturn: Path) -> None:
    words = [sys.executable, "-m", "client.cli", "doctor", "--server", URL, "--json"]
    done = network.run("client", *words)
    report = json.loads(done.stdout)
    assert done.returncode == 0, report
    found = {item["check"]: item for item in report["findings"]}
    assert found["relay"]["mark"] == "ok"
    assert found["relay"]["figures"]["address"].startswith(f"{RELAY}:")
    assert found["session"]["mark"] in ("ok", "warning"), found["session"]
    assert found["session"]["figures"]["voice"] is True
    assert found["session"]["figures"]["fps"] > 15
    assert found["certificate"]["mark"] == "warning"  # http, and not localhost
    assert "static-auth" not in done.stdout
    assert SECRET not in done.stdout


@pytest.mark.usefixtures("coturn")
def test_the_doctor_says_that_the_secret_is_wrong(network: Network, tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(f"ice: {{policy: relay, servers: [{{urls: '{TURN}', secret: {WRONG}}}]}}")
    words = [sys.executable, "-m", "client.cli", "doctor", "--config", str(config), "--quick"]
    done = network.run("server", *words)
    assert done.returncode == 1
    assert f"The TURN server {TURN} refuses the credentials" in done.stdout
    assert "static-auth-secret" in done.stdout
    assert "This server talks through a TURN relay only, and there is none" in done.stdout
    assert WRONG not in done.stdout + done.stderr


@pytest.mark.usefixtures("server")
def test_expired_credentials_are_said(network: Network) -> None:
    old = turn_credentials(SECRET, expires_at=int(time.time()) - 600, name="yesterday")
    outcome = converse(network, URL, "--relay-only", "--credentials", *old)
    assert "expired 10 minutes ago" in outcome["error"]
    assert TURN in outcome["error"]
    assert old[1] not in outcome["error"]


def test_a_wrong_secret_is_said_by_client_and_server(
    network: Network, coturn: Path, signalling: None, tmp_path: Path
) -> None:
    ice = {"servers": [{"urls": TURN, "secret": WRONG}], "policy": "relay"}
    log = start_server(network, tmp_path, host="127.0.0.2", ice=ice)
    # This second server stands on another address of its namespace, so that both can run.
    words = [sys.executable, "-m", "tests.network.forwarder", SERVER, str(PORT + 1), "127.0.0.2", str(PORT)]
    network.start("server", *words, log=tmp_path / "inner.log")
    words = [sys.executable, "-m", "tests.network.forwarder", FORWARDER, str(PORT + 1), SERVER, str(PORT + 1)]
    network.start("middle", *words, log=tmp_path / "outer.log")
    time.sleep(1.0)
    url = f"http://{FORWARDER}:{PORT + 1}"
    found, told, logged = (
        converse(network, url, "--relay-only")["error"],
        converse(network, url)["error"],
        log.read_text(),
    )
    assert f"The TURN server {TURN} refuses the credentials" in found
    assert "static-auth-secret" in found
    assert f"the TURN server {RELAY}:3478 refuses the credentials" in told
    assert f"no TURN relay for this session: the TURN server {RELAY}:3478 refuses the credentials" in logged
    for secret in (SECRET, WRONG):
        assert secret not in found + told + logged
