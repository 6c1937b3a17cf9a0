"""The parts of `talkalong bench`, each one measurement: model, media side, end to end. They raise `ClientError`."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from client.api import ServerApi
from client.errors import ClientError
from client.latency.adapters import TalkalongAdapter
from client.latency.browser import BrowserReceiver
from client.latency.chromium import chromium_path
from client.latency.measurement import STARTUP_S, measure
from client.latency.probe import make_probe
from client.latency.ramp import processes
from client.latency.receiver import Receiver
from stream.protocol import SessionConfig

TIMEOUT_S = 180.0
TAIL_S = 1.0  # of a run, in which CPU is not counted any more


def served_threads(config: str) -> int:
    """Threads of the model process under a configuration that ships with the package; 0 for torch's own choice."""
    path = Path(str(resources.files("configs"))) / "serve" / f"{config}.yaml"
    return int(yaml.safe_load(path.read_text(encoding="utf-8")).get("model", {}).get("threads", 0))


def why_no_browser() -> str | None:
    """None where Chromium can be driven, else what is missing."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed (`make browser` does it)."
    return None if chromium_path() else "No Chromium was found (`make browser` installs it)."


async def model(name: str, *, hop: int, right: int, seconds: float, threads: int) -> dict[str, Any]:
    """What `talkalong benchmark` says, as the server's model process would run it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.json"
        await _run(
            "client.cli", "benchmark", "--model", name, "--hop", str(hop), "--right", str(right),
            "--seconds", str(seconds), "--threads", str(threads), "--out", str(out),
        )  # fmt: skip
        return dict(json.loads(out.read_text(encoding="utf-8")))


async def media(seconds: float = 4.0) -> dict[str, Any]:
    """Times of what the server does with every picture and every packet (see `stream.media_benchmark`)."""
    return dict(json.loads(await _run("stream.media_benchmark", "--seconds", str(seconds))))


async def end_to_end(url: str, *, receiver: str, seconds: float) -> dict[str, Any]:
    """One session: {"figures" (as in a latency report), "budget", "picture", "cores", "about"}.

    receiver: "aiortc" or "chromium". cores: CPU in use while the session is steady, by process of the server.
    """
    probe = make_probe(seconds=seconds)
    adapter = TalkalongAdapter(url, config=SessionConfig())
    recorder = BrowserReceiver(adapter, probe) if receiver == "chromium" else Receiver(adapter, probe)
    watching = asyncio.create_task(_cores(url, seconds))
    try:
        recording = await recorder.record()
        cores = await watching
    finally:
        watching.cancel()
    return {
        "figures": await asyncio.to_thread(measure, probe, recording),
        "budget": recording.server.get("budget", {}),
        "picture": list(recording.size),
        "cores": cores,
        "about": recording.about,
    }


async def _cores(url: str, seconds: float) -> dict[str, float]:
    """CPU of the server's two processes between start-up and the end; {} where the server does not say."""
    loop = asyncio.get_running_loop()
    try:
        async with ServerApi(url) as api:
            await asyncio.sleep(STARTUP_S)
            before, begun_s = processes(await api.metrics()), loop.time()
            await asyncio.sleep(max(seconds - STARTUP_S - TAIL_S, 1.0))
            after, passed_s = processes(await api.metrics()), loop.time() - begun_s
    except ClientError:
        return {}
    return {name: round((after[name][0] - before[name][0]) / passed_s, 3) for name in before if name in after}


async def _run(module: str, *arguments: str) -> str:
    """Standard output of `python -m module arguments`; its last words as a `ClientError` where it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip
    try:
        out, told = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except TimeoutError as error:
        raise ClientError(f"It took longer than {TIMEOUT_S:.0f} s and was stopped.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = [line for line in told.decode(errors="replace").splitlines() if line.strip()]
        raise ClientError(
            lines[-1] if lines else f"It ended with status {process.returncode}, without a word."
        )
    return out.decode()
