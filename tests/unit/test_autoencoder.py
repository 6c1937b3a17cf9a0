"""The decoder moves the portrait's own pixels, leaves its border alone and repaints only the mouth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.autoencoder import (
    CROP_PIXELS,
    FLOW_UNIT,
    GRID_PIXELS,
    MOUTH_BOTTOM,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    MOUTH_TOP,
    DecodedFrames,
    FrameDecoder,
    MotionEncoder,
    PortraitEncoder,
    identity_grid,
)
from pipeline.mouth_interior import SEAT_SIZE
from pipeline.portrait_features import PortraitFeatures
from pipeline.training.bundle import MASK_OFFSET, MASK_STEEPNESS, decide, strengthen

LATENTS = 6
WIDTHS = (8, 8, 8, 8)
EXTRA = 3
DECODER: dict[str, Any] = {
    "latent_size": LATENTS,
    "widths": WIDTHS,
    "blocks": 1,
    "condition_size": 16,
    "extra_motions": EXTRA,
}


@pytest.fixture
def encoder() -> PortraitEncoder:
    torch.manual_seed(0)
    encoder: PortraitEncoder = PortraitEncoder(widths=WIDTHS, latent_size=LATENTS, extra_motions=EXTRA)
    encoder.eval()
    return encoder


@pytest.fixture
def decoder() -> FrameDecoder:
    """As if trained: its output layers, which begin at zero, are not zero."""
    torch.manual_seed(1)
    decoder: FrameDecoder = FrameDecoder(**DECODER)
    decoder.eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.startswith(("affine", "flow16", "flow64", "flow128", "mouth.7")):
                parameter.fill_(0.5) if name.endswith("bias") else parameter.normal_(std=0.5)
    return decoder


def crops(count: int = 1) -> Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return functional.interpolate(coarse, CROP_PIXELS, mode="bilinear")


@torch.inference_mode()
def decode(encoder: PortraitEncoder, decoder: FrameDecoder, z_BD: Tensor) -> DecodedFrames:
    decoded: DecodedFrames = decoder(z_BD, torch.zeros_like(z_BD), encoder(crops()))
    return decoded


def latents(count: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, LATENTS, generator=torch.Generator().manual_seed(3))


def test_one_portrait_drives_a_batch_of_frames(encoder: PortraitEncoder, decoder: FrameDecoder) -> None:
    features = encoder(crops())
    maps = [(1, 8, size, size) for size in (128, 64, 32, 16)]
    basis, places = (1, 3 * (LATENTS + EXTRA) + 1, 128, 128), (1, 128, 128, 2)
    assert [tuple(part.shape) for part in features] == [*maps, basis, places, (1, SEAT_SIZE)]
    decoded = decode(encoder, decoder, latents(3))
    assert decoded.grid_BHW2.shape == (3, GRID_PIXELS, GRID_PIXELS, 2)
    assert decoded.mask_B1HW.shape == (3, 1, CROP_PIXELS, CROP_PIXELS)
    assert decoded.paint_B3HW.shape == (3, 3, CROP_PIXELS, CROP_PIXELS)
    assert 0 <= decoded.paint_B3HW.min() <= decoded.paint_B3HW.max() <= 1


def test_frames_of_a_batch_do_not_touch_each_other(encoder: PortraitEncoder, decoder: FrameDecoder) -> None:
    z = latents(2)
    together, alone = decode(encoder, decoder, z), decode(encoder, decoder, z[1:])
    torch.testing.assert_close(together.grid_BHW2[1:], alone.grid_BHW2, atol=1e-5, rtol=0)
    assert (together.grid_BHW2[0] - together.grid_BHW2[1]).abs().max() > 1e-3


def test_the_border_of_the_crop_never_moves(encoder: PortraitEncoder, decoder: FrameDecoder) -> None:
    decoded = decode(encoder, decoder, latents(4, scale=5.0))
    moved = (decoded.grid_BHW2 - identity_grid(GRID_PIXELS, decoded.grid_BHW2)).abs().amax((0, 3))
    inside = float(moved[32:96, 32:96].max())
    assert inside > 0.05, "nothing moved, so this would prove nothing"
    border = torch.cat([moved[0], moved[-1], moved[:, 0], moved[:, -1]])
    assert border.max() < 0.02 * inside


def test_only_the_mouth_window_is_repainted(encoder: PortraitEncoder, decoder: FrameDecoder) -> None:
    mask = decode(encoder, decoder, latents(2, scale=5.0)).mask_B1HW.clone()
    window = mask[:, :, MOUTH_TOP:MOUTH_BOTTOM, MOUTH_LEFT:MOUTH_RIGHT]
    assert window.max() > 0.5
    window.zero_()
    assert not mask.any()


def test_an_untrained_decoder_leaves_the_portrait_as_it_is(encoder: PortraitEncoder) -> None:
    fresh = FrameDecoder(**DECODER)
    grid = decode(encoder, fresh, latents(1)).grid_BHW2
    torch.testing.assert_close(grid, identity_grid(GRID_PIXELS, grid))


def test_the_basis_moves_the_face_in_proportion_to_the_latent(encoder: PortraitEncoder) -> None:
    fresh = FrameDecoder(**DECODER)
    with torch.no_grad():
        encoder.aligner.offset.zero_()
        encoder.flow_basis[2] = 0.05 / FLOW_UNIT  # latent 2 samples further to the right
    z = torch.zeros(2, LATENTS)
    z[0, 2], z[1, 2] = 1.0, 2.0
    grid = decode(encoder, fresh, z).grid_BHW2
    moved = (grid - identity_grid(GRID_PIXELS, grid))[:, 64, 64]
    torch.testing.assert_close(moved, torch.tensor([[0.05, 0.0], [0.1, 0.0]]), atol=1e-5, rtol=0)


def test_a_function_of_the_latent_moves_the_face_too(encoder: PortraitEncoder) -> None:
    torch.manual_seed(4)
    fresh = FrameDecoder(**DECODER)
    with torch.no_grad():
        encoder.flow_basis[LATENTS + 1] = 0.05 / FLOW_UNIT
    z = latents(1)
    grid = decode(encoder, fresh, z).grid_BHW2
    moved = (grid - identity_grid(GRID_PIXELS, grid))[0, 64, 64]
    amount = fresh.extra(torch.cat([z, 0 * z], 1))[0, 1].item()
    torch.testing.assert_close(moved, torch.tensor([0.05 * amount, 0.0]), atol=1e-5, rtol=0)
    assert abs(amount) > 0.01


def test_frames_of_two_portraits_each_use_their_own_basis(decoder: FrameDecoder) -> None:
    basis = torch.zeros(2, 3 * (LATENTS + EXTRA) + 1, 128, 128)
    basis[0, 2], basis[1, 2] = 0.05, -0.05
    fresh = FrameDecoder(**DECODER)
    maps = [torch.zeros(4, 8, size, size) for size in (128, 64, 32, 16)]
    z = torch.zeros(4, LATENTS)
    z[:, 2] = 1.0
    seats = torch.eye(2, 3).flatten().repeat(2, 1)
    seats = torch.cat([seats, torch.ones(2, 3)], 1)
    places = identity_grid(128, z).repeat(2, 1, 1, 1)
    grid = fresh(z, 0 * z, PortraitFeatures(*maps, basis, places, seats)).grid_BHW2
    moved = (grid - identity_grid(GRID_PIXELS, grid))[:, 64, 64, 0]
    torch.testing.assert_close(moved.detach(), torch.tensor([0.05, 0.05, -0.05, -0.05]), atol=1e-5, rtol=0)


def test_a_strengthened_expression_moves_further_and_the_others_as_before(
    encoder: PortraitEncoder, decoder: FrameDecoder, tmp_path: Path
) -> None:
    names = ["jawOpen", "eyeBlink_L", "eyeBlink_R", "mouthLeft"]
    encode = np.linalg.qr(np.random.default_rng(0).normal(size=(LATENTS, 4)))[0].T.astype(np.float32)
    np.savez(tmp_path / "basis.npz", encode=encode, decode=encode.T)
    with torch.no_grad():
        encoder.flow_basis.normal_()
    blink, jaw = torch.from_numpy(encode[1:3].sum(0)), torch.from_numpy(encode[0])

    def flow(direction: Tensor) -> Tensor:
        both = torch.cat([direction, 0 * direction])[None]
        motions = torch.cat([direction, (decoder.extra(both) - decoder.extra(0 * both))[0]])
        return torch.einsum("m,cmhw->chw", motions, encoder.flow_basis.unflatten(0, (2, -1))).detach()

    before_blink, before_jaw = flow(blink), flow(jaw)
    strengthen(encoder, decoder, tmp_path / "basis.npz", names, "eyeBlink", 2.5)
    torch.testing.assert_close(flow(blink), 2.5 * before_blink, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(flow(jaw), before_jaw, atol=1e-3, rtol=1e-3)


def test_a_decided_mask_is_a_steeper_function_of_the_old_one(
    encoder: PortraitEncoder, decoder: FrameDecoder
) -> None:
    with torch.no_grad():
        encoder.opening_basis.normal_(std=0.1)
        decoder.mouth[-1].weight.normal_(std=0.1)
        decoder.mouth[-1].bias.zero_()
    z, window = latents(3), (..., slice(MOUTH_TOP, MOUTH_BOTTOM), slice(MOUTH_LEFT, MOUTH_RIGHT))
    before = decode(encoder, decoder, z)
    decide(encoder, decoder)
    after = decode(encoder, decoder, z)
    expected = MASK_STEEPNESS * (before.mask_B1HW[window].logit() + MASK_OFFSET)
    torch.testing.assert_close(after.mask_B1HW[window].logit(), expected, atol=1e-3, rtol=1e-3)
    assert (after.paint_B3HW[window] < before.paint_B3HW[window]).all()
    torch.testing.assert_close(after.grid_BHW2, before.grid_BHW2)


def test_the_identity_grid_gives_the_crop() -> None:
    still = identity_grid(GRID_PIXELS, crops())
    nothing, paint = torch.zeros(1, 1, CROP_PIXELS, CROP_PIXELS), torch.ones(1, 3, CROP_PIXELS, CROP_PIXELS)
    composed = DecodedFrames(still, nothing, paint).compose(crops())
    inside = (..., slice(1, -1), slice(1, -1))  # the outermost pixels lie beyond the grid's last points
    torch.testing.assert_close(composed[inside], crops()[inside], atol=1e-4, rtol=0)
    torch.testing.assert_close(composed, crops(), atol=0.02, rtol=0)
    assert torch.equal(DecodedFrames(still, nothing + 1, paint).compose(crops()), paint)


def test_motion_of_a_frame_is_one_latent() -> None:
    encoder = MotionEncoder(latent_size=LATENTS, widths=(8, 8, 8, 8, 8)).eval()
    with torch.inference_mode():
        assert encoder(crops(2)).shape == (2, LATENTS)


def test_saved_and_loaded_they_draw_the_same(
    encoder: PortraitEncoder, decoder: FrameDecoder, tmp_path: Path
) -> None:
    encoder.save_pretrained(tmp_path / "encoder")
    decoder.save_pretrained(tmp_path / "decoder")
    read_encoder = PortraitEncoder.from_pretrained(tmp_path / "encoder", low_cpu_mem_usage=False).eval()
    read_decoder = FrameDecoder.from_pretrained(tmp_path / "decoder", low_cpu_mem_usage=False).eval()
    for parameter in (*read_encoder.parameters(), *read_decoder.parameters()):
        # Where a weight lies in a mapped file decides how it is summed up, to the last bit.
        parameter.data = parameter.data.clone()
    loaded = decode(read_encoder, read_decoder, latents(1))
    expected = decode(encoder, decoder, latents(1))
    # Not to the last bit: where weights lie in memory decides the order in which some processors add.
    torch.testing.assert_close(loaded.grid_BHW2, expected.grid_BHW2, atol=1e-6, rtol=0)
    torch.testing.assert_close(loaded.paint_B3HW, expected.paint_B3HW, atol=1e-6, rtol=0)
