"""The result of `talkalong bench` for people: a table, and what changed between two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from client.errors import ClientError
from client.latency.comparison import compare, differences

SCHEMA = "talkalong-bench/1"
SINGLE = "a single value: repeat the run to know"
RECEIVERS = {"aiortc": "aiortc", "chromium": "Chromium"}


def read(path: Path) -> dict[str, Any]:
    """A file written before; raises `ClientError` where it is none."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ClientError(f"{path} is not JSON, so `talkalong bench` did not write it.") from error
    schema = result.get("schema") if isinstance(result, dict) else None
    if schema != SCHEMA:
        raise ClientError(f"{path} has the schema {schema!r}; this version reads {SCHEMA!r}.")
    return dict(result)


def table(result: dict[str, Any]) -> str:
    told, machine = result["provenance"], result["provenance"]["machine"]
    lines = [f"commit {told['commit']}, {machine['cpus']} x {machine['cpu']}, {result['seconds']:.0f} s"]
    lines += _model_lines(result["model"]) + _media_lines(result["media"]) + _end_lines(result["end_to_end"])
    return "\n".join(lines + [f"! {problem}" for problem in result["problems"]])


def _model_lines(model: dict[str, Any]) -> list[str]:
    if not model:
        return []
    stages = list(next(iter(model.values()))["stages_ms"])
    head = "".join(f"{stage:>11}" for stage in stages)
    lines = ["", f"{'the model alone, ms a chunk':32}{'RTF':>7}{'p50':>8}{'p95':>8}{'p99':>8}{head}"]
    for found in model.values():
        config, step = found["config"], found["step_ms"]
        name = f"  hop {config['hop_frames']}, look-ahead {config['right_frames']}"
        parts = "".join(f"{found['stages_ms'][stage]['p50']:11.2f}" for stage in stages)
        times = "".join(f"{step[key]:8.1f}" for key in ("p50", "p95", "p99"))
        lines.append(f"{name:32}{found['rtf']:7.3f}{times}{parts}")
    return lines


def _media_lines(media: dict[str, Any]) -> list[str]:
    if not media:
        return []
    width, height = media["picture"]
    lines = [
        "",
        f"{f'media, ms each, {width} x {height}':32}{'':7}{'p50':>8}{'p95':>8}{'p99':>8}{'CPU':>11}{'bytes':>11}",
    ]
    for kind in ("frames", "packets"):
        for name, found in media[kind].items():
            times = "".join(f"{found[key]:8.2f}" for key in ("p50", "p95", "p99"))
            size = f"{found['bytes']:11d}" if "bytes" in found else ""
            label = f"  {name.replace('_', ' ')}, a {kind.removesuffix('s')}"
            lines.append(f"{label:39}{times}{found['cpu']:11.3f}{size}")
    shares = ", ".join(f"{used:.1%} with {codec}" for codec, used in media["cores"].items())
    return [*lines, f"  all of it in one session, of one core: {shares}"]


def _end_lines(ends: dict[str, Any]) -> list[str]:
    rows = [(config, name, found) for config, each in ends.items() for name, found in each.items()]
    if not rows:
        return []
    head = f"{'mouth to photon, ms':32}{'n':>7}{'p50':>8}{'p95':>8}{'p99':>8}"
    lines = ["", f"{head}{'first':>8}{'fps':>7}{'missed':>8}{'CPU server':>12}{'CPU model':>11}"]
    for config, name, found in rows:
        figures = found["figures"]
        steady = figures["mouth_to_photon_ms"]["steady"]
        label = f"  {config}, {RECEIVERS.get(name, name)}"
        if not steady.get("count"):
            lines.append(f"{label:32}{'–':>7}")
            continue
        times = "".join(f"{steady[key]:8.0f}" for key in ("p50", "p95", "p99"))
        first = figures["first_frame_ms"]
        missed = figures["deadlines"].get("ratio")
        cores = [found["cores"].get(process) for process in ("server", "model")]
        lines.append(
            f"{label:32}{steady['count']:7d}{times}{'–' if first is None else f'{first:.0f}':>8}"
            f"{figures['frames']['fps']:7.1f}{'–' if missed is None else f'{missed:.2%}':>8}"
            + "".join(
                f"{'–' if used is None else f'{used:.0%}':>{size}}"
                for used, size in zip(cores, (12, 11), strict=True)
            )
        )
    return [*lines, "  (CPU: of one core, for this one session)"]


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a figure that both have: {"figure", "before", "after", "percent", "verdict"}.

    Times of which a run's quarters are known are called noise where the quarters of the two runs overlap, delays by a
    permutation test (`comparison`), what was measured once is called so.
    """
    entries = []
    for key in _both(before["model"], after["model"]):
        old, new = before["model"][key], after["model"][key]
        name = f"model, {key.replace('_', ' ')}"
        verdict = _by_parts(old["step_ms"], new["step_ms"])
        entries.append(_entry(f"{name}: RTF", old["rtf"], new["rtf"], verdict))
        entries += [
            _entry(f"{name}: {stage} p50", old["stages_ms"][stage]["p50"], new["stages_ms"][stage]["p50"],
                   _by_parts(old["stages_ms"][stage], new["stages_ms"][stage]))
            for stage in _both(old["stages_ms"], new["stages_ms"])
        ]  # fmt: skip
    for kind in ("frames", "packets"):
        parts = [result["media"].get(kind, {}) for result in (before, after)]
        for name in _both(*parts):
            old, new = parts[0][name], parts[1][name]
            entries.append(_entry(f"media: {name} p50", old["p50"], new["p50"], _by_parts(old, new)))
    for config in _both(before["end_to_end"], after["end_to_end"]):
        runs = before["end_to_end"][config], after["end_to_end"][config]
        for receiver in _both(*runs):
            old, new = (run[receiver] for run in runs)
            name = f"{config}, {receiver}"
            for found in compare(old, new):
                entries.append(
                    _entry(f"{name}: {found['figure']}", found["before"], found["after"], found["verdict"])
                )
            for process in _both(old["cores"], new["cores"]):
                cores = old["cores"][process], new["cores"][process]
                entries.append(_entry(f"{name}: cores of the {process}", *cores, SINGLE))
    return entries


def comparison_table(before: dict[str, Any], after: dict[str, Any]) -> str:
    lines = [f"{'':58}{'before':>10}{'after':>10}{'change':>9}   verdict"]
    for entry in changes(before, after):
        percent = "–" if entry["percent"] is None else f"{entry['percent']:+.1f} %"
        lines.append(
            f"{entry['figure']:58}{entry['before']:10.3f}{entry['after']:10.3f}{percent:>9}   {entry['verdict']}"
        )
    changed = differences(before, after)
    lines += ["", "The set-up:" if changed else "The set-up is the same.", *(f"  {line}" for line in changed)]
    return "\n".join(lines)


def _both(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return [key for key in first if key in second]


def _by_parts(old: dict[str, Any], new: dict[str, Any]) -> str:
    if min(old["parts"]) <= max(new["parts"]) and min(new["parts"]) <= max(old["parts"]):
        return "noise (the runs' quarters overlap)"
    return f"{'slower' if new['p50'] > old['p50'] else 'faster'} (in every quarter of the run)"


def _entry(figure: str, old: float, new: float, verdict: str) -> dict[str, Any]:
    percent = round(100 * (new - old) / old, 2) if old else None
    return {"figure": figure, "before": old, "after": new, "percent": percent, "verdict": verdict}
