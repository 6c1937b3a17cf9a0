"""Training curves: collected while training, saved as JSON and as a picture."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm


class Progress:
    """A progress bar over training seconds."""

    def __init__(self, budget_s: float, initial_s: float) -> None:
        self._bar: tqdm[Any] = tqdm(
            total=round(budget_s), initial=round(initial_s), unit="s", mininterval=2.0
        )

    def update_to(self, elapsed_s: float, **values: float) -> None:
        """Moves the bar to `elapsed_s` and shows the values."""
        self._bar.update(max(0, round(elapsed_s) - self._bar.n))
        shown = {k: (v if isinstance(v, int) else f"{v:.4f}") for k, v in list(values.items())[:5]}
        self._bar.set_postfix(shown, refresh=False)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.write(text)


class Curves:
    """Named series per phase ("train", "held_out"); train values are averaged over 25 steps to stay small."""

    def __init__(self, path: Path, title: str) -> None:
        self._path, self._title = path, title
        self._series: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
        self._pending: dict[str, list[float | Tensor]] = defaultdict(list)
        if path.exists():
            for phase, series in json.loads(path.read_text()).items():
                for name, points in series.items():
                    self._series[phase][name] = points

    def progress(self, budget_s: float, initial: float) -> Progress:
        """A progress bar for this run."""
        return Progress(budget_s, initial)

    def add(self, phase: str, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Records the values of one step. Tensors are read when 25 are there, so that no step waits for a GPU."""
        for name, value in values.items():
            if phase != "train":
                self._series[phase][name].append([step, float(value)])
                continue
            self._pending[name].append(value)
            if len(self._pending[name]) == 25:
                self._series[phase][name].append([step, float(sum(self._pending[name])) / 25])
                self._pending[name].clear()

    def save(self) -> None:
        """Writes curves.json and, if matplotlib is there, curves.png beside it."""
        self._path.write_text(json.dumps(self._series))
        try:
            import matplotlib
        except ImportError:
            return
        matplotlib.use("Agg")
        from matplotlib import pyplot

        names = sorted({name for series in self._series.values() for name in series})
        if not names:
            return
        columns = min(4, len(names))
        rows = -(-len(names) // columns)
        figure, axes = pyplot.subplots(rows, columns, figsize=(3.6 * columns, 2.6 * rows), squeeze=False)
        for axis, name in zip(axes.flat, names, strict=False):
            for phase, series in self._series.items():
                if series.get(name):
                    axis.plot(*zip(*series[name], strict=True), label=phase)
            axis.set_title(name, fontsize=9)
            axis.set_yscale(
                "log" if all(y > 0 for s in self._series.values() for _, y in s.get(name, [])) else "linear"
            )
        axes.flat[0].legend(fontsize=7)
        figure.suptitle(self._title)
        figure.tight_layout()
        figure.savefig(self._path.with_suffix(".png"), dpi=80)
        pyplot.close(figure)
