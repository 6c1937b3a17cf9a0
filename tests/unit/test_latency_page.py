"""Charts that can be read: no label on another or over the edge, bars as long as what they stand for."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest

from client.latency import charts, page
from client.latency.spans import SPANS

LETTER = 6.2  # of an 11 px label, about
TALL = 9.0

WAY = {
    "one_chunk_ms": {
        name: 120.0 if name == "window_wait" else 0.4 * number for number, name in enumerate(SPANS)
    },
    "lip_response_ms": 34.9,
}


def labels(svg: str) -> list[tuple[str, float, float, float, float]]:
    """Text and box (left, top, right, bottom) of each label."""
    boxes = []
    for text in ElementTree.fromstring(svg).iter("text"):
        x, y, width = float(text.attrib["x"]), float(text.attrib["y"]), LETTER * len(text.text or "")
        left = x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")]
        boxes.append((text.text or "", left, y - TALL, left + width, y))
    return boxes


def require_readable(svg: str) -> None:
    drawn = ElementTree.fromstring(svg)
    height = float(drawn.attrib["viewBox"].split()[3])
    boxes = labels(svg)
    for number, (text, left, top, right, bottom) in enumerate(boxes):
        assert left >= 0, text
        assert right <= charts.WIDTH + 4, text
        assert 0 <= top < bottom <= height, text
        for other, left2, top2, right2, bottom2 in boxes[number + 1 :]:
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart, f"{text!r} and {other!r} lie on each other"


def bars(svg: str) -> list[tuple[float, float]]:
    return [
        (float(bar.attrib["x"]), float(bar.attrib["x"]) + float(bar.attrib["width"]))
        for bar in ElementTree.fromstring(svg).iter("rect")
    ]


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(200, 300, 50),
        np.full(30, 250.0),
        np.concatenate([np.full(60, 210.0), np.full(8, 400.0)]),  # p95 at the right edge
        np.concatenate([np.full(9, 1_210.0), [1_500.0]]),
        np.array([-30.0, -20.0, 5.0]),
    ],
)
def test_a_histogram_is_readable_and_counts_all(values: np.ndarray) -> None:
    svg = charts.histogram(values.tolist(), "ms")
    require_readable(svg)
    tall = [float(bar.attrib["height"]) for bar in ElementTree.fromstring(svg).iter("rect")]
    assert max(tall) == pytest.approx(charts.HEIGHT - charts.BOTTOM - charts.TOP)
    texts = [text for text, *_ in labels(svg)]
    assert f"p50 {np.percentile(values, 50):.0f}" in texts
    assert f"p95 {np.percentile(values, 95):.0f}" in texts


def test_each_span_begins_where_the_one_before_ends() -> None:
    svg = page.timeline(WAY)
    require_readable(svg)
    drawn = bars(svg)
    assert len(drawn) == len(SPANS) + 1
    ms = charts.WIDTH - charts.VALUES - charts.NAMES
    total = sum(WAY["one_chunk_ms"].values()) + WAY["lip_response_ms"]  # type: ignore[attr-defined, operator]
    for (_, end), (start, _) in pairwise(drawn):
        assert start == pytest.approx(end, abs=1.1), "a bar is a pixel wide at least"
    assert drawn[-1][1] == pytest.approx(charts.WIDTH - charts.VALUES, abs=0.2)
    widest = max(end - start for start, end in drawn)
    assert widest == pytest.approx(120 / total * ms, rel=0.01)
    assert [text for text, *_ in labels(svg)][::2] == [
        *(name.replace("_", " ") for name in SPANS), "the lips themselves",
    ]  # fmt: skip


def test_a_span_below_nothing_is_drawn_backwards() -> None:
    svg = charts.steps([("a", 10.0, "step"), ("b", -4.0, "step"), ("c", 5.0, "step")])
    require_readable(svg)
    (_, a_end), (b_start, b_end), (c_start, _) = bars(svg)
    assert b_end == pytest.approx(a_end, abs=0.2)
    assert c_start == pytest.approx(b_start, abs=0.2)


@pytest.mark.parametrize("count", [1, 2, 4, 12])
def test_curves_over_sessions_are_readable(count: int) -> None:
    points = [(number, 0.15 * number) for number in range(1, count + 1)]
    series = {"server": points, "model": [(x, 5 * y) for x, y in points]}
    svg = charts.curves(series, "sessions", "cores", whole_x=True)
    require_readable(svg)
    circles = [circle.attrib for circle in ElementTree.fromstring(svg).iter("circle")]
    assert len(circles) == 2 * count
    assert all(charts.TOP <= float(circle["cy"]) <= charts.HEIGHT - charts.BOTTOM for circle in circles)
    below = [text for text, _, top, *_ in labels(svg) if top > charts.HEIGHT - charts.BOTTOM]
    assert below[-1] == "sessions"
    assert all(text.isdigit() for text in below[:-1]), "there are no half sessions"
    assert len(below) > min(count, 4)


def test_a_limit_is_drawn_even_far_above_the_curve() -> None:
    svg = charts.curves({"missed": [(1, 0.0), (2, 0.1)]}, "sessions", "%", limit=1.0, whole_x=True)
    require_readable(svg)
    (mark,) = [line for line in ElementTree.fromstring(svg).iter("line") if line.get("class") == "mark"]
    assert charts.TOP < float(mark.attrib["y1"]) < charts.HEIGHT - charts.BOTTOM


def test_nothing_to_draw_is_said() -> None:
    assert charts.histogram([], "ms") == charts.scatter([], "s", "ms") == charts.NO_VALUES
    assert charts.curves({"p50": []}, "sessions", "ms") == charts.steps([]) == charts.NO_VALUES
