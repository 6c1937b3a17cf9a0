"""How the server runs its own processes: this Python, nothing of theirs on a terminal, always reaped.

Each is in a session (POSIX) of its own, so that what a terminal sends to the server and its children reaches the server
only, which ends them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from stream.config import ModelConfig
from stream.errors import EngineError

Process = asyncio.subprocess.Process


async def spawn(
    what: str,
    module: str,
    config: ModelConfig,
    *arguments: str,
    pass_fds: Sequence[int] = (),
    pipes: bool = False,
) -> Process:
    """Start `python -m MODULE *arguments SETTINGS`; raises EngineError, which names `what`.

    Threads of torch sleep while they wait (OMP_WAIT_POLICY, which must be set before torch is imported): the cores are
    shared. pipes: its standard input and output are ours.
    """
    settings = asdict(config) | {"log_level": logging.getLogger().getEffectiveLevel()}
    pipe = asyncio.subprocess.PIPE if pipes else None
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            json.dumps(settings),
            stdin=pipe,
            stdout=pipe,
            pass_fds=pass_fds,
            env=os.environ
            | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
    except OSError as error:
        raise EngineError(f"{what} cannot be started: {error.strerror or error}.") from error


def kill(process: Process | None) -> None:
    """At once, if it still runs. May be called in a signal handler."""
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def end(process: Process, patience_s: float) -> None:
    """Wait for a process that has heard that it is to end; after the time it is killed. Always reaped."""
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        kill(process)
        await process.wait()
