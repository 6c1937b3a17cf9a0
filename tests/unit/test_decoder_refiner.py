"""The refiner teaches the decoder, and the decoder only, the flow and mask that it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pipeline.autoencoder import CROP_PIXELS, GRID_PIXELS, identity_grid
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.training.autoencoder import mirror_indices
from pipeline.training.decoder_refiner import RefinerSettings, RenderedMoves, motion_basis, refine
from pipeline.training.settings import load_settings
from tests.unit.avatar import tiny_pipeline

CONFIG = Path(__file__).parents[2] / "configs" / "train" / "decoder_refiner.yaml"
PORTRAITS, MOTIONS = 3, 4
NAMES = ("jawOpen", "eyeBlink_L", "eyeBlink_R", *(f"other{index}" for index in range(54)))
SHIFT = 0.05


@pytest.fixture
def rendered(tmp_path: Path) -> tuple[Path, AvatarPipeline]:
    """Portraits whose lower face comes from a little higher up, in proportion to jawOpen."""
    rng = np.random.default_rng(0)
    still = identity_grid(GRID_PIXELS, torch.zeros(1)).numpy()
    motion = np.zeros((PORTRAITS, MOTIONS, 62), np.float32)
    motion[:, 1:, 0] = rng.uniform(0.3, 1, (PORTRAITS, MOTIONS - 1))
    motion[:, 1:, 1] = 0.7
    grid = np.broadcast_to(still, (PORTRAITS, MOTIONS, GRID_PIXELS, GRID_PIXELS, 2)).copy()
    grid[..., 60:100, 36:92, 1] -= SHIFT * motion[..., 0, None, None]
    interior = np.zeros((PORTRAITS, MOTIONS, GRID_PIXELS, GRID_PIXELS), np.uint8)
    interior[:, 1:, 78:84, 50:78] = 255
    shape = (PORTRAITS, MOTIONS, CROP_PIXELS, CROP_PIXELS, 3)
    np.save(tmp_path / "rgb.npy", rng.integers(60, 200, shape, dtype=np.uint8))
    for name, values in (("grid", grid.astype(np.float16)), ("interior", interior), ("motion", motion)):
        np.save(tmp_path / f"{name}.npy", values)
    np.save(tmp_path / "names.npy", np.array(["train/0", "train/1", "val/0"]))
    pipe = tiny_pipeline()
    encode = rng.normal(size=(62, pipe.denoiser.latent_size)).astype(np.float32)
    save_file({"encode": encode}, tmp_path / "motion_basis.safetensors")
    return tmp_path, pipe


def test_a_mirrored_move_is_the_move_of_the_mirrored_face(rendered: tuple[Path, AvatarPipeline]) -> None:
    folder, _ = rendered
    moves = RenderedMoves(folder, motion_basis(folder), NAMES)
    encode, motion = motion_basis(folder), np.load(folder / "motion.npy")[0, 1:2]
    assert moves.train == [0, 1]
    assert moves.held_out == [2]
    plain, mirrored = (moves.moves(0, np.array([1]), flip) for flip in (False, True))
    np.testing.assert_allclose(plain.z_BD.numpy(), motion @ encode, rtol=1e-5)
    swapped = motion.copy()
    swapped[:, :57] = motion[:, mirror_indices(NAMES)]
    assert swapped[0, 2] == motion[0, 1] != motion[0, 2]
    np.testing.assert_allclose(mirrored.z_BD.numpy(), swapped @ encode, rtol=1e-5)
    torch.testing.assert_close(mirrored.grid_BHW2[..., 1], plain.grid_BHW2[..., 1].flip(2))
    torch.testing.assert_close(mirrored.grid_BHW2[..., 0], -plain.grid_BHW2[..., 0].flip(2))


def test_flow_is_learned_and_nothing_else_changes(
    rendered: tuple[Path, AvatarPipeline], tmp_path: Path
) -> None:
    folder, pipe = rendered
    jaws = torch.rand(pipe.frame_decoder.interior.layers.shape)
    pipe.frame_decoder.interior.layers.copy_(jaws)
    before = {
        f"{part}.{name}": value.clone()
        for part in ("portrait_encoder", "motion_encoder", "denoiser", "frame_decoder")
        for name, value in getattr(pipe, part).state_dict().items()
    }
    settings = replace(load_settings(RefinerSettings, CONFIG), minutes=0.07, threads=1, learning_rate=3e-3)
    out = tmp_path / "run"
    out.mkdir()
    refine(
        pipe,
        RenderedMoves(folder, motion_basis(folder), NAMES),
        replace(settings, motions_per_portrait=3),
        out,
    )
    changed = {
        part.split(".")[0]
        for part, value in before.items()
        if not torch.equal(value, getattr(pipe, part.split(".", 1)[0]).state_dict()[part.split(".", 1)[1]])
    }
    assert changed == {"frame_decoder"}
    assert torch.equal(pipe.frame_decoder.interior.layers, jaws)
    held_out = json.loads((out / "curves.json").read_text())["held_out"]
    assert held_out["mouth_flow"][-1][1] < held_out["mouth_flow"][0][1]
    assert held_out["mask"][-1][1] < held_out["mask"][0][1]
