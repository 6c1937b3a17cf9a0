"""The schedule ends without noise and follows the straight path exactly when the prediction is exact."""

import itertools

import pytest
import torch

from pipeline.scheduler import FlowMatchScheduler


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_sigmas_fall_from_one_to_zero(steps: int, shift: float) -> None:
    sigmas = FlowMatchScheduler(shift=shift).sigmas(steps)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(sigmas))


def test_an_exact_prediction_stays_on_the_path() -> None:
    scheduler = FlowMatchScheduler()
    x0, noise = torch.randn(3, 4), torch.randn(3, 4)
    x, sigmas = noise, scheduler.sigmas(4)
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x = scheduler.step(x0, sigma, sigma_next, x)
        torch.testing.assert_close(x, scheduler.add_noise(x0, noise, torch.tensor(sigma_next)))
    torch.testing.assert_close(x, x0)


def test_its_numbers_are_kept_when_saved(tmp_path: object) -> None:
    FlowMatchScheduler(num_inference_steps=3, shift=2.0).save_pretrained(str(tmp_path))
    loaded = FlowMatchScheduler.from_pretrained(str(tmp_path))
    assert loaded.sigmas() == FlowMatchScheduler(shift=2.0).sigmas(3)


def test_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        FlowMatchScheduler(num_inference_steps=0)
    with pytest.raises(ValueError, match="at least one step"):
        FlowMatchScheduler().sigmas(0)
