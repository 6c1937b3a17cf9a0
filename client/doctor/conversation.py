"""A running server: is it well, is its clock right, and does a real conversation of three seconds come back?"""

from __future__ import annotations

import asyncio
import email.utils
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from client.api import ServerApi
from client.doctor.finding import Finding, ok, problem, warning
from client.errors import ClientError, ServerRefusedError
from client.peer import AvatarClient
from stream.protocol import FPS, SAMPLE_RATE

SECONDS = 3.0
WARM_UP_S = 0.8  # in which the delay fills
TIMEOUT_S = 45.0
CLOCK_S = 30.0  # more than this and ephemeral TURN credentials begin to suffer
FPS_WANTED, MISSES_WANTED = 0.9 * FPS, 0.01
AUDIBLE = 500


@dataclass
class Heard:
    """Of one conversation. When each moment came (s after the offer), its loudness, how much its picture moved."""

    at_s: list[float] = field(default_factory=list)
    loudness: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)


async def check_health(url: str, token: str | None) -> tuple[list[Finding], dict[str, Any]]:
    """Findings, and what the server says of itself ({} where it does not answer)."""
    try:
        async with httpx.AsyncClient(base_url=url, timeout=10, follow_redirects=True) as http:
            health = await http.get("/healthz")
            received_s = time.time()
        async with ServerApi(url, token=token) as api:
            about = await api.describe()
        state = health.json()
        status, message = str(state["status"]), str(state["message"])
    except (httpx.HTTPError, httpx.InvalidURL, ClientError) as error:
        says = str(error) or type(error).__name__
        if not isinstance(error, ClientError):
            says = f"Nothing answers at {url} ({says})."
        return [problem("server", says, "Start it (`talkalong serve`), or check address and firewall.")], {}
    except (ValueError, KeyError, TypeError):
        return [
            problem("server", f"What answers at {url} is no Talkalong server.", "Check address and port.")
        ], {}
    found = []
    if status == "ready":
        found.append(
            ok("server", f"Talkalong {about.get('version')} with the model {about.get('model')} is ready, "
               f"{state.get('sessions', 0)} of {about['limits']['sessions']} sessions in use.", **state)
        )  # fmt: skip
    else:
        found.append(
            problem("server", f"The server is {status}: {message}", "Wait, or read its log.", **state)
        )
    return [*found, *_clock(health.headers.get("Date"), received_s)], about


def _clock(date: str | None, received_s: float) -> list[Finding]:
    """The server's clock by its Date header, to a second."""
    try:
        there_s = email.utils.parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError):
        return []
    ahead_s = there_s + 0.5 - received_s
    if abs(ahead_s) < CLOCK_S:
        return [
            ok(
                "clock",
                f"The clocks of server and this machine agree to {abs(ahead_s) + 0.5:.0f} s.",
                ahead_s=ahead_s,
            )
        ]
    word = "ahead" if ahead_s > 0 else "behind"
    return [
        warning(
            "clock", f"The server's clock is {abs(ahead_s):.0f} s {word} of this machine's.",
            "Let both follow network time (`timedatectl set-ntp true`): TURN and certificates depend on it.",
            ahead_s=ahead_s,
        )
    ]  # fmt: skip


async def check_session(url: str, token: str | None) -> list[Finding]:
    """Three seconds of a tone that comes and goes: voice and picture there and back."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            heard = await _talk(url, token)
    except TimeoutError:
        return [
            problem("session", "The session began, but nothing came of it in time.", "Read the server's log.")
        ]
    except ServerRefusedError as error:
        remedy = (
            "Its operator knows the token."
            if error.status == 401
            else "Try again later, or read the server's log."
        )
        return [problem("session", str(error), remedy)]
    except ClientError as error:
        return [problem("session", str(error), "docs/reachability.md shows the ways through.")]
    return [judge(heard)]


def judge(heard: Heard) -> Finding:
    """What the conversation was like; the first 0.8 s are start-up."""
    if not heard.at_s:
        return problem("session", "The session began, but no picture came back.", "Read the server's log.")
    first_ms = 1_000 * heard.at_s[0]
    steady = [at for at in heard.at_s if at - heard.at_s[0] >= WARM_UP_S]
    fps = (len(steady) - 1) / (steady[-1] - steady[0]) if len(steady) > 1 else 0.0
    missed, due = int(heard.stats.get("frames_missed", 0)), int(heard.stats.get("frames_due", 0))
    misses = missed / due if due else 0.0
    voice = max(heard.loudness) > AUDIBLE
    figures = {
        "first_ms": first_ms, "fps": fps, "frames_missed": missed, "frames_due": due, "voice": voice,
        "moved": max(heard.moved), "codec": heard.stats.get("codec"), "rtt_ms": heard.stats.get("rtt_ms"),
        "packets_lost": heard.stats.get("packets_lost"), "budget": heard.stats.get("budget"),
    }  # fmt: skip
    says = (
        f"Voice and picture came back: first picture after {first_ms:.0f} ms, {fps:.1f} frames a second, "
        f"{missed} of {due} frames missed ({figures['codec'] or 'codec not told'})."
    )
    if not voice:
        return problem(
            "session", f"The picture came back ({fps:.1f} frames a second), but the voice did not.",
            "The way up is blocked, or the server's log says more.", **figures,
        )  # fmt: skip
    if fps < FPS_WANTED or misses > MISSES_WANTED:
        return warning(
            "session", says, "The server, the network or this machine is too slow or too busy.", **figures
        )
    return ok("session", says, **figures)


async def _talk(url: str, token: str | None) -> Heard:
    at = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    voice = (9_000 * np.sin(2 * np.pi * 220 * at) * ((at % 0.5) < 0.25)).astype(np.int16)
    heard = Heard()
    begun = time.monotonic()
    async with AvatarClient(url, token=token) as avatar:
        speaking = asyncio.create_task(avatar.push(voice))
        first: np.ndarray | None = None
        async for moment in avatar:
            picture = moment.picture[::8, ::8].astype(np.int16)
            first = picture if first is None else first
            heard.at_s.append(time.monotonic() - begun)
            heard.loudness.append(float(np.abs(moment.pcm.astype(np.int32)).max()))
            heard.moved.append(float(np.abs(picture - first).mean()))
            if speaking.done():
                break
        heard.stats = dict(avatar.stats)
        await speaking
    return heard
