"""Few-step flow matching on the straight path x = (1 - sigma) * x0 + sigma * noise.

The denoiser predicts x0, so one Euler step is a blend of that prediction and the present sample, and the
last step returns the prediction itself: no noise is left over even with one or two steps.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin


class FlowMatchScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Noise levels and the step between two of them; keeps no state, so sessions can share it.

    num_inference_steps: steps taken when the caller names no number.
    shift: > 1 spends more of the steps at high noise (sigma -> shift * sigma / (1 + (shift - 1) * sigma)).
    """

    order = 1

    @register_to_config
    def __init__(self, num_inference_steps: int = 2, shift: float = 1.0) -> None:
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}; at least one step is needed.")
        if shift <= 0:
            raise ValueError(f"shift is {shift}; it must be positive.")
        self.num_inference_steps = num_inference_steps
        self.shift = shift

    def sigmas(self, num_inference_steps: int | None = None) -> tuple[float, ...]:
        """Noise levels from 1 to 0, one more than there are steps."""
        steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        if steps < 1:
            raise ValueError(f"num_inference_steps is {steps}; at least one step is needed.")
        linear = [1.0 - i / steps for i in range(steps + 1)]
        return tuple(self.shift * s / (1.0 + (self.shift - 1.0) * s) for s in linear)

    def add_noise(self, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The point on the path at `sigma` (broadcastable to x0)."""
        return (1.0 - sigma) * x0 + sigma * noise

    def step(self, x0: torch.Tensor, sigma: float, sigma_next: float, sample: torch.Tensor) -> torch.Tensor:
        """Euler step of `sample` from `sigma` to `sigma_next`, given the predicted x0."""
        ratio = sigma_next / sigma
        return x0 + ratio * (sample - x0)
