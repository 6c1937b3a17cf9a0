"""`talkalong load`: how many sessions a server carries before it misses deadlines."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from client import server_address
from client.errors import ClientError
from client.latency import page, report
from client.latency.ramp import MAX_MISS_RATIO, Level, Ramp
from stream.protocol import ProtocolError, SessionConfig

SCHEMA = "talkalong-load/1"
HEADER = f"{'sessions':>8}{'missed':>9}{'p50':>8}{'p95':>8}{'CPU server':>12}{'CPU model':>11}{'memory':>10}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Open more and more real sessions and say how many the server carries: the largest number that misses less "
        "than 1 % of its deadlines. Run it on another machine than the server where you can: each session's "
        "receiver decodes its pictures, which takes a tenth of a core."
    )
    add = parser.add_argument
    server_address.add_arguments(parser)
    add("--sessions", type=int, default=4, metavar="N", help="at most (default: %(default)s)")
    add(
        "--ramp",
        type=float,
        default=20.0,
        metavar="S",
        help="seconds until one more joins (default: %(default)s)",
    )
    add("--portrait", metavar="ID", help="a portrait of the server")
    add("--hop-frames", type=int, metavar="N", help="of the sessions, instead of the server's own")
    add("--right-frames", type=int, metavar="N", help="of the sessions, instead of the server's own")
    add("--out", type=Path, default=Path("runs/load"), metavar="DIR", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    try:
        if args.sessions < 1:
            raise ClientError(f"--sessions is {args.sessions}; it must be 1 or more.")
        print(HEADER)
        result = asyncio.run(_climb(args))
    except (ClientError, ProtocolError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        return 130
    report.write(result, args.out / "load.json")
    (args.out / "load.html").write_text(page.render_load(result), encoding="utf-8")
    print(verdict(result))
    print(f"\n{args.out / 'load.json'}, {args.out / 'load.html'}")
    return 0


async def _climb(args: argparse.Namespace) -> dict[str, Any]:
    config = SessionConfig(portrait=args.portrait, hop_frames=args.hop_frames, right_frames=args.right_frames)
    ramp = Ramp(
        args.server,
        sessions=args.sessions,
        seconds=args.ramp,
        config=config,
        token=args.token,
        progress=lambda level: print(row(level), flush=True),
    )
    levels = await ramp.climb()
    settings = {name: getattr(args, name) for name in ("sessions", "ramp", "hop_frames", "right_frames")}
    return {
        "schema": SCHEMA,
        "provenance": report.provenance(settings, ramp.about),
        "carried": ramp.carried(),
        "stopped_by": ramp.stopped_by,
        "levels": [level.to_dict() for level in levels],
    }


def row(level: Level) -> str:
    """Progress; the delays are found at the end, in all of a session's pictures."""
    cpu = [f"{level.cpu[name]:.2f}" if name in level.cpu else "–" for name in ("server", "model")]
    memory = f"{sum(level.memory_mb.values()):.0f} MB" if level.memory_mb else "–"
    return f"{level.sessions:8d}{level.miss_ratio:9.2%}{'':16}{cpu[0]:>12}{cpu[1]:>11}{memory:>10}"


def verdict(result: dict[str, Any]) -> str:
    lines = []
    for level in result["levels"]:
        delay = level["mouth_to_photon_ms"]
        if delay.get("count"):
            lines.append(
                f"{level['sessions']:8d}{'':9}{delay['p50']:8.0f}{delay['p95']:8.0f}   ms from mouth to photon, "
                f"{delay['count']} sounds"
            )
    if result["stopped_by"]:
        lines.append(result["stopped_by"])
    most = result["carried"]
    lines.append(
        f"The server carries {most} session{'s' if most != 1 else ''} with less than {MAX_MISS_RATIO:.0%} missed."
        if most
        else f"Not even one session stays under {MAX_MISS_RATIO:.0%} missed."
    )
    return "\n".join(lines)
