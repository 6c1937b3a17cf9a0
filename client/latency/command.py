"""`talkalong latency`: measure a server from a sound at the microphone to the lips on the screen."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.errors import ClientError
from client.latency import page, report
from client.latency.comparison import compare, settings_changed
from client.latency.detection import detect
from client.latency.endpoints import ENDPOINTS, Endpoint, TalkalongEndpoint
from client.latency.figures import figures, verdict
from client.latency.probe import make_probe
from client.latency.receiver import record
from client.latency.relay import NetworkProfile, Relay, parse_profile
from client.latency.self_test import self_test
from stream.protocol import ProtocolError, SessionConfig

SELF_TEST_FAILED = 1
NOT_MEASURED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Says sounds with known onsets into a server and finds the answering lips in the pictures that come back and "
        "the sounds in the voice: by content, never by time stamps. `talkalong latency compare A.json B.json` says "
        "what changed between two reports, and whether it is noise."
    )
    add = parser.add_argument
    add(
        "reports", nargs="*", metavar="compare A.json B.json", help="compare two reports instead of measuring"
    )
    add("--server", default="http://localhost:8080", metavar="URL", help="default: %(default)s")
    add(
        "--endpoint",
        choices=sorted(ENDPOINTS),
        default="talkalong",
        help="how the server is called (%(default)s)",
    )
    add("--seconds", type=float, default=60.0, help="how long to measure (default: 60)")
    add(
        "--sound",
        choices=("syllables", "clicks"),
        default="syllables",
        help="clicks: for servers that echo or flash",
    )
    add("--seed", type=int, default=0, help="of the sounds' places and of the network (default: 0)")
    add("--portrait", metavar="ID", help="a portrait of a Talkalong server")
    add("--hop", type=int, metavar="FRAMES", help="frames a chunk of a Talkalong server")
    add("--right", type=int, metavar="FRAMES", help="its look-ahead")
    add(
        "--profile", default="none", metavar="P",
        help="a bad network: none, wifi, lte, lossy, or settings such as loss=0.01,delay_ms=40; delays in both "
        "directions, losses on the way up",
    )  # fmt: skip
    add("--uplink", metavar="P", help="the network from the microphone to the server, if it differs")
    add("--downlink", metavar="P", help="the network back, if it differs")
    add("--token", metavar="T", help="the server's bearer token, if it asks for one")
    add(
        "--out",
        type=Path,
        default=Path("latency"),
        metavar="FOLDER",
        help="for report.json and report.html (latency/)",
    )
    add(
        "--self-test",
        action="store_true",
        help="measure known delays, and say whether this harness finds them",
    )


def run(args: argparse.Namespace) -> int:
    """0: measured; 1: something went wrong, said in a sentence; 3: too few detections to say anything."""
    try:
        if args.reports:
            return _compare(args.reports)
        if args.self_test:
            return asyncio.run(_self_test())
        return asyncio.run(_measure(args))
    except (ClientError, ProtocolError, ValueError, OSError) as error:
        print(f"\n{error}" if sys.stdout.isatty() else error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


async def _measure(args: argparse.Namespace) -> int:
    result = await measure(args)
    await asyncio.to_thread(_write, args.out, result)
    print(
        f"\r{' ' * 72}\r{report.table(result)}\n\nwritten: {args.out / 'report.json'}, {args.out / 'report.html'}"
    )
    return 0 if result["valid"] else NOT_MEASURED


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One run with the command line's settings; its report."""
    up = parse_profile(args.uplink or args.profile)
    # A profile's losses are met on the way up: see the error below.
    down = (
        parse_profile(args.downlink)
        if args.downlink
        else replace(parse_profile(args.profile), loss=0, reorder=0)
    )
    if down.loss or down.reorder:
        raise ClientError(
            "On the way back, losses cannot be measured with this receiver: aiortc's keeps a delay for ever after each "
            "lost picture, which no browser does. Put the loss on --uplink, or measure in a browser."
        )
    probe = make_probe(args.seconds, sound=args.sound, seed=args.seed)
    async with contextlib.AsyncExitStack() as stack:
        relay = None
        if up != NetworkProfile() or down != NetworkProfile():
            relay = await stack.enter_async_context(Relay(up=up, down=down, seed=args.seed))
        endpoint = _endpoint(args, relay)
        stack.push_async_callback(endpoint.aclose)
        recording = await record(endpoint, probe, progress=_show)
        about, stats = await endpoint.about(), await endpoint.stats()
        network = None if relay is None else {
            "up": {"packets": relay.up.packets, "lost": relay.up.lost},
            "down": {"packets": relay.down.packets, "lost": relay.down.lost},
        }  # fmt: skip
        found = await asyncio.to_thread(detect, recording, probe, sound_lead_s=endpoint.sound_lead_s)
    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in ("reports", "self_test", "token", "out")
    }
    return report.build(
        recording=recording, found=found, figures=figures(recording, found), judged=verdict(found),
        settings=settings | {"network": network}, about=about, stats=stats,
    )  # fmt: skip


def _endpoint(args: argparse.Namespace, relay: Relay | None) -> Endpoint:
    if args.endpoint != TalkalongEndpoint.name:
        return ENDPOINTS[args.endpoint](args.server, token=args.token, relay=relay)
    config = SessionConfig(portrait=args.portrait, hop_frames=args.hop, right_frames=args.right)
    return TalkalongEndpoint(args.server, token=args.token, relay=relay, config=config)


async def _self_test() -> int:
    result = await self_test(show=_show)
    print(f"\r{' ' * 72}\r{'injected':>10}{'picture':>10}{'sound':>10}   ms")
    for injected, seen, heard in zip(result.injected_ms, result.seen_ms, result.heard_ms, strict=True):
        print(f"{injected:10.0f}{seen:10.1f}{heard:10.1f}")
    print(
        f"picture: slope {result.slope:.3f}, offset {result.offset_ms:.0f} ms, "
        f"known to {result.offset_error_ms:.1f} ms\n"
        f"sound:   slope {result.sound_slope:.3f}, offset {result.sound_offset_ms:.0f} ms\n"
        f"jitter:  {result.jitter_injected_ms:.1f} ms injected, {result.jitter_seen_ms:.1f} ms seen\n"
        f"mute:    {result.mute_message}"
    )
    for failure in result.failures:
        print(failure, file=sys.stderr)
    print(
        "The harness finds what it should." if not result.failures else "The harness cannot be trusted here."
    )
    return SELF_TEST_FAILED if result.failures else 0


def _compare(words: Sequence[str]) -> int:
    if len(words) != 3 or words[0] != "compare":
        raise ClientError("Say `talkalong latency compare A.json B.json` to compare two reports.")
    before, after = (report.load(Path(name)) for name in words[1:])
    for name, each in zip(words[1:], (before, after), strict=True):
        if not each["valid"]:
            print(f"{name} is not a valid measurement: {each['verdict']}")
    for change in compare(before, after):
        print(change.sentence())
    changed = settings_changed(before, after)
    if changed:
        print("also different: " + "; ".join(changed))
    return 0


def _write(folder: Path, result: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page.page(result), encoding="utf-8")


def _show(line: str) -> None:
    print(f"\r{line:<72}", end="", flush=True)
