"""`talkalong bench`: everything that is measured about this checkout on this machine, in one JSON file.

The model alone (in processes of its own: this side never loads torch), the media side alone, and both together end to
end, through servers that are started for it. A part that fails is told in a sentence, the others are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from client.errors import ClientError
from client.latency import bench_parts, bench_report, report
from client.latency.bench_progress import Progress
from client.latency.server_process import served
from stream.protocol import ProtocolError

CHUNKS = ((2, 2), (1, 2), (1, 1))  # hop and look-ahead in frames: busy default, idle default, low latency
MODEL_PART_S, MEDIA_PART_S, START_PART_S, CONNECT_S = 14.0, 6.0, 15.0, 4.0  # expected, for the progress only
PARTS = ("model", "media", "end_to_end")
UNFIT = 3  # exit status: a part is missing or must not be used


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure the model, the media side and mouth to photon, and write one JSON file. "
        "`talkalong bench compare A.json B.json` compares two."
    )
    add = parser.add_argument
    add("action", nargs="*", metavar="compare A B", help="compare two files instead of measuring")
    add("--model", default="portrait_256", help="a bundled model's name or a model folder")
    add(
        "--seconds",
        type=float,
        default=25.0,
        metavar="S",
        help="of each end-to-end run (default: %(default)s)",
    )
    add(
        "--model-seconds",
        type=float,
        default=8.0,
        metavar="S",
        help="of sound for the model alone (default: %(default)s)",
    )
    add("--only", choices=PARTS, action="append", help="leave the other parts out; may be repeated")
    add("--out", type=Path, default=Path("runs/bench.json"), metavar="FILE", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    try:
        if args.action:
            return _compare(args.action)
        result = asyncio.run(Bench(args).run())
    except (ClientError, ProtocolError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        return 130
    report.write(result, args.out)
    print(bench_report.table(result))
    print(f"\n{args.out}")
    return UNFIT if result["problems"] else 0


def _compare(action: list[str]) -> int:
    if action[0] != "compare" or len(action) != 3:
        raise ClientError("Say `talkalong bench compare BEFORE.json AFTER.json`, or only options to measure.")
    print(bench_report.comparison_table(*(bench_report.read(Path(path)) for path in action[1:])))
    return 0


class Bench:
    """One run of all parts, one after another: they would disturb each other."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._wanted = args.only or PARTS
        self._threads = bench_parts.served_threads("default")
        self._browser = bench_parts.why_no_browser() is None
        self._problems: list[str] = []
        self._about: dict[str, Any] = {}
        runs = 3 if self._browser else 2
        self._progress = Progress(
            len(CHUNKS) * MODEL_PART_S * ("model" in self._wanted)
            + MEDIA_PART_S * ("media" in self._wanted)
            + (runs * (args.seconds + CONNECT_S) + 2 * START_PART_S) * ("end_to_end" in self._wanted)
        )

    async def run(self) -> dict[str, Any]:
        begun_s = time.monotonic()
        async with self._progress:
            model = await self._model() if "model" in self._wanted else {}
            media = await self._media() if "media" in self._wanted else {}
            ends = await self._end_to_end() if "end_to_end" in self._wanted else {}
        return {
            "schema": bench_report.SCHEMA,
            "provenance": self._provenance(model),
            "seconds": round(time.monotonic() - begun_s, 1),
            "model": {key: _without_machine(found) for key, found in model.items()},
            "media": media,
            "end_to_end": ends,
            "problems": self._problems,
        }

    async def _model(self) -> dict[str, Any]:
        found = {}
        for hop, right in CHUNKS:
            what = f"the model, hop {hop} and look-ahead {right}"
            part = bench_parts.model(
                self._args.model,
                hop=hop,
                right=right,
                seconds=self._args.model_seconds,
                threads=self._threads,
            )
            if (figures := await self._try(what, part, MODEL_PART_S)) is not None:
                found[f"hop_{hop}_right_{right}"] = figures
        return found

    async def _media(self) -> dict[str, Any]:
        return await self._try("the media side", bench_parts.media(), MEDIA_PART_S) or {}

    async def _end_to_end(self) -> dict[str, Any]:
        """{configuration: {receiver: figures}}; the browser's are the ones to quote."""
        if (missing := bench_parts.why_no_browser()) is not None:
            self._progress.say(f"{missing} The end-to-end figures are of the aiortc receiver only.")
        plan = {
            "default": ("aiortc", "chromium") if self._browser else ("aiortc",),
            "low_latency": ("chromium",) if self._browser else ("aiortc",),
        }
        return {config: await self._config(config, receivers) for config, receivers in plan.items()}

    async def _config(self, config: str, receivers: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._progress.begin(f"a server with {config}", START_PART_S)
        try:
            async with served("--config", config, "--model", self._args.model) as url:
                for receiver in receivers:
                    what = f"end to end, {config}, {receiver}"
                    part = bench_parts.end_to_end(url, receiver=receiver, seconds=self._args.seconds)
                    if (figures := await self._try(what, part, self._args.seconds + CONNECT_S)) is None:
                        continue
                    self._about = self._about or figures.pop("about")
                    figures.pop("about", None)
                    self._problems += [f"{what}: {problem}" for problem in figures["figures"]["problems"]]
                    found[receiver] = figures
        except ClientError as error:
            self._problems.append(f"a server with {config}: {error}")
        return found

    async def _try(
        self, what: str, part: Awaitable[dict[str, Any]], expected_s: float
    ) -> dict[str, Any] | None:
        self._progress.begin(what, expected_s)
        try:
            return await part
        except (ClientError, ProtocolError, OSError, ValueError) as error:
            self._problems.append(f"{what}: {error}")
            return None

    def _provenance(self, model: dict[str, Any]) -> dict[str, Any]:
        args = self._args
        settings = {
            "model": args.model,
            "threads": self._threads,
            "seconds": args.seconds,
            "model_seconds": args.model_seconds,
        }
        told = report.provenance(settings, self._about)
        first: dict[str, Any] = next(iter(model.values()), {})
        told["model"] = {"name": args.model, "sha256": first.get("config", {}).get("model_sha256")}
        told["machine"] |= {key: first.get("machine", {}).get(key) for key in ("torch", "gpu")}
        return told


def _without_machine(figures: dict[str, Any]) -> dict[str, Any]:
    """It stands in the provenance, once."""
    return {key: value for key, value in figures.items() if key != "machine"}
