"""`talkalong doctor`: runs the checks one after the other and prints a line for each."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from client import server_address
from client.doctor import certificate, codecs, conversation, ice, model, processor, serving, sound
from client.doctor.finding import OK, PROBLEM, WARNING, Finding, problem

SCHEMA = "talkalong-doctor/1"
Check = Callable[[], Awaitable[Iterable[Finding]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say what works and what to do about the rest: whether this machine can serve, and, with --server, whether a "
        "running server does. Exit status 0 without problems, 1 with any."
    )
    add = parser.add_argument
    server_address.add_arguments(
        parser,
        default=None,
        help="look at this running server; at this machine's serving only with --config too",
    )
    add("--config", metavar="X", help="what to serve with: a YAML file, or default, low_latency or gpu")
    add("--quick", action="store_true", help="leave out the model's speed, which takes half a minute")
    add("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    examination = Examination(args, show=None if args.json else lambda found: print(found.line(), flush=True))
    try:
        found = asyncio.run(examination.examine())
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    if args.json:
        values = {
            "schema": SCHEMA,
            "ok": not _count(found, PROBLEM),
            "findings": [item.to_dict() for item in found],
        }
        print(json.dumps(values, indent=2))
    else:
        print(summary(found))
    return 1 if _count(found, PROBLEM) else 0


def _count(found: list[Finding], mark: str) -> int:
    return sum(item.mark == mark for item in found)


def summary(found: list[Finding]) -> str:
    problems, warnings, fine = (_count(found, mark) for mark in (PROBLEM, WARNING, OK))
    verdict = (
        "Something has to be done." if problems else "It works, with a catch." if warnings else "All is well."
    )
    return f"\n{verdict} {fine} ok, {warnings} to know of, {problems} to mend."


class Examination:
    """The checks that the arguments ask for, in order; `show` is told of each finding at once."""

    def __init__(self, args: argparse.Namespace, *, show: Callable[[Finding], None] | None) -> None:
        self._args = args
        self._show = show
        self._found: list[Finding] = []

    async def examine(self) -> list[Finding]:
        args = self._args
        local = args.server is None or args.config is not None
        values: dict[str, Any] | None = None
        if local:
            values = await self._outline(args.config or "default")
        if values is not None:
            await self._serving(values)
        await self._do("codecs", lambda: asyncio.to_thread(codecs.check))
        await self._do("sound", lambda: asyncio.to_thread(sound.check))
        if args.server is not None:
            await self._server(args.server)
        return self._found

    async def _outline(self, config: str) -> dict[str, Any] | None:
        values, finding = await asyncio.to_thread(serving.outline, config)
        self._tell([finding])
        return values

    async def _serving(self, values: dict[str, Any]) -> None:
        await self._do("ports", lambda: asyncio.to_thread(serving.check, values))
        await self._do("relay", lambda: ice.check(values["ice_servers"], where="The configuration"))
        await self._do("cpu", lambda: asyncio.to_thread(processor.check))
        name = values["model"]["name"]
        if name.endswith((".yaml", ".yml")):
            return  # random weights, for tests: nothing to verify or to measure
        await self._do("weights", lambda: asyncio.to_thread(model.check_files, name))
        if not self._args.quick:
            await self._do("speed", lambda: asyncio.to_thread(model.check_speed, values["model"]))

    async def _server(self, url: str) -> None:
        await self._do("certificate", lambda: certificate.check(url))
        about: dict[str, Any] = {}

        async def health() -> list[Finding]:
            found, said = await conversation.check_health(url, self._args.token)
            about.update(said)
            return found

        await self._do("server", health)
        if not about:
            return
        await self._do("relay", lambda: ice.check(about.get("ice_servers", []), where="The server"))
        await self._do("session", lambda: conversation.check_session(url, self._args.token))

    async def _do(self, name: str, check: Check) -> None:
        """A check that breaks is a finding as well: whoever asks a doctor gets no traceback."""
        try:
            found = list(await check())
        except Exception as error:
            found = [
                problem(
                    name, f"This check itself failed ({type(error).__name__}: {error}).",
                    "Please report it with this line and your system.",
                )
            ]  # fmt: skip
        self._tell(found)

    def _tell(self, found: list[Finding]) -> None:
        for item in found:
            self._found.append(item)
            if self._show is not None:
                self._show(item)
