"""A report as one HTML file that needs nothing else."""

from __future__ import annotations

import html
from typing import Any

from client.latency import charts
from client.latency import report as reports
from client.latency.measurement import MEAN_PHASE_MS
from client.latency.ramp import MAX_MISS_RATIO

BUDGET_PARTS = ("hop_ms", "right_context_ms", "step_allowance_ms", "margin_ms", "floor_ms")
STYLE = (
    """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5c697d; --line: #d5dbe4; --first: #3b78c4;
  --second: #d07a1e; --paper: #fff; --shade: #f3f5f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ef; --soft: #9fabbc; --line: #3a4452; --first: #6ea5ea; --second: #e9a04f;
    --paper: #14181e; --shade: #1c222b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 720px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
h2 + p { margin: 0 0 .5rem; color: var(--soft); font-size: 13px; }
pre { white-space: pre-wrap; font-size: 12.5px; line-height: 1.45; background: var(--shade); padding: .7rem .9rem;
  border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 500; color: var(--soft); } td { overflow-wrap: anywhere; }
.numbers th, .numbers td { text-align: right; } .setup th { width: 34%; }
.problem { border-left: 4px solid #c4473b; padding-left: .7rem; }
.sum { font-size: 1.15rem; }
"""
    + charts.STYLE
)


def render(report: dict[str, Any]) -> str:
    figures = report["figures"]
    samples = figures["samples"]
    photon = [(at, value) for at, value in zip(samples["onset_s"], samples["mouth_to_photon_ms"], strict=True)
              if value is not None]  # fmt: skip
    ear = [value for value in samples["mouth_to_ear_ms"] if value is not None]
    parts = [f'<p class="problem">{html.escape(problem)}</p>' for problem in figures["problems"]]
    parts.append(f"<pre>{html.escape(reports.table(report))}</pre>")
    parts += ["<h2>Mouth to photon</h2>", charts.histogram([value for _, value in photon], "ms")]
    parts += ["<h2>Mouth to ear</h2>", charts.histogram(ear, "ms")]
    pairs = zip(samples["mouth_to_photon_ms"], samples["mouth_to_ear_ms"], strict=True)
    after = [seen + MEAN_PHASE_MS - heard for seen, heard in pairs if seen is not None and heard is not None]
    parts += ["<h2>Picture after sound</h2>", charts.histogram(after, "ms")]
    parts += ["<h2>Over the run</h2>", charts.scatter(photon, "s into the run", "ms from mouth to photon")]
    if "one_chunk_ms" in figures.get("way", {}):
        parts += [
            "<h2>The way of one chunk, a typical one</h2>",
            "<p>From the first sample's sound to its picture on the screen; each part begins where the one before "
            "ended.</p>",
            timeline(figures["way"]),
        ]
    if report["budget"]:
        parts += ["<h2>The server's budget beside what was measured</h2>", _budget(report)]
    parts.append(_setup(report["provenance"]))
    return _document("Latency", "\n".join(parts))


def render_sweep(rows: list[tuple[float, dict[str, Any]]]) -> str:
    """Delay over loss, p50 and p95."""
    series = {
        key: [
            (100 * loss, result["figures"]["mouth_to_photon_ms"]["steady"][key])
            for loss, result in rows
            if key in result["figures"]["mouth_to_photon_ms"]["steady"]
        ]
        for key in ("p50", "p95")
    }
    drawn = charts.curves(series, "% lost, each way", "ms from mouth to photon")
    return _document("Latency over loss", f"<h2>Mouth to photon</h2>\n{drawn}")


def render_load(result: dict[str, Any]) -> str:
    """Missed deadlines, delay, CPU and memory over the number of sessions."""
    levels = result["levels"]
    count = result["carried"]
    parts = [
        f'<p class="sum">This server carries <b>{count}</b> session{"" if count == 1 else "s"} with less than '
        f"{MAX_MISS_RATIO:.0%} of the deadlines missed.</p>"
    ]
    if result["stopped_by"]:
        parts.append(f'<p class="problem">{html.escape(result["stopped_by"])}</p>')
    parts.append(_levels(levels))
    missed = [(level["sessions"], 100 * level["miss_ratio"]) for level in levels]
    delays = {
        key: [
            (level["sessions"], level["mouth_to_photon_ms"][key])
            for level in levels
            if key in level["mouth_to_photon_ms"]
        ]
        for key in ("p50", "p95")
    }
    cores, memory = (
        {
            name: [(level["sessions"], level[what][name]) for level in levels if name in level[what]]
            for name in ("server", "model")
        }
        for what in ("cpu_cores", "memory_mb")
    )
    limit = 100 * MAX_MISS_RATIO
    for title, series, unit, most in (
        ("Missed deadlines", {"missed": missed}, "%", limit),
        ("Mouth to photon", delays, "ms", None),
        ("CPU in use", cores, "cores", None),
        ("Memory", memory, "MB", None),
    ):
        parts.append(f"<h2>{title}</h2>")
        parts.append(charts.curves(series, "sessions", unit, limit=most, whole_x=True))
    parts.append(_setup(result["provenance"]))
    return _document("Load", "\n".join(parts))


def timeline(way: dict[str, Any]) -> str:
    """One bar a span, each beginning where the one before ends, then the lips' own response."""
    rows = [(name.replace("_", " "), value, "step") for name, value in way["one_chunk_ms"].items()]
    if "lip_response_ms" in way:
        rows.append(("the lips themselves", way["lip_response_ms"], "step"))
    return charts.steps(rows)


def _budget(report: dict[str, Any]) -> str:
    """Bars of the parts that add up, of their sum, and of what was measured."""
    budget, figures = report["budget"], report["figures"]
    parts = [(name, budget[name]) for name in BUDGET_PARTS if name in budget]
    rows = [(name.removesuffix("_ms").replace("_", " "), value, "step") for name, value in parts]
    if "lip_response_ms" in (way := figures.get("way") or {}):
        rows.append(("the lips themselves", way["lip_response_ms"], "step"))
    rows.append(("sum", sum(value for _, value, _ in rows), "whole"))
    steady = figures["mouth_to_photon_ms"]["steady"]
    rows += [(f"measured {key}", steady[key], "whole") for key in ("p50", "p95") if key in steady]
    return charts.steps(rows)


def _levels(levels: list[dict[str, Any]]) -> str:
    """The ramp as a table."""
    head = (
        "sessions",
        "missed",
        "p50, ms",
        "p95, ms",
        "sounds",
        "server, cores",
        "model, cores",
        "memory, MB",
    )
    lines = [f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>"]
    for level in levels:
        delay, cores, memory = level["mouth_to_photon_ms"], level["cpu_cores"], level["memory_mb"]
        cells = [
            f"{level['sessions']}",
            f"{level['miss_ratio']:.2%}",
            *(f"{delay[key]:.0f}" if key in delay else "–" for key in ("p50", "p95")),
            f"{delay.get('count', 0)}",
            *(f"{cores[name]:.2f}" if name in cores else "–" for name in ("server", "model")),
            f"{sum(memory.values()):.0f}" if memory else "–",
        ]
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f'<table class="numbers">{"".join(lines)}</table>'


def _setup(provenance: dict[str, Any]) -> str:
    """What it was measured with and on, one line a value."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in _named(provenance)
    )
    return f'<h2>Set-up</h2>\n<table class="setup">{rows}</table>'


def _named(values: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    named = []
    for key, value in values.items():
        name = f"{before}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            named += _named(value, f"{name}: ")
        elif value is not None and value != []:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            named.append((name, shown))
    return named


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )
