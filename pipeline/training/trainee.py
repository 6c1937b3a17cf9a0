"""A denoiser being trained: optimiser, averaged weights, time budget, and the file it resumes from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.denoiser import Denoiser

WARM_UP_STEPS = 100


class Trainee:
    """Trains for `budget_s` seconds in total over all resumed calls; the rate falls to almost 0 by then.

    `out/state.pt` holds what is needed to resume; `out` itself is a model folder of the averaged weights.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        out: Path,
        *,
        budget_s: float,
        learning_rate: float,
        weight_decay: float = 0.01,
        average_decay: float = 0.995,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.denoiser, self.budget_s = denoiser, budget_s
        self.step, spent_s = 0, 0.0
        self._out, self._file, self._rate = out, out / "state.pt", learning_rate
        self._average = AveragedModel(denoiser, multi_avg_fn=get_ema_multi_avg_fn(average_decay))
        self._optimiser = torch.optim.AdamW(
            denoiser.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay
        )
        if self._file.is_file():
            state = torch.load(self._file, map_location=denoiser.device, weights_only=True)
            denoiser.load_state_dict(state["denoiser"])
            self._average.load_state_dict(state["average"])
            if "optimiser" in state:  # absent when weights were carried over into a changed network
                self._optimiser.load_state_dict(state["optimiser"])
            self.step, spent_s = state["step"], state["spent_s"]
        self._started = time.monotonic() - spent_s

    @property
    def averaged(self) -> Denoiser:
        """The weights to use: a moving average over the last steps."""
        return cast(Denoiser, self._average.module)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def update(self, loss: torch.Tensor) -> None:
        """One optimiser step."""
        left = max(0.02, 1 - self.elapsed_s / self.budget_s)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * min(1.0, (self.step + 1) / WARM_UP_STEPS) * left
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self._optimiser.step()
        self._average.update_parameters(self.denoiser)
        self.step += 1

    def save(self) -> None:
        """Write the model folder and the file to resume from."""
        self.averaged.save_pretrained(self._out)
        fresh = self._file.with_suffix(".new")
        torch.save(
            {
                "denoiser": self.denoiser.state_dict(),
                "average": self._average.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "step": self.step,
                "spent_s": self.elapsed_s,
            },
            fresh,
        )
        fresh.replace(self._file)
