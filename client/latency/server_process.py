"""A Talkalong server of our own for one measurement: `talkalong serve` in another process, on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO

from client.errors import ClientError

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
READY = "Talkalong is ready"


@asynccontextmanager
async def served(*options: str) -> AsyncIterator[str]:
    """Yields the address once the model is warm; options: of `talkalong serve`. Raises a `ClientError` with the
    server's own last words where it does not get ready."""
    with tempfile.TemporaryFile("w+") as log:
        port = _free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "client.cli", "serve", "--port", str(port), "--log-level", "warning", *options,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
        assert process.stdout is not None
        reading: asyncio.Task[None] | None = None
        try:
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    while not (line := await process.stdout.readline()).startswith(READY.encode()):
                        if not line:
                            raise ClientError(f"The server did not start: {_last_words(log)}")
            except TimeoutError as error:
                raise ClientError(
                    f"The server was not ready after {START_TIMEOUT_S:.0f} s: {_last_words(log)}"
                ) from error
            reading = asyncio.create_task(_drain(process.stdout))
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
            if reading is not None:
                await reading


async def _drain(pipe: asyncio.StreamReader) -> None:
    while await pipe.read(4096):
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing."
