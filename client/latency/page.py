"""A report as one HTML file that needs nothing else: pictures are inline SVG."""

from __future__ import annotations

import html
import json
from typing import Any

import numpy as np

from client.latency import report as reports
from client.latency.measurement import MEAN_PHASE_MS

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 190, 46, 32
BUDGET_PARTS = ("hop_ms", "right_context_ms", "step_allowance_ms", "margin_ms", "floor_ms")
STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #68758a; --line: #d5dbe4; --bar: #3b78c4; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ef; --soft: #97a3b5; --line: #3a4452; --bar: #6ea5ea; --paper: #14181e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 720px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.45; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.bar { fill: var(--bar); } .axis { stroke: var(--line); } .mark { stroke: var(--ink); stroke-dasharray: 3 3; }
.dot { fill: var(--bar); fill-opacity: .6; } .curve { fill: none; stroke: var(--bar); stroke-width: 2; }
.problem { border-left: 4px solid #c4473b; padding-left: .7rem; }
"""


def render(report: dict[str, Any]) -> str:
    figures = report["figures"]
    samples = figures["samples"]
    photon = [(at, value) for at, value in zip(samples["onset_s"], samples["mouth_to_photon_ms"], strict=True)
              if value is not None]  # fmt: skip
    ear = [value for value in samples["mouth_to_ear_ms"] if value is not None]
    parts = [f'<p class="problem">{html.escape(problem)}</p>' for problem in figures["problems"]]
    parts.append(f"<pre>{html.escape(reports.table(report))}</pre>")
    parts += ["<h2>Mouth to photon</h2>", histogram([value for _, value in photon], "ms")]
    parts += ["<h2>Mouth to ear</h2>", histogram(ear, "ms")]
    pairs = zip(samples["mouth_to_photon_ms"], samples["mouth_to_ear_ms"], strict=True)
    after = [seen + MEAN_PHASE_MS - heard for seen, heard in pairs if seen is not None and heard is not None]
    parts += ["<h2>Picture after sound</h2>", histogram(after, "ms")]
    parts += ["<h2>Over the run</h2>", scatter(photon, "s into the run", "ms from mouth to photon")]
    if "one_chunk_ms" in figures.get("way", {}):
        parts += ["<h2>The way of one chunk, a typical one</h2>", timeline(figures["way"])]
    if report["budget"]:
        parts += ["<h2>The server's budget beside what was measured</h2>", _budget(report)]
    provenance = json.dumps(report["provenance"], indent=1, ensure_ascii=False)
    parts += ["<h2>Set-up</h2>", f"<pre>{html.escape(provenance)}</pre>"]
    return _document("Latency", "\n".join(parts))


def render_sweep(rows: list[tuple[float, dict[str, Any]]]) -> str:
    """Delay over loss, p50 and p95."""
    parts = []
    for key in ("p50", "p95"):
        points = [
            (100 * loss, result["figures"]["mouth_to_photon_ms"]["steady"][key])
            for loss, result in rows
            if key in result["figures"]["mouth_to_photon_ms"]["steady"]
        ]
        parts += [f"<h2>Mouth to photon, {key}</h2>", scatter(points, "% lost, each way", "ms", joined=True)]
    return _document("Latency over loss", "\n".join(parts))


def render_load(result: dict[str, Any]) -> str:
    """Missed deadlines, delay, CPU and memory over the number of sessions."""
    levels = result["levels"]
    curves: list[tuple[str, str, list[tuple[float, float]]]] = [
        ("Missed deadlines", "%", [(level["sessions"], 100 * level["miss_ratio"]) for level in levels]),
        *(
            (f"Mouth to photon, {key}", "ms", [
                (level["sessions"], level["mouth_to_photon_ms"][key])
                for level in levels if key in level["mouth_to_photon_ms"]
            ])
            for key in ("p50", "p95")
        ),
        *(
            (f"CPU of the {name}", "cores", [
                (level["sessions"], level["cpu_cores"][name]) for level in levels if name in level["cpu_cores"]
            ])
            for name in ("server", "model")
        ),
        ("Memory", "MB", [(level["sessions"], sum(level["memory_mb"].values())) for level in levels]),
    ]  # fmt: skip
    parts = [f"<p>{html.escape(result['stopped_by'])}</p>"] if result["stopped_by"] else []
    parts.append(f"<p>Sessions with less than 1 % missed: <b>{result['carried']}</b></p>")
    for title, unit, points in curves:
        parts += [f"<h2>{title}</h2>", scatter(points, "sessions", unit, joined=True)]
    provenance = json.dumps(result["provenance"], indent=1, ensure_ascii=False)
    parts += ["<h2>Set-up</h2>", f"<pre>{html.escape(provenance)}</pre>"]
    return _document("Load", "\n".join(parts))


def histogram(values: list[float], unit: str) -> str:
    """Counts in at most 40 bins, of 2 ms or a rounder number."""
    if not values:
        return "<p>No values.</p>"
    width = _round_step(max(max(values) - min(values), 40.0), 40)
    edges = width * np.arange(np.floor(min(values) / width), np.floor(max(values) / width) + 2)
    counts, _ = np.histogram(values, edges)
    across = _scale(float(edges[0]), float(edges[-1]), LEFT, WIDTH - 10)
    up = _scale(0, float(counts.max()), HEIGHT - BOTTOM, 12)
    shapes = [
        f'<rect class="bar" x="{across(low):.1f}" y="{up(count):.1f}" '
        f'width="{max(across(high) - across(low) - 1, 1):.1f}" height="{up(0) - up(count):.1f}"/>'
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
        if count
    ]
    for percentile in (50, 95):
        x = across(float(np.percentile(values, percentile)))
        shapes.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="12" y2="{HEIGHT - BOTTOM}"/>')
        shapes.append(f'<text x="{x + 3:.1f}" y="11">p{percentile}</text>')
    return _figure([*shapes, *_axes(edges[0], edges[-1], 0, counts.max(), unit, "count")])


def scatter(points: list[tuple[float, float]], unit_x: str, unit_y: str, *, joined: bool = False) -> str:
    if not points:
        return "<p>No values.</p>"
    xs, ys = zip(*points, strict=True)
    low, high = min(ys) - 5, max(ys) + 5
    across, up = _scale(min(xs), max(xs), LEFT, WIDTH - 10), _scale(low, high, HEIGHT - BOTTOM, 12)
    shapes = [f'<circle class="dot" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"/>' for x, y in points]
    if joined:
        way = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        shapes.append(f'<polyline class="curve" points="{way}"/>')
    return _figure([*shapes, *_axes(min(xs), max(xs), low, high, unit_x, unit_y)])


def timeline(way: dict[str, Any]) -> str:
    """One bar a span, each beginning where the one before ends, then the lips' own response."""
    rows = list(way["one_chunk_ms"].items())
    if "lip_response_ms" in way:
        rows.append(("the lips themselves", way["lip_response_ms"]))
    across = _scale(0, sum(value for _, value in rows), 130, WIDTH - 60)
    shapes, begun = [], 0.0
    for number, (name, value) in enumerate(rows):
        y = 6 + 17 * number
        first, last = sorted((across(begun), across(begun + value)))
        shapes.append(f'<text x="4" y="{y + 10}">{html.escape(name.replace("_", " "))}</text>')
        shapes.append(
            f'<rect class="bar" x="{first:.1f}" y="{y}" width="{max(last - first, 1):.1f}" height="12"/>'
        )
        shapes.append(f'<text x="{last + 4:.1f}" y="{y + 10}">{value:.1f} ms</text>')
        begun += value
    return _figure(shapes, height=17 * len(rows) + 10)


def _budget(report: dict[str, Any]) -> str:
    """Bars of the parts that add up, and of the measured median."""
    budget = report["budget"]
    parts = [(name, budget[name]) for name in BUDGET_PARTS if name in budget]
    measured = report["figures"]["mouth_to_photon_ms"]["steady"].get("p50", 0.0)
    across = _scale(0, max(sum(value for _, value in parts), measured, 1.0), 170, WIDTH - 60)
    shapes, begun = [], 0.0
    for row, (name, value) in enumerate([*parts, ("measured p50", measured)]):
        start = 0.0 if name == "measured p50" else begun
        y = 8 + 24 * row
        shapes.append(
            f'<text x="4" y="{y + 13}">{html.escape(name.removesuffix("_ms").replace("_", " "))}</text>'
        )
        width = across(start + value) - across(start)
        shapes.append(f'<rect class="bar" x="{across(start):.1f}" y="{y}" width="{width:.1f}" height="17"/>')
        shapes.append(f'<text x="{across(start + value) + 4:.1f}" y="{y + 13}">{value:.0f} ms</text>')
        begun += value
    return _figure(shapes, height=24 * (len(parts) + 1) + 12)


def _scale(low: float, high: float, first: float, last: float) -> Any:
    span = (high - low) or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _round_step(span: float, most: int) -> float:
    """The smallest 1, 2 or 5 times a power of ten that cuts the span into no more than `most`."""
    power = 10.0 ** np.floor(np.log10(span / most))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999 * span / most))


