"""The table: measures as rows, the model and its baselines as columns, with what must be reached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COLUMNS = ("model", "rig", "loudness", "frozen", "real")
NO_VALUE = "–"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A range that a value must lie in, ends included."""

    low: float = -math.inf
    high: float = math.inf
    text: str = ""

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.text:
            return self.text
        if math.isinf(self.low):
            return f"≤ {self.high:g}"
        if math.isinf(self.high):
            return f"≥ {self.low:g}"
        return f"{self.low:g} to {self.high:g}"


def at_least(value: float, text: str = "") -> Bound:
    return Bound(low=value, text=text)


def at_most(value: float, text: str = "") -> Bound:
    return Bound(high=value, text=text)


def between(low: float, high: float, text: str = "") -> Bound:
    return Bound(low=low, high=high, text=text)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure. `values` by column; a column that is missing was not measured, and `note` may say why."""

    key: str
    label: str
    values: Mapping[str, float]
    v0: Bound | None = None
    target: Bound | None = None
    digits: int = 2
    note: str = ""

    def text(self, column: str) -> str:
        """The value as it is printed; small numbers as powers of ten."""
        if column not in self.values or not math.isfinite(self.values[column]):
            return NO_VALUE
        value = self.values[column]
        if value != 0 and abs(value) < 10**-self.digits / 2 and self.digits > 2:
            return f"{value:.0e}"
        return f"{value:.{self.digits}f}"

    def mark(self) -> str:
        """What the model reaches: "target", "v0", "missed", or empty if nothing is demanded or measured."""
        value = self.values.get("model", math.nan)
        if (self.v0 is None and self.target is None) or not math.isfinite(value):
            return ""
        if self.target is not None and self.target.holds(value):
            return "target"
        if self.v0 is not None and self.v0.holds(value):
            return "v0"
        return "missed"

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "label": self.label,
            "values": {
                name: (value if math.isfinite(value) else None) for name, value in self.values.items()
            },
            "v0": str(self.v0) if self.v0 else None,
            "target": str(self.target) if self.target else None,
            "reached": self.mark() or None,
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True)
class Table:
    """All rows of one evaluation."""

    rows: Sequence[Row]
    columns: Sequence[str] = field(default=COLUMNS)

    def missed(self) -> list[Row]:
        """Rows in which the model does not reach v0."""
        return [row for row in self.rows if row.mark() == "missed" and row.v0 is not None]

    def _used_columns(self) -> list[str]:
        return [column for column in self.columns if any(row.text(column) != NO_VALUE for row in self.rows)]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and lines of the table as text."""
        columns = self._used_columns()
        header = ["measure", *columns, "v0", "target", "reached"]
        lines = [
            [
                row.label,
                *(row.text(column) for column in columns),
                str(row.v0 or ""),
                str(row.target or ""),
                row.mark(),
            ]
            for row in self.rows
        ]
        return header, lines

    def to_text(self) -> str:
        """For a terminal, in aligned columns."""
        header, lines = self.cells()
        widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 or i >= len(header) - 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (header, ["-" * width for width in widths], *lines)
        )

    def to_markdown(self) -> str:
        """For MODEL_CARD.md."""
        header, lines = self.cells()
        rule = ["---", *("---:" for _ in header[1:-3]), "---", "---", "---"]
        return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines)) + "\n"
