"""A run as one HTML file that needs nothing else: figures, histograms, the delays over the run, one answer closely."""

from __future__ import annotations

import html
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from client.latency.report import ROWS, budget

Array = npt.NDArray[np.float64]

WIDTH, HEIGHT, MARGIN = 720, 180, 44
STYLE = """
:root{color-scheme:light dark;--ink:#1d2326;--soft:#69757a;--line:#d8dddf;--bar:#0f766e;--other:#b45309;--ground:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecee;--soft:#9aa6ab;--line:#3a4347;--bar:#2dd4bf;--other:#fbbf24;
--ground:#14191b}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:46rem;margin:2rem auto;
padding:0 1rem}h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2.2rem}
p{margin:.4rem 0}.soft,figcaption{color:var(--soft)}figure{margin:0}svg{width:100%;height:auto;overflow:visible}
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}table{border-collapse:collapse;width:100%}
td,th{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right}td:first-child,th:first-child{
text-align:left}.bad{color:#b91c1c;font-weight:600}pre{overflow:auto;font-size:.8rem;border:1px solid var(--line);
padding:.8rem}.axis{stroke:var(--line)}.bar{fill:var(--bar)}.mark{stroke:var(--other);stroke-width:2}
.curve{fill:none;stroke:var(--bar);stroke-width:2}.sound{fill:var(--other);opacity:.35}
"""


def page(report: dict[str, Any]) -> str:
    """The HTML of a report made by `report.build`."""
    figures, single = report["figures"], report["single"]
    spoken = _array(single["spoken_s"])
    seen, heard = _array(single["seen_s"]), _array(single["heard_s"])
    url = html.escape(str(report["settings"].get("server", "")))
    said = html.escape(report["verdict"])
    floor = budget(report)
    set_up = json.dumps({key: report[key] for key in ("settings", "machine", "server")}, indent=1)
    parts = [
        f"<h1>Mouth to photon: {_headline(figures)}</h1>",
        f'<p class="soft">{url}, {html.escape(report["created"])}</p>',
        f'<p class="{"" if report["valid"] else "bad"}">{said}</p>',
        _table(figures),
        f"<p>{html.escape(floor)}.</p>" if floor else "",
        _figure("From the sound at the microphone to the lips", _histogram(1_000 * (seen - spoken))),
        _figure("The picture after its sound (negative: ahead)", _histogram(1_000 * (seen - heard))),
        _figure("Every sound of the run: when it was said, and how long its lips took", _run(spoken, seen)),
        _figure("One sound closely: voice, and how far the mouth is open", _closely(single)),
        _figure("The time between two pictures", _histogram(1_000 * np.diff(_array(single["frame_s"])))),
        "<h2>Set-up</h2>",
        f"<pre>{html.escape(set_up)}</pre>",
    ]
    title = f"Latency of {url}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _headline(figures: dict[str, Any]) -> str:
    spread = figures["steady"]["mouth_to_photon_ms"]
    return "not measured" if spread is None else f"{spread['p50']:.0f} ms"


def _table(figures: dict[str, Any]) -> str:
    rows = ["<tr><th>ms<th>p50<th>95 % interval<th>p95<th>p99<th>count</tr>"]
    for part, title in (("steady", ""), ("start_up", ", first 3 s")):
        for key, name in ROWS.items():
            spread = figures[part][key]
            if spread is not None:
                rows.append(
                    f"<tr><td>{name}{title}<td>{spread['p50']:.0f}<td>{spread['p50_low']:.0f} to "
                    f"{spread['p50_high']:.0f}<td>{spread['p95']:.0f}<td>{spread['p99']:.0f}<td>{spread['count']}</tr>"
                )
    simple = {
        "first picture after the offer, ms": figures["start_up"]["first_frame_ms"],
        "pictures a second": figures["fps"],
        "sounds said, seen, heard": f"{figures['sounds']}, {figures['seen']}, {figures['heard']}",
        "openings without a sound": figures["false_openings"],
        "freezes, longest gap in ms": f"{figures['freezes']['count']}, {figures['freezes']['longest_ms']:.0f}",
        "drift, ms a minute": figures["drift_ms_per_minute"],
    }
    rows += [f'<tr><td>{name}<td colspan="5">{value}</tr>' for name, value in simple.items()]
    return f"<table>{''.join(rows)}</table>"


def _figure(caption: str, drawing: str) -> str:
    return f"<h2>{caption}</h2><figure>{drawing}</figure>" if drawing else ""


