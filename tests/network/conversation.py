"""A real server with the stand-in model inside a namespace, and a conversation with it from another one."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.browser.served import SERVE, STAND_IN
from tests.network.namespaces import Network

PORT = 8080
START_TIMEOUT_S = 90
ASK = """
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=2).read()
"""


def start_server(network: Network, folder: Path, *, host: str, ice: dict[str, Any]) -> Path:
    """Runs in the namespace `server`; returns its log once it is ready."""
    config = folder / "serve.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "network": {"host": host, "port": PORT},
                "model": {"factory": STAND_IN, "warm_up_windows": 4},
                "ice": {"loopback": False, **ice},
            }
        )
    )
    log = folder / "server.log"
    process = network.start("server", sys.executable, "-c", SERVE, "--config", str(config), log=log)
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        if network.run("server", sys.executable, "-c", ASK, f"http://{host}:{PORT}/healthz").returncode == 0:
            return log
        time.sleep(0.3)
    raise RuntimeError(f"The server did not get ready:\n{log.read_text()}")


def converse(network: Network, url: str, *options: str) -> dict[str, Any]:
    """The outcome of `tests.network.speaker` in the namespace `client`."""
    done = network.run("client", sys.executable, "-m", "tests.network.speaker", url, *options)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def check_pictures_and_sound(outcome: dict[str, Any], *, seconds: float) -> None:
    """The voice came back and the picture moved with it."""
    assert "error" not in outcome, outcome["error"]
    assert outcome["moments"] > 0.6 * 25 * seconds, outcome
    assert outcome["loud"] > 20
    assert outcome["silent"] > 20
    assert outcome["bright_when_loud"] > outcome["bright_when_silent"] + 60, outcome
