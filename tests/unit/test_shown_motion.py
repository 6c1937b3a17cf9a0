"""What is shown has no borders between chunks and a head that stays where the portrait has it."""

import itertools

import torch

from pipeline.autoencoder import POSE_SIZE
from pipeline.shown_motion import HEAD_GAIN, LEAN, LIP_LEADS, LIPS, ShownMotion

LATENT = 8
FACE = LATENT - POSE_SIZE


def show(z_BTD: torch.Tensor, hop: int) -> torch.Tensor:
    shown, parts = ShownMotion.start(torch.zeros(1, LATENT)), []
    for first in range(0, z_BTD.shape[1], hop):
        part, shown = shown.then(z_BTD[:, first : first + hop], 2)
        parts.append(part)
    return torch.cat(parts, 1)


def test_a_chunk_leans_back_at_its_border_only() -> None:
    before = ShownMotion.start(torch.full((1, LATENT), 1.0))
    chunk = torch.full((1, 3, LATENT), 2.0)
    face = before.then(chunk, 2)[0][..., :FACE]
    torch.testing.assert_close(face[:, 0], torch.full((1, FACE), 2.0 - LEAN))
    assert torch.equal(face[:, 1:], chunk[:, 1:, :FACE])
    assert torch.equal(chunk, torch.full((1, 3, LATENT), 2.0))


def test_a_head_that_settles_aside_comes_back_and_still_nods() -> None:
    seconds = torch.arange(1500) / 25
    z = torch.zeros(1, 1500, LATENT)
    z[0, :, -1] = 6.0 + torch.sin(2 * torch.pi * 0.5 * seconds)
    late = show(z, 2)[0, 750:, -1]
    assert late.mean().abs() < 0.1
    assert 0.9 * HEAD_GAIN < late.std() / z[0, 750:, -1].std() < 1.1 * HEAD_GAIN


def test_a_head_nods_but_does_not_quiver() -> None:
    seconds = torch.arange(1500) / 25
    kept = []
    for hertz in (1.0, 11.0):
        z = torch.zeros(1, 1500, LATENT)
        z[0, :, -1] = torch.sin(2 * torch.pi * hertz * seconds)
        kept.append(float(show(z, 2)[0, 750:, -1].std() / z[0, 750:, -1].std() / HEAD_GAIN))
    assert kept[0] > 0.9
    assert kept[1] < 0.25


def test_the_value_given_stays_valid() -> None:
    start, chunk = ShownMotion.start(torch.zeros(1, LATENT)), torch.randn(1, 2, LATENT)
    once, _ = start.then(chunk, 2)
    again, _ = start.then(chunk, 2)
    assert torch.equal(once, again)


def test_a_steady_gaze_takes_the_drift_and_leaves_the_nods() -> None:
    """A head that wanders slowly and nods: what the slider does to either."""
    seconds = torch.arange(3000) / 25
    slow, nods = 3 * torch.sin(2 * torch.pi * 0.04 * seconds), torch.sin(2 * torch.pi * 1.5 * seconds)

    def spread(motion: torch.Tensor, gaze: float) -> float:
        z = torch.zeros(1, len(motion), LATENT)
        z[0, :, -1] = motion
        shown, parts = ShownMotion.start(torch.zeros(1, LATENT)), []
        for chunk in z.split(2, 1):
            part, shown = shown.then(chunk, 2, gaze)
            parts.append(part)
        return float(torch.cat(parts, 1)[0, 1500:, -1].std())

    drifts = [spread(slow, gaze) for gaze in (0.0, 0.5, 1.0, 1.5, 2.0)]
    assert all(more > 1.05 * less for more, less in itertools.pairwise(drifts))
    assert drifts[0] > 3 * drifts[-1]
    assert spread(nods, 2.0) > 0.85 * spread(nods, 0.0)


def test_the_middle_of_the_slider_is_the_motion_as_it_was() -> None:
    start, chunk = ShownMotion.start(torch.zeros(1, LATENT)), torch.randn(1, 4, LATENT)
    assert torch.equal(start.then(chunk, 2)[0], start.then(chunk, 2, 1.0)[0])
    face = start.then(chunk, 2, 2.0)[0][..., :FACE]
    assert torch.equal(face, start.then(chunk, 2, 0.0)[0][..., :FACE]), "the gaze moves the face's expression"


def test_lips_of_single_frames_run_ahead_and_come_to_rest_where_they_were_made() -> None:
    steps = torch.cat([torch.zeros(1, 3, LATENT), torch.ones(1, 4, LATENT)], 1)
    shown = show(steps, 1)
    assert torch.equal(shown[0, 3, LIPS], torch.full((3,), 1.0 + LIP_LEADS[2]))
    assert torch.equal(shown[0, 4:, LIPS], torch.ones(3, 3))
    assert list(LIP_LEADS) == sorted(LIP_LEADS, reverse=True), "the less is heard, the later the lips"


def test_lids_and_head_never_overshoot() -> None:
    still = torch.zeros(1, LATENT + LIPS.stop)
    blink = torch.ones(1, 1, LATENT + LIPS.stop)
    shown, _ = ShownMotion.start(still).then(blink, 0)
    assert shown[0, 0, LIPS.stop : -POSE_SIZE].max() <= 1.0
    assert shown[0, 0, -POSE_SIZE:].max() <= HEAD_GAIN
