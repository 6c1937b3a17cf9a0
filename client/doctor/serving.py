"""Whether this machine can serve with a configuration: its ports, what it would announce, https, room on its disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from client.doctor.finding import Finding, ok, problem, warning

OUTLINE_TIMEOUT_S = 40
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
RECORDING_GB_PER_HOUR = 0.6  # 1.2 Mbit/s of picture and 0.1 of sound
ROOM_WANTED_GB, ROOM_NEEDED_GB = 5.0, 0.5


def outline(config: str) -> tuple[dict[str, Any] | None, Finding]:
    """What `stream.outline` makes of a configuration; None, and why, where it makes nothing of it."""
    words = [sys.executable, "-m", "stream.outline", "--config", config]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=OUTLINE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None, problem(
            "config",
            "The configuration could not be looked at in time.",
            "Run it again when the machine is less busy.",
        )
    if done.returncode == 2:
        return None, problem(
            "config", done.stderr.strip().splitlines()[-1], "Mend this in the configuration file."
        )
    try:
        values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        return None, problem(
            "config",
            f"The server's packages do not load ({last}).",
            "Install Talkalong anew, in its folder: `.venv/bin/pip install -e .`.",
        )
    return values, ok("config", f"The configuration '{config}' is understood.")


def check(values: dict[str, Any]) -> list[Finding]:
    """values: of `outline`."""
    return [
        _listening_port(values["network"]),
        _udp_ports(values),
        _candidates(values),
        *_https(values),
        *_room(values["folders"]),
    ]


def _listening_port(network: dict[str, Any]) -> Finding:
    host, port = network["host"], network["port"]
    figures = {"host": host, "port": port}
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            if _talkalong_answers(network):
                return ok("http port", f"A Talkalong server runs on {host}:{port} already.", **figures)
            return problem(
                "http port", f"Another program listens on {host}:{port}.",
                "`talkalong serve --port N` takes another port; `ss -ltnp` tells which program it is.", **figures,
            )  # fmt: skip
        if error.errno == errno.EACCES:
            return problem(
                "http port", f"Port {port} is for privileged programs only.",
                "Take a port from 1024 on, with a reverse proxy before it (docs/reachability.md).", **figures,
            )  # fmt: skip
        return problem(
            "http port", f"This machine cannot listen on {host} ({error.strerror or error}).",
            "Give an address of this machine as network.host, or 0.0.0.0 for all.", **figures,
        )  # fmt: skip
    return ok("http port", f"Port {port} on {host} is free.", **figures)


def _talkalong_answers(network: dict[str, Any]) -> bool:
    host = network["host"] if network["host"] not in ("0.0.0.0", "::") else "127.0.0.1"
    scheme = "https" if network["certificate"] else "http"
    try:
        answer = httpx.get(f"{scheme}://{host}:{network['port']}/healthz", timeout=2, verify=False)
        return "sessions" in answer.json()
    except (httpx.HTTPError, ValueError, TypeError):
        return False


def _udp_ports(values: dict[str, Any]) -> Finding:
    """Each port of the range is bound once; without a range one of the system's choice."""
    given, sessions = values["ice"]["port_range"], values["sessions"]
    if not given:
        first, last = _system_ports()
        return ok(
            "udp ports", f"Sound and picture take any free UDP port ({first} to {last}); set ice.port_range to "
            "open only some in a firewall.", port_range=[first, last],
        )  # fmt: skip
    first, last = given
    taken = [port for port in range(first, last + 1) if not _udp_free(port)]
    count = last - first + 1
    figures = {"port_range": given, "taken": taken}
    if count - len(taken) < sessions:
        return problem(
            "udp ports", f"{count - len(taken)} of the UDP ports {first} to {last} are free, but {sessions} sessions "
            "need one each.", "Widen ice.port_range, lower limits.sessions, or end what holds the ports.", **figures,
        )  # fmt: skip
    return ok(
        "udp ports",
        f"{count - len(taken)} of the {count} UDP ports {first} to {last} are free, enough for {sessions} sessions.",
        **figures,
    )


def _system_ports() -> tuple[int, int]:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8").split()
        return int(first), int(last)
    except (OSError, ValueError):
        return 49_152, 65_535


def _udp_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def _candidates(values: dict[str, Any]) -> Finding:
    """What the server's own code gathers; where others can and cannot reach that."""
    found, ice = values["candidates"], values["ice"]
    if values["candidates_problem"] or not found:
        says = values["candidates_problem"] or "The server finds no address to be reached at."
        return problem("candidates", says, "Connect a network, or see docs/reachability.md.")
    listed = ", ".join(f"{item['address']} ({item['kind']})" for item in found)
    hosts = {item["address"] for item in found}
    figures = {"candidates": found}
    if hosts <= {"127.0.0.1"}:
        return warning(
            "candidates", "The server can be reached from this machine only: it has no other address.",
            "Connect a network; to serve this machine alone, nothing.", **figures,
        )  # fmt: skip
    if (
        ice["public_address"]
        and ice["public_address"].partition("/")[0] not in hosts
        and ice["policy"] != "relay"
    ):
        return problem(
            "candidates", f"ice.public_address {ice['public_address']} is not announced; announced are {listed}.",
            "Write it as PUBLIC/PRIVATE, with the address that this machine has itself.", **figures,
        )  # fmt: skip
    return ok("candidates", f"The server announces {listed}.", **figures)


def _https(values: dict[str, Any]) -> list[Finding]:
    network = values["network"]
    local = network["host"] in LOCAL_HOSTS
    if network["certificate"]:
        found = [ok("https", f"The server speaks https with {network['certificate']}.")]
    elif local:
        found = [
            ok("https", f"On {network['host']} browsers give the microphone to http pages; others cannot reach it "
               "without a reverse proxy.")
        ]  # fmt: skip
    else:
        found = [
            warning(
                "https", f"The server listens on {network['host']} without https: browsers give the microphone to "
                "https pages and to localhost only; elsewhere the page has the Sample voice.",
                "`talkalong serve --certificate C.pem --key K.pem`, or a reverse proxy (docs/reachability.md).",
            )
        ]  # fmt: skip
    relays = any(server["urls"].startswith("turn") for server in values["ice_servers"])
    if not values["token_required"] and (relays or not local):
        says = f"Anyone who reaches the server may use it{', and its relay' if relays else ''}."
        found.append(warning("token", says, "Set the environment variable TALKALONG_TOKEN."))
    return found


def _room(folders: list[str]) -> list[Finding]:
    """Where uploads and recordings go; the current folder unless configured."""
    found = []
    for folder in folders or ["."]:
        place = Path(folder).resolve()
        while not place.exists():
            place = place.parent
        free_gb = shutil.disk_usage(place).free / 1e9
        figures = {"folder": str(place), "free_gb": round(free_gb, 1)}
        says = f"{free_gb:.1f} GB are free at {place}, about {free_gb / RECORDING_GB_PER_HOUR:.0f} hours of recordings."
        if not os.access(place, os.W_OK):
            found.append(
                problem(
                    "disk",
                    f"Nothing can be written to {place}.",
                    "Give its owner's rights to the server's user.",
                    **figures,
                )
            )
        elif free_gb < ROOM_NEEDED_GB:
            found.append(problem("disk", says, "Make room, or record elsewhere.", **figures))
        elif free_gb < ROOM_WANTED_GB:
            found.append(warning("disk", says, "Make room before you record much.", **figures))
        else:
            found.append(ok("disk", says, **figures))
    return found
