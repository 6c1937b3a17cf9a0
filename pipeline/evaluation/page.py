"""The report's page, from what lies in its folder: the table of an evaluation, its pictures, and the studies."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STUDIES = "studies"

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Talkalong: evaluation of {model}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; background: #18181b; color: #f4f4f5; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #3f3f46; }}
td.target {{ color: #6ee7b7; }} td.v0 {{ color: #fde68a; }} td.missed {{ color: #fca5a5; }}
img {{ max-width: 100%; display: block; margin: .5rem 0 2rem; }}
.wide {{ overflow-x: auto; }} .wide img {{ max-width: none; }}
pre {{ color: #a1a1aa; white-space: pre-wrap; }}
a {{ color: #93c5fd; }}
</style>
<h1>Evaluation of {model}</h1>
{body}
</html>
"""


def write_page(folder: Path) -> Path:
    """Writes index.html into a report's folder, which holds report.json, studies, or both."""
    report = _read(folder / "report.json")
    studies = [_read(path) for path in sorted((folder / STUDIES).glob("*.json"))]
    studies = [study for study in studies if "rows" in study]  # beside them lies the lip reading
    parts, model = [], "a model"
    if studies:
        model = str(studies[0]["provenance"]["model"])
        links = ", ".join(
            f'<a href="#{study["name"]}">{html.escape(study["title"])}</a>' for study in studies
        )
        parts.append(f"<p>Studies: {links}</p>")
    if report:
        model = str(report["provenance"]["model"])
        parts += [
            _table(report["table"]["header"], report["table"]["lines"], graded=True),
            _notes(report["notes"]),
            "<h2>Curves</h2>",
            _pictures(report["curves"]),
        ]
    parts += [_study(study) for study in studies]
    if report:
        parts += [
            "<h2>Pictures</h2>",
            "<p>Frames at full size, with mouth and eyes close up. Each row begins with the portrait itself.</p>",
            _pictures(report["pictures"], kind="wide"),
            "<h2>Provenance</h2>",
            f"<pre>{html.escape(json.dumps(report['provenance'], indent=1))}</pre>",
        ]
    page = folder / "index.html"
    page.write_text(_PAGE.format(model=html.escape(model), body="\n".join(parts)), encoding="utf-8")
    return page


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _study(study: dict[str, Any]) -> str:
    from pipeline.evaluation.studies.result import table

    header, lines = table(study["rows"])
    pictures = [[f"{STUDIES}/{name}", caption] for name, caption in study["pictures"].items()]
    provenance = html.escape(json.dumps(study["provenance"], indent=1))
    return (
        f'<h2 id="{study["name"]}">{html.escape(study["title"])}</h2>{_notes(study["notes"])}{_pictures(pictures)}'
        f"<details><summary>Figures</summary>{_table(header, lines)}<pre>{provenance}</pre></details>"
    )


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], *, graded: bool = False) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{line[-1] if graded else ""}">{html.escape(cell)}</td>' for cell in line)
        + "</tr>"
        for line in lines
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _notes(notes: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>" if notes else ""


def _pictures(pictures: Sequence[Sequence[str]], *, kind: str = "") -> str:
    return "".join(
        f'<h3>{html.escape(caption)}</h3><div class="{kind}">'
        f'<img loading="lazy" src="{html.escape(name)}" alt="{html.escape(caption)}"></div>'
        for name, caption in pictures
    )