def _round_values(low: float, high: float, most: int) -> list[float]:
    step = _round_step((high - low) or 1.0, most)
    numbers = np.arange(np.ceil(low / step), np.floor(high / step + 1e-9) + 1)
    return [float(value) + 0.0 for value in step * numbers]  # + 0.0: no "-0"


def _axes(x_low: float, x_high: float, y_low: float, y_high: float, unit_x: str, unit_y: str) -> list[str]:
    base = HEIGHT - BOTTOM
    across, up = _scale(x_low, x_high, LEFT, WIDTH - 10), _scale(y_low, y_high, base, 12)
    shapes = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 10}" y1="{base}" y2="{base}"/>']
    for value in _round_values(x_low, x_high, 6):
        shapes.append(
            f'<text text-anchor="middle" x="{across(value):.1f}" y="{base + 14}">{value:.4g}</text>'
        )
    for value in _round_values(y_low, y_high, 4):
        shapes.append(f'<text text-anchor="end" x="{LEFT - 5}" y="{up(value) + 4:.1f}">{value:.4g}</text>')
    shapes.append(f'<text text-anchor="end" x="{WIDTH - 10}" y="{HEIGHT - 2}">{html.escape(unit_x)}</text>')
    shapes.append(f'<text x="{LEFT + 4}" y="22">{html.escape(unit_y)}</text>')
    return shapes


def _figure(shapes: list[str], *, height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(shapes)}</svg>'


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )
