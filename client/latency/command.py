"""`talkalong latency`: measure a server, prove the harness, or compare two reports."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client import server_address
from client.errors import ClientError
from client.latency import comparison, page, report
from client.latency.adapters import KINDS, Adapter, JsonOfferAdapter, TalkalongAdapter, WhipWhepAdapter
from client.latency.browser import BrowserReceiver
from client.latency.lip_response import lip_response_ms
from client.latency.measurement import measure
from client.latency.network import PROFILES, Profile, profile
from client.latency.probe import KINDS as PROBES
from client.latency.probe import make_probe
from client.latency.receiver import Receiver
from client.latency.self_test import SelfTest, self_test
from stream.protocol import ProtocolError, SessionConfig

LOSS_SWEEP = (0.0, 0.005, 0.01, 0.02, 0.05)
UNFIT = 3  # exit status: the run was made, but its figures must not be used


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure mouth to photon: from a sound at the microphone to the matching lips at the receiver, by content. "
        "`talkalong latency compare A.json B.json` compares two reports."
    )
    add = parser.add_argument
    add("action", nargs="*", metavar="compare A B", help="compare two reports instead of measuring")
    server_address.add_arguments(parser, parse=str)
    add(
        "--adapter",
        choices=KINDS,
        default="talkalong",
        help="how the server is called (default: %(default)s)",
    )
    add(
        "--whep",
        metavar="URL",
        help="with --adapter whip: where the picture is played from, if the answer has no Link to it",
    )
    add("--portrait", metavar="ID", help="a portrait of the server")
    add("--hop-frames", type=int, metavar="N", help="of the session, instead of the server's own")
    add("--right-frames", type=int, metavar="N", help="of the session, instead of the server's own")
    add("--seconds", type=float, default=60.0, metavar="S", help="how long to speak (default: %(default)s)")
    add("--probe", choices=PROBES, default="syllables", help="clicks for servers that flash or echo")
    add("--seed", type=int, default=0, metavar="N", help="of probe and network (default: %(default)s)")
    add("--out", type=Path, default=Path("runs/latency"), metavar="DIR", help="default: %(default)s")
    add("--profile", choices=[*PROFILES, "custom"], help="a bad network, in both directions")
    for name, what in (
        ("loss", "share of packets, 0..1"),
        ("delay-ms", "one way"),
        ("jitter-ms", "mean"),
        ("reorder", "share"),
    ):
        add(f"--{name}", type=float, metavar="X", help=f"of the network: {what}")
    add("--rate-kbps", type=float, metavar="X", help="of the network, each way")
    add("--browser", action="store_true", help="receive in headless Chromium, as people do")
    add(
        "--sweep",
        action="store_true",
        help=f"repeat with losses of {', '.join(f'{100 * x:g}' for x in LOSS_SWEEP)} percent",
    )
    add("--self-test", action="store_true", help="measure a reference server with known delays")


def run(args: argparse.Namespace) -> int:
    try:
        if args.action:
            return _compare(args.action)
        if args.self_test:
            return _prove()
        # Other kinds of servers are called at an endpoint of their own, path and all.
        own = args.adapter == "talkalong"
        args.server = (server_address.server_address if own else server_address.endpoint_address)(args.server)
        args.whep = args.whep and server_address.endpoint_address(args.whep)
        return _sweep(args) if args.sweep else _measure(args)
    except (ClientError, ProtocolError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        return 130


def _compare(action: list[str]) -> int:
    if action[0] != "compare" or len(action) != 3:
        raise ClientError(
            "Say `talkalong latency compare BEFORE.json AFTER.json`, or only options to measure."
        )
    print(comparison.table(*(report.read(Path(path)) for path in action[1:])))
    return 0


def _prove() -> int:
    found = asyncio.run(self_test(show=lambda text: print(text, end="", file=sys.stderr, flush=True)))
    print(proof(found))
    return 0 if found.passed else 1


def proof(found: SelfTest) -> str:
    rows = "\n".join(
        f"  {delay:>5} ms injected  {value:7.1f} ms measured" for delay, value in found.measured_ms.items()
    )
    lines = [
        rows,
        f"slope {found.slope:.4f}; offset {found.offset_ms:.1f} ms, known to +-{found.offset_uncertainty_ms:.1f} ms, "
        f"alike within {found.offset_spread_ms:.1f} ms",
        f"sound: slope {found.ear_slope:.4f}, offset {found.ear_offset_ms:.1f} ms",
        f"jitter p95 {found.jitter_ms:.0f} ms of {found.injected_jitter_ms:.0f} ms injected",
        f"mouth that does not listen: no response ({found.mute})"
        if found.mute != "responds"
        else "the mute responds",
        f"{found.missed} missed, {found.false} false of {found.sounds} sounds",
        f"microphone late by {found.late_ms:.1f} ms (p99)",
        *(f"! {problem}" for problem in found.problems),
        "The self-test passed." if found.passed else "The self-test FAILED.",
    ]
    return "\n".join(lines)


def _measure(args: argparse.Namespace) -> int:
    conditions = _conditions(args)
    result = asyncio.run(measure_once(args, conditions, show=_progress(args.seconds)))
    report.write(result, args.out / "report.json")
    (args.out / "report.html").write_text(page.render(result), encoding="utf-8")
    print(report.table(result))
    print(f"\n{args.out / 'report.json'}, {args.out / 'report.html'}")
    return UNFIT if result["figures"]["problems"] else 0


def _sweep(args: argparse.Namespace) -> int:
    """The same run with growing loss; one report each, and the curve."""
    rows, status = [], 0
    for loss in LOSS_SWEEP:
        args.loss, args.profile = loss, args.profile or "custom"
        result = asyncio.run(measure_once(args, _conditions(args), show=_progress(args.seconds)))
        report.write(result, args.out / f"loss_{1_000 * loss:04.0f}.json")
        rows.append((loss, result))
        status = status or (UNFIT if result["figures"]["problems"] else 0)
    print(f"{'loss':>8}{'p50':>9}{'p95':>9}{'freezes':>9}{'found':>9}")
    for loss, result in rows:
        figures = result["figures"]
        steady, lips = figures["mouth_to_photon_ms"]["steady"], figures["detection"]["lips"]
        found = f"{lips['found']}/{figures['detection']['sounds']}"
        p50, p95 = (f"{steady[key]:9.1f}" if key in steady else f"{'–':>9}" for key in ("p50", "p95"))
        print(f"{loss:8.1%}{p50}{p95}{figures['frames']['freezes']:9d}{found:>9}")
    (args.out / "sweep.html").write_text(page.render_sweep(rows), encoding="utf-8")
    print(f"\n{args.out / 'sweep.html'}")
    return status


async def measure_once(
    args: argparse.Namespace,
    conditions: Profile | None,
    *,
    show: Callable[[float, int, dict[str, Any]], None],
) -> dict[str, Any]:
    """One run as a report."""
    probe = make_probe(seconds=args.seconds, kind=args.probe, seed=args.seed)
    response_ms = None
    if args.adapter == "talkalong":
        response_ms = await lip_response_ms(args.server, _session_config(args), probe)
    if args.browser:
        recording = await BrowserReceiver(
            adapter(args), probe, url=args.server, profile=conditions, progress=show
        ).record()
    else:
        recording = await Receiver(adapter(args), probe, profile=conditions, progress=show).record()
    settings = {
        "receiver": "chromium" if args.browser else "aiortc",
        "url": args.server,
        "adapter": args.adapter,
        "seconds": args.seconds,
        "probe": args.probe,
        "seed": args.seed,
        "portrait": args.portrait,
        "hop_frames": args.hop_frames,
        "right_frames": args.right_frames,
        "network": None if conditions is None else vars(conditions),
        "picture": list(recording.size),
    }
    figures = await asyncio.to_thread(measure, probe, recording, lip_response_ms=response_ms)
    return {
        "schema": report.SCHEMA,
        "provenance": report.provenance(settings, recording.about),
        "budget": recording.server.get("budget", {}),
        "stages_ms": recording.server.get("stages_ms", {}),
        "figures": figures,
    }


def adapter(args: argparse.Namespace) -> Adapter:
    if args.adapter == "json":
        return JsonOfferAdapter(args.server, token=args.token)
    if args.adapter == "whip":
        return WhipWhepAdapter(args.server, args.whep, token=args.token)
    return TalkalongAdapter(args.server, config=_session_config(args), token=args.token)


def _session_config(args: argparse.Namespace) -> SessionConfig:
    return SessionConfig(
        portrait=args.portrait,
        hop_frames=args.hop_frames,
        right_frames=args.right_frames,
        token=args.token,
    )


def _conditions(args: argparse.Namespace) -> Profile | None:
    values = {name: getattr(args, name) for name in ("loss", "delay_ms", "jitter_ms", "reorder", "rate_kbps")}
    if args.profile is None and all(value is None for value in values.values()):
        return None
    return profile(args.profile or "custom", seed=args.seed, **values)


def _progress(seconds: float) -> Callable[[float, int, dict[str, Any]], None]:
    """One line that is rewritten, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda *_: None

    def show(passed_s: float, pictures: int, figures: dict[str, Any]) -> None:
        done = round(24 * passed_s / seconds)
        line = f"[{'#' * done}{'.' * (24 - done)}] {passed_s:4.0f} of {seconds:.0f} s, {pictures} pictures"
        if "miss_ratio" in figures:
            line += f", {100 * figures['miss_ratio']:.1f} % missed"
        end = "\n" if passed_s >= seconds else ""
        print(f"\r{line:<76}", end=end, file=sys.stderr, flush=True)

    return show
