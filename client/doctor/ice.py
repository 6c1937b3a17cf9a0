"""STUN and TURN servers: each is really asked, the TURN servers for a relay."""

from __future__ import annotations

import asyncio
from typing import Any

from client.doctor.finding import Finding, ok, problem
from client.relay import Reason, ServerAnswer, ask

START = "Start it (`systemctl status coturn`) and open its ports for UDP and TCP: docs/reachability.md."
REMEDIES = {
    Reason.NO_ADDRESS: "Write it as stun:HOST:PORT, turn:HOST:PORT or turns:HOST:PORT.",
    Reason.NO_CREDENTIALS: "Give ice.servers its secret, or a username and a credential: docs/reachability.md.",
    Reason.EXPIRED: "Give both the right time (`timedatectl`), and ice.credential_minutes a larger value.",
    Reason.REFUSED: "Give both the same secret (coturn: static-auth-secret) and the right time (`timedatectl`).",
    Reason.NO_ROOM: "Raise coturn's total-quota, user-quota or max-port.",
    Reason.ERROR: "Its log says more; coturn's wants `verbose`.",
    Reason.SILENT: START,
    Reason.UNREACHABLE: START,
}


async def check(servers: list[dict[str, Any]], *, where: str) -> list[Finding]:
    """where: who names these servers, for the sentence."""
    if not servers:
        return [
            ok(
                "relay",
                f"{where} names no STUN or TURN server. Within one network, and for a server with a public address, "
                "none is needed; peers behind strict firewalls need a TURN server (docs/reachability.md).",
            )
        ]
    return [_finding(answer) for answer in await asyncio.gather(*(ask(server) for server in servers))]


def _finding(answer: ServerAnswer) -> Finding:
    figures = {"urls": answer.urls, "address": answer.address, "wait_ms": round(answer.wait_ms, 1)}
    if answer.reason is not None:
        return problem("relay", answer.problem, REMEDIES[answer.reason], **figures)
    if answer.relay:
        says = f"{answer.urls} relays through {answer.address} (asked for and given back in {answer.wait_ms:.0f} ms)."
        return ok("relay", says, **figures)
    return ok(
        "relay", f"{answer.urls} sees this machine as {answer.address} ({answer.wait_ms:.0f} ms).", **figures
    )