def _histogram(values: Array) -> str:
    """Counts in bins of 5 ms or more; the median is marked."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return ""
    low, high = float(values.min()), float(values.max())
    step = max(5.0, 5 * np.ceil((high - low) / 200))
    edges = np.arange(np.floor(low / step) * step, high + step, step)
    counts, edges = np.histogram(values, edges)
    x, y = _scale(edges[0], edges[-1], 0, WIDTH), _scale(0, counts.max(), HEIGHT, 0)
    bars = [
        f'<rect class="bar" x="{x(left):.1f}" y="{y(count):.1f}" width="{max(x(right) - x(left) - 1, 1):.1f}" '
        f'height="{HEIGHT - y(count):.1f}"><title>{left:.0f} to {right:.0f} ms: {count}</title></rect>'
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    middle = float(np.median(values))
    mark = f'<line class="mark" x1="{x(middle):.1f}" x2="{x(middle):.1f}" y1="0" y2="{HEIGHT}"/>'
    return _drawing("".join(bars) + mark, _ticks(edges[0], edges[-1], x, "ms"))


def _run(spoken: Array, seen: Array) -> str:
    delays = 1_000 * (seen - spoken)
    good = np.isfinite(delays)
    if good.sum() < 2:
        return ""
    x = _scale(0, spoken.max(), 0, WIDTH)
    top = float(delays[good].max()) * 1.1
    y = _scale(0, top, HEIGHT, 0)
    dots = [
        f'<circle class="bar" cx="{x(at):.1f}" cy="{y(delay):.1f}" r="3"><title>{delay:.0f} ms</title></circle>'
        for at, delay in zip(spoken[good], delays[good], strict=True)
    ]
    lost = [
        f'<text x="{x(at):.1f}" y="{HEIGHT}" text-anchor="middle">&#215;<title>missed</title></text>'
        for at in spoken[~good]
    ]
    scale = "".join(
        f'<text x="-6" y="{y(value):.1f}" text-anchor="end">{value:.0f}</text>'
        for value in _round_steps(0, top)
    )
    return _drawing("".join(dots + lost) + scale, _ticks(0, float(spoken.max()), x, "s"))


def _closely(single: dict[str, Any]) -> str:
    """The answer whose delay is the median: the sound, the opening frame by frame, the moment that counted."""
    spoken, seen = _array(single["spoken_s"]), _array(single["seen_s"])
    good = np.flatnonzero(np.isfinite(seen))
    if not len(good):
        return ""
    delays = (seen - spoken)[good]
    chosen = good[np.argsort(delays)[len(good) // 2]]
    start, end = spoken[chosen] - 0.1, seen[chosen] + 0.5
    frame_s, opening = _array(single["frame_s"]), np.array(single["opening"])
    shown = (frame_s >= start) & (frame_s <= end)
    if shown.sum() < 2:
        return ""
    x, y = _scale(0, 1_000 * (end - start), 0, WIDTH), _scale(-0.2, 1.3, HEIGHT, 0)
    at = 1_000 * (frame_s[shown] - start)
    path = f"M{x(at[0]):.1f},{y(opening[shown][0]):.1f}" + "".join(
        f"H{x(time):.1f}V{y(value):.1f}" for time, value in zip(at[1:], opening[shown][1:], strict=True)
    )
    said, counted = x(1_000 * (spoken[chosen] - start)), x(1_000 * (seen[chosen] - start))
    drawing = (
        f'<rect class="sound" x="{said:.1f}" y="0" width="{x(200):.1f}" height="{HEIGHT}">'
        "<title>the sound</title></rect>"
        f'<path class="curve" d="{path}"/>'
        f'<line class="mark" x1="{counted:.1f}" x2="{counted:.1f}" y1="0" y2="{HEIGHT}"/>'
        f'<text x="{counted + 5:.1f}" y="12">{1_000 * (seen[chosen] - spoken[chosen]):.0f} ms after the sound</text>'
    )
    return _drawing(drawing, _ticks(0, 1_000 * (end - start), x, "ms"))


def _drawing(content: str, ticks: str) -> str:
    box = f"{-MARGIN} -10 {WIDTH + 2 * MARGIN} {HEIGHT + 40}"
    axis = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
    return f'<svg viewBox="{box}" role="img">{content}{axis}{ticks}</svg>'


def _ticks(low: float, high: float, x: Any, unit: str) -> str:
    return "".join(
        f'<text x="{x(value):.1f}" y="{HEIGHT + 18}" text-anchor="middle">{value:g} {unit}</text>'
        for value in _round_steps(low, high)
    )


def _round_steps(low: float, high: float) -> list[float]:
    """About six round numbers between the two."""
    rough = max(high - low, 1e-9) / 6
    power = 10 ** np.floor(np.log10(rough))
    step = float(next(m * power for m in (1, 2, 5, 10) if m * power >= rough))
    return [
        round(float(value), 6) for value in np.arange(np.ceil(low / step) * step, high + step / 1e6, step)
    ]


def _scale(low: float, high: float, start: float, end: float) -> Any:
    span = max(float(high) - float(low), 1e-9)
    return lambda value: start + (float(value) - float(low)) / span * (end - start)


def _array(values: list[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values], float)
