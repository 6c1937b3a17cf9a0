"""Charts as inline SVG: nothing to load, light and dark by the page's own colours."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

WIDTH, HEIGHT = 640, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 34
ROW = 21  # of bars with a name
NAMES, VALUES = 150, 76  # room beside them
LETTER = 6.2  # of the labels, about, in width
SERIES = ("first", "second")
NO_VALUES = "<p>No values.</p>"
STYLE = """
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.first { fill: var(--first); stroke: var(--first); } .second { fill: var(--second); stroke: var(--second); }
rect { stroke: none !important; }
.axis { stroke: var(--line); } .grid { stroke: var(--line); stroke-opacity: .55; }
.mark { stroke: var(--ink); stroke-dasharray: 3 3; } .dot { fill-opacity: .75; stroke: none; }
.curve { fill: none !important; stroke-width: 2; }
"""

Points = list[tuple[float, float]]


def histogram(values: list[float], unit: str) -> str:
    """Counts in at most 40 bins, of 2 ms or a rounder number; p50 and p95 are marked."""
    if not values:
        return NO_VALUES
    width = _round_step(max(max(values) - min(values), 40.0), 40)
    edges = width * np.arange(np.floor(min(values) / width), np.floor(max(values) / width) + 2)
    counts, _ = np.histogram(values, edges)
    across = _scale(float(edges[0]), float(edges[-1]), LEFT, WIDTH - RIGHT)
    up = _scale(0, float(counts.max()), HEIGHT - BOTTOM, TOP)
    shapes = _axes(edges[0], edges[-1], 0, float(counts.max()), unit, "sounds", whole_y=True)
    shapes += [
        f'<rect class="first" x="{across(low):.1f}" y="{up(count):.1f}" '
        f'width="{max(across(high) - across(low) - 1, 1):.1f}" height="{up(0) - up(count):.1f}"/>'
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
        if count
    ]
    for percentile in (50, 95):
        value = float(np.percentile(values, percentile))
        x = across(value)
        label = f"p{percentile} {value:.0f}"
        # In two lines, away from the edge: the labels never meet.
        left = x > (LEFT + WIDTH) / 2
        y = TOP - 4 if percentile == 50 else TOP - 17
        shapes.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8:.0f}" y2="{HEIGHT - BOTTOM}"/>'
        )
        shapes.append(
            f'<text x="{x + (-4 if left else 4):.1f}" y="{y:.0f}" '
            f'text-anchor="{"end" if left else "start"}">{label}</text>'
        )
    return _figure(shapes)


def scatter(points: Points, unit_x: str, unit_y: str) -> str:
    if not points:
        return NO_VALUES
    xs, ys = zip(*points, strict=True)
    low, high = min(ys) - 5, max(ys) + 5
    across, up = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT), _scale(low, high, HEIGHT - BOTTOM, TOP)
    shapes = _axes(min(xs), max(xs), low, high, unit_x, unit_y)
    shapes += [f'<circle class="first dot" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"/>' for x, y in points]
    return _figure(shapes)


def curves(
    series: dict[str, Points], unit_x: str, unit_y: str, *, limit: float | None = None, whole_x: bool = False
) -> str:
    """At most two curves from zero up, with a legend where there are two. limit: a line not to cross."""
    drawn = {name: points for name, points in series.items() if points}
    if not drawn:
        return NO_VALUES
    xs = [x for points in drawn.values() for x, _ in points]
    high = 1.08 * max([y for points in drawn.values() for _, y in points] + [limit or 0.0]) or 1.0
    low_x, high_x = (min(xs) - 0.25, max(xs) + 0.25) if whole_x else (min(xs), max(xs))
    across, up = _scale(low_x, high_x, LEFT, WIDTH - RIGHT), _scale(0, high, HEIGHT - BOTTOM, TOP)
    shapes = _axes(low_x, high_x, 0, high, unit_x, unit_y, whole_x=whole_x)
    if limit is not None:
        shapes.append(
            f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(limit):.1f}" y2="{up(limit):.1f}"/>'
        )
    at = WIDTH - RIGHT - sum(LETTER * len(name) + 34 for name in drawn)
    for (name, points), kind in zip(drawn.items(), SERIES, strict=False):
        way = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        shapes.append(f'<polyline class="{kind} curve" points="{way}"/>')
        shapes += [
            f'<circle class="{kind}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3.5"/>' for x, y in points
        ]
        if len(drawn) > 1:
            shapes.append(f'<rect class="{kind}" x="{at:.0f}" y="6" width="12" height="8"/>')
            shapes.append(f'<text x="{at + 17:.0f}" y="14">{html.escape(name)}</text>')
            at += LETTER * len(name) + 34
    return _figure(shapes)


def steps(rows: list[tuple[str, float, str]]) -> str:
    """One bar a row, (name, ms, kind): "step" begins where the row before ended, "whole" at zero."""
    if not rows:
        return NO_VALUES
    ends, begun = [], 0.0
    for _, value, kind in rows:
        start = begun if kind == "step" else 0.0
        ends.append((start, start + value))
        begun = start + value
    most = max(max(pair) for pair in ends)
    across = _scale(min(0.0, *(min(pair) for pair in ends)), most or 1.0, NAMES, WIDTH - VALUES)
    height = ROW * len(rows) + 8
    shapes = [f'<line class="axis" x1="{across(0):.1f}" x2="{across(0):.1f}" y1="2" y2="{height - 2}"/>']
    for number, ((name, value, kind), (start, end)) in enumerate(zip(rows, ends, strict=True)):
        y = 5 + ROW * number
        first, last = sorted((across(start), across(end)))
        look = "second" if kind == "whole" else "first"
        shapes.append(f'<text x="4" y="{y + 12}">{html.escape(name)}</text>')
        shapes.append(
            f'<rect class="{look}" x="{first:.1f}" y="{y}" width="{max(last - first, 1.0):.1f}" height="15"/>'
        )
        shapes.append(f'<text x="{last + 6:.1f}" y="{y + 12}">{value:.1f} ms</text>')
    return _figure(shapes, height=height)


def _scale(low: float, high: float, first: float, last: float) -> Any:
    span = (high - low) or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _round_step(span: float, most: int) -> float:
    """The smallest 1, 2 or 5 times a power of ten that cuts the span into no more than `most`."""
    power = 10.0 ** np.floor(np.log10(span / most))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999 * span / most))


def _round_values(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    step = _round_step((high - low) or 1.0, most)
    if whole:
        step = max(1.0, step)
    numbers = np.arange(np.ceil(low / step), np.floor(high / step + 1e-9) + 1)
    return [float(value) + 0.0 for value in step * numbers]  # + 0.0: no "-0"


def _axes(
    x_low: float, x_high: float, y_low: float, y_high: float, unit_x: str, unit_y: str,
    *, whole_x: bool = False, whole_y: bool = False,
) -> list[str]:  # fmt: skip
    base = HEIGHT - BOTTOM
    across, up = _scale(x_low, x_high, LEFT, WIDTH - RIGHT), _scale(y_low, y_high, base, TOP)
    shapes = []
    for value in _round_values(y_low, y_high, 4, whole=whole_y):
        y = up(value)
        shapes.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        shapes.append(f'<text text-anchor="end" x="{LEFT - 6}" y="{y + 4:.1f}">{value:.4g}</text>')
    for value in _round_values(x_low, x_high, 6, whole=whole_x):
        shapes.append(
            f'<text text-anchor="middle" x="{across(value):.1f}" y="{base + 15}">{value:.4g}</text>'
        )
    shapes.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    shapes.append(
        f'<text text-anchor="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}">{html.escape(unit_x)}</text>'
    )
    shapes.append(f'<text x="4" y="12">{html.escape(unit_y)}</text>')
    return shapes


def _figure(shapes: list[str], *, height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(shapes)}</svg>'
