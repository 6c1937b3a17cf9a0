"""What a check found out, as one line for a person."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

OK, WARNING, PROBLEM = "ok", "warning", "problem"
SIGNS = {OK: "✓", WARNING: "!", PROBLEM: "✗"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """check: its name; mark: ok, warning (it works, with a catch) or problem; says and remedy: sentences."""

    check: str
    mark: str
    says: str
    remedy: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """sign, mark, check, sentence, remedy."""
        remedy = f" → {self.remedy}" if self.remedy else ""
        return f"{SIGNS[self.mark]} {self.mark:<8}{self.check:<14}{self.says}{remedy}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def ok(check: str, says: str, **figures: Any) -> Finding:
    return Finding(check=check, mark=OK, says=says, figures=figures)


def warning(check: str, says: str, remedy: str, **figures: Any) -> Finding:
    return Finding(check=check, mark=WARNING, says=says, remedy=remedy, figures=figures)


def problem(check: str, says: str, remedy: str, **figures: Any) -> Finding:
    return Finding(check=check, mark=PROBLEM, says=says, remedy=remedy, figures=figures)
