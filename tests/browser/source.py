"""A WHIP source in a process of its own, which a test can kill as a person kills a program.

python tests/browser/source.py http://localhost:8080/ NAME
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator

import httpx
from served import ROOT, RunningServer

START_TIMEOUT_S = 40
ON_AIR = "on air"


@contextlib.asynccontextmanager
async def killable_source(server: RunningServer, name: str) -> AsyncIterator[Process]:
    """On air as `name` on entry; killed (no goodbye) on exit, if the test has not done so."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, server.url, name, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            line = (await process.stdout.readline()).decode()
        assert ON_AIR in line
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def speak(url: str, name: str) -> None:
    from tests.loopback.broadcasting import Source

    async with httpx.AsyncClient(base_url=url, timeout=30) as http, Source(http, query=f"?stream={name}"):
        print(ON_AIR, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    asyncio.run(speak(*sys.argv[1:]))
