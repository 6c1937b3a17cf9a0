"""One study's outcome: figures as JSON, curves as PNG, and a sentence that says what they show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Study:
    """`rows` are the points of the curves, in order; `pictures` are file names beside the JSON, with captions."""

    name: str
    title: str
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path, provenance: Mapping[str, Any]) -> Path:
        path = folder / f"{self.name}.json"
        report = {
            "name": self.name,
            "title": self.title,
            "notes": list(self.notes),
            "pictures": dict(self.pictures),
            "provenance": provenance,
            "rows": [_rounded(row) for row in self.rows],
        }
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return path


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells as text, for a page and a terminal."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    return header, [[_cell(row.get(key)) for key in header] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
