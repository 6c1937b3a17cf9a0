"""What is shown has no borders between chunks and a head that stays where the portrait has it."""

import torch

from pipeline.autoencoder import POSE_SIZE
from pipeline.shown_motion import LEAN, LIP_LEADS, LIPS, ShownMotion

LATENT = 8
FACE = LATENT - POSE_SIZE


def show(z_BTD: torch.Tensor, hop: int) -> torch.Tensor:
    shown, parts = ShownMotion.start(torch.zeros(1, LATENT)), []
    for first in range(0, z_BTD.shape[1], hop):
        part, shown = shown.then(z_BTD[:, first : first + hop], 2)
        parts.append(part)
    return torch.cat(parts, 1)


def test_a_chunk_leans_back_at_its_border_only() -> None:
    before = ShownMotion(*[torch.full((1, LATENT), 1.0)] * 2, torch.zeros(1, POSE_SIZE))
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
    assert 0.9 < late.std() / z[0, 750:, -1].std() < 1.1


def test_the_value_given_stays_valid() -> None:
    start, chunk = ShownMotion.start(torch.zeros(1, LATENT)), torch.randn(1, 2, LATENT)
    once, _ = start.then(chunk, 2)
    again, _ = start.then(chunk, 2)
    assert torch.equal(once, again)


def test_lips_of_single_frames_run_ahead_and_come_to_rest_where_they_were_made() -> None:
    steps = torch.cat([torch.zeros(1, 3, LATENT), torch.ones(1, 4, LATENT)], 1)
    shown = show(steps, 1)
    assert torch.equal(shown[0, 3, LIPS], torch.full((3,), 1.0 + LIP_LEADS[2]))
    assert torch.equal(shown[0, 4:, LIPS], torch.ones(3, 3))
    assert list(LIP_LEADS) == sorted(LIP_LEADS, reverse=True), "the less is heard, the later the lips"


def test_lids_and_head_never_overshoot() -> None:
    still = torch.zeros(1, LATENT + LIPS.stop)
    blink = torch.ones(1, 1, LATENT + LIPS.stop)
    shown, _ = ShownMotion(still, still, torch.zeros(1, POSE_SIZE)).then(blink, 0)
    assert shown[0, 0, LIPS.stop :].max() <= 1.0
