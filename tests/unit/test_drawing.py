"""Drawing from directions: what the decoder itself makes, in NumPy and OpenCV, the same in every thread and process."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline import checkpoint
from pipeline.autoencoder import FrameDecoder, identity_grid
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.drawing import DrawingModel, Painter, PreparedPortrait, PreparedPortraitError
from pipeline.drawing.geometry import (
    CROP_PIXELS,
    MOUTH_BOTTOM,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    MOUTH_TOP,
    freedom,
    still_grid,
)
from pipeline.drawing.jaws import Jaws
from pipeline.drawing.lids import Lids
from pipeline.drawing.motion_weights import Perceptron
from pipeline.evaluation.decoded import decoded_frames, psnr
from pipeline.face_preparation import laid_on
from pipeline.mouth_interior import MouthInterior
from pipeline.portrait import prepare_portrait
from tests.unit.avatar import TINY, plain_portrait, tiny_pipeline

RNG = np.random.default_rng(0)
BUNDLED = checkpoint.bundled("portrait_256")
WINDOW = (slice(MOUTH_TOP, MOUTH_BOTTOM), slice(MOUTH_LEFT, MOUTH_RIGHT))


@pytest.fixture(scope="module")
def pipe() -> AvatarPipeline:
    return AvatarPipeline.from_pretrained(BUNDLED)


@pytest.fixture(scope="module")
def mira(pipe: AvatarPipeline) -> PreparedPortrait:
    return pipe.prepare(prepare_portrait(BUNDLED / "portraits" / "mira.jpg"))


def moved_grid() -> np.ndarray:
    """Smooth, and different everywhere."""
    noise = torch.from_numpy(RNG.normal(0, 0.04, (1, 2, 6, 6)).astype(np.float32))
    shift = functional.interpolate(noise, 128, mode="bicubic")[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(still_grid(128, 128) + shift)


def spoken(pipe: AvatarPipeline, portrait: PreparedPortrait, seconds: float = 3.0) -> np.ndarray:
    """Motion latents of a made-up voice: syllables of a tone."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    pcm = 0.3 * np.sin(2 * np.pi * 140 * time) * np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)
    pcm = (pcm + 0.1 * RNG.standard_normal(len(time)) * (np.sin(2 * np.pi * 2 * time) > 0.5)).astype(
        np.float32
    )
    chunks = pipe(portrait, pcm, sample_rate=16_000)
    return np.concatenate([chunk.latents for chunk in chunks])


def test_lids_close_as_in_training(pipe: AvatarPipeline, mira: PreparedPortrait) -> None:
    lids, eyelids = Lids.of(laid_on(pipe.frame_decoder)), pipe.frame_decoder.upper_lids
    change = RNG.normal(0, 0.5, (9, 40)).astype(np.float32)
    change += np.linspace(-0.2, 1.2, 9, dtype=np.float32)[:, None] * lids.write_D
    rest, closed = lids.take_out(change)
    with torch.inference_mode():
        wanted_rest, wanted_closed = eyelids.take_out(torch.from_numpy(change))
        np.testing.assert_allclose(rest, wanted_rest.numpy(), atol=1e-5)
        np.testing.assert_allclose(closed, wanted_closed.numpy(), atol=1e-5)
        for amount in (0.2, 0.6, 1.0):
            grid = moved_grid()
            wanted = eyelids.close(
                torch.from_numpy(grid)[None], torch.tensor([amount]), torch.from_numpy(mira.places)[None]
            )
            lids.close(grid, amount, mira.places)
            np.testing.assert_allclose(grid, wanted[0].numpy(), atol=2e-6)


def test_jaws_are_laid_in_as_in_training(pipe: AvatarPipeline, mira: PreparedPortrait) -> None:
    jaws, interior = Jaws.of(laid_on(pipe.frame_decoder)), pipe.frame_decoder.interior
    assert isinstance(interior, MouthInterior)
    y, x = np.mgrid[-1:1:96j, -1:1:112j]
    mask = np.clip(1.6 - 2.5 * np.hypot(x, 2 * y), 0, 1).astype(np.float32)
    paint = RNG.random((96, 112, 3), np.float32)
    grid = moved_grid()
    with torch.inference_mode():
        wanted = interior(
            torch.from_numpy(paint).permute(2, 0, 1)[None],
            torch.from_numpy(mask)[None, None],
            torch.from_numpy(grid)[None],
            torch.from_numpy(mira.seat)[None],
        )[0].permute(1, 2, 0)
    mouth = np.concatenate([mask[..., None], mask[..., None] * paint], -1)
    jaws.lay_into(mouth, grid, mira.seat)
    np.testing.assert_array_equal(mouth[..., 0], mask)
    # OpenCV samples the jaws' pictures at places rounded to 1/32 pixel.
    np.testing.assert_allclose(mouth[..., 1:], mask[..., None] * wanted.numpy(), atol=0.02)
    assert np.abs(mouth[..., 1:] - mask[..., None] * wanted.numpy()).mean() < 5e-4


def test_a_small_network_is_the_one_that_was_trained() -> None:
    layers = [torch.nn.Linear(5, 7), torch.nn.Linear(7, 7), torch.nn.Linear(7, 3), torch.nn.Linear(5, 3)]
    weights = {}
    for index, layer in enumerate(layers):
        weights[f"mouth.{index}.weight"] = layer.weight.detach().numpy()
        weights[f"mouth.{index}.bias"] = layer.bias.detach().numpy()
    x = torch.randn(4, 5)
    h = functional.silu(layers[1](functional.silu(layers[0](x))))
    wanted = (layers[2](h) + layers[3](x)).detach().numpy()
    np.testing.assert_allclose(Perceptron.of(weights, "mouth")(x.numpy()), wanted, atol=1e-5)


def test_at_rest_there_is_the_picture(pipe: AvatarPipeline, mira: PreparedPortrait) -> None:
    (frame,) = Painter(mira, pipe.drawing).draw(mira.z_ref[None])
    assert psnr(frame, decoded_frames(pipe, mira, mira.z_ref[None])[0]) > 48
    assert np.array_equal(frame[mira.alpha == 0], mira.canvas[mira.alpha == 0])


def test_frames_are_those_of_the_decoder(pipe: AvatarPipeline, mira: PreparedPortrait) -> None:
    """On a portrait and sounds that nothing was fitted to."""
    z_TD = spoken(pipe, mira)
    frames = Painter(mira, pipe.drawing).draw(z_TD)
    others = decoded_frames(pipe, mira, z_TD)
    assert psnr(frames, others) >= 54
    assert min(psnr(*pair) for pair in zip(frames, others, strict=True)) >= 46


def test_what_is_far_from_every_motion_is_drawn_as_its_edge(
    pipe: AvatarPipeline, mira: PreparedPortrait
) -> None:
    painter, weights = Painter(mira, pipe.drawing), pipe.drawing.weights
    far = np.full((1, 40), 1e4, np.float32)
    edge = weights.mean_D + weights.limit * weights.spread_D
    for made, wanted in zip(weights(far), weights(edge[None]), strict=True):
        np.testing.assert_allclose(made, wanted, atol=1e-3)
    assert painter.draw(mira.z_ref + far).shape == (1, *mira.canvas.shape)


def test_frames_are_the_same_alone_together_and_in_threads(
    pipe: AvatarPipeline, mira: PreparedPortrait
) -> None:
    painter = Painter(mira, pipe.drawing)
    z_TD = mira.z_ref + RNG.normal(0, 0.3, (8, 40)).astype(np.float32)
    together = painter.draw(z_TD)
    with ThreadPoolExecutor(4) as threads:
        alone = np.concatenate(list(threads.map(painter.draw, z_TD[:, None])))
    assert np.abs(together.astype(int) - alone).max() <= 1  # sums of another order
    again = np.concatenate([painter.draw(z_1D[None]) for z_1D in z_TD])
    np.testing.assert_array_equal(alone, again)


def test_another_process_draws_the_same_without_torch(
    pipe: AvatarPipeline, mira: PreparedPortrait, tmp_path: Path
) -> None:
    z_TD = mira.z_ref + RNG.normal(0, 0.3, (2, 40)).astype(np.float32)
    (tmp_path / "mira.portrait").write_bytes(mira.to_bytes())
    np.save(tmp_path / "z.npy", z_TD)
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from pathlib import Path
from pipeline.drawing import DrawingModel, Painter, PreparedPortrait
folder = Path({str(tmp_path)!r})
portrait = PreparedPortrait.from_bytes((folder / "mira.portrait").read_bytes())
painter = Painter(portrait, DrawingModel.load(Path({str(BUNDLED)!r})))
np.save(folder / "frames.npy", painter.draw(np.load(folder / "z.npy")))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "frames.npy"), Painter(mira, pipe.drawing).draw(z_TD))


def test_a_prepared_portrait_is_a_file(pipe: AvatarPipeline, mira: PreparedPortrait) -> None:
    data = mira.to_bytes()
    assert len(data) <= 12_000_000
    again = PreparedPortrait.from_bytes(data, model=pipe.face_sha256)
    assert (again.name, again.sha256, again.model) == (mira.name, mira.sha256, mira.model)
    z_TD = mira.z_ref + RNG.normal(0, 0.3, (1, 40)).astype(np.float32)
    frames = [Painter(portrait, pipe.drawing).draw(z_TD) for portrait in (mira, again)]
    np.testing.assert_array_equal(*frames)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be read"),
        (b"\x10\0\0\0\0\0\0\0not a header at all", "cannot be read"),
        ((2).to_bytes(8, "little") + b"{}", "not a prepared portrait of this version"),
        ((2).to_bytes(8, "little") + b"[]", "cannot be read"),
    ],
)
def test_what_is_no_prepared_portrait_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(PreparedPortraitError, match=reason):
        PreparedPortrait.from_bytes(data, origin="mira.portrait")


def test_a_damaged_or_foreign_portrait_is_refused() -> None:
    tiny = tiny_pipeline()
    prepared = tiny.prepare(plain_portrait())
    data = prepared.to_bytes()
    with pytest.raises(PreparedPortraitError, match="cannot be read"):
        PreparedPortrait.from_bytes(data[:-50])
    with pytest.raises(PreparedPortraitError, match="another model"):
        PreparedPortrait.from_bytes(data, model="another")
    other = checkpoint.build(TINY, seed=1)
    assert other.face_sha256 != tiny.face_sha256
    with pytest.raises(ValueError, match="prepared for another model"):
        other.init_state(prepared, window=other.window_spec())


def test_preparation_tells_how_far_it_is() -> None:
    told: list[float] = []
    tiny_pipeline().prepare(plain_portrait(), told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_without_training_small_motions_are_drawn_right() -> None:
    """First order: the better, the smaller the motion is."""
    tiny = tiny_pipeline()
    prepared = tiny.prepare(plain_portrait())
    painter = Painter(prepared, tiny.drawing)
    direction = RNG.normal(0, 1, (1, 12)).astype(np.float32)
    crop = torch.from_numpy(prepared.crop).permute(2, 0, 1)[None].float() / 255
    for size in (0.1, 0.02):
        change = size * direction
        with torch.inference_mode():
            fields = tiny.frame_decoder.fields(
                torch.from_numpy(change), torch.from_numpy(prepared.z_ref)[None], tiny.portrait_encoder(crop)
            )
        grid_1K, _ = tiny.drawing.weights(change)
        made = painter._grid_rest + (grid_1K @ painter._grid).reshape(128, 128, 2)
        wanted = identity_grid(128, torch.zeros(1))[0] + fields[0][0]
        assert np.abs(made - wanted.numpy()).max() < 0.02 * size


def test_the_bundled_drawing_is_the_decoders() -> None:
    """What is laid on by geometry is kept twice, for training and for drawing."""
    decoder = FrameDecoder.from_pretrained(BUNDLED / "frame_decoder", low_cpu_mem_usage=False)
    drawing = DrawingModel.load(BUNDLED)
    for name, tensor in laid_on(decoder).items():
        np.testing.assert_allclose(drawing.tensors[name], tensor, atol=1e-6)


def test_a_model_takes_its_drawing_along(tmp_path: Path) -> None:
    tiny = tiny_pipeline()
    tiny.drawing = DrawingModel(tiny.drawing.tensors | {"limit": np.array(3.0, np.float32)})
    tiny.save_pretrained(tmp_path)
    again = AvatarPipeline.from_pretrained(tmp_path)
    assert again.drawing.weights.limit == 3.0
    tiny.drawing = DrawingModel(tiny.drawing.tensors | {"limit": np.array(4.0, np.float32)})
    tiny.save_pretrained(tmp_path / "other")
    other = AvatarPipeline.from_pretrained(tmp_path / "other")
    assert other.face_sha256 != again.face_sha256
    assert checkpoint.face_sha256(tmp_path) == again.face_sha256


def test_what_may_move_ends_inside_crop_and_canvas() -> None:
    matrix = np.array([[CROP_PIXELS / 200, 0.0, -20.0], [0.0, CROP_PIXELS / 200, 10.0]])
    alpha = freedom(300, 260, matrix)
    assert alpha.shape == (260, 300)
    assert alpha.max() == 1
    assert alpha[0].max() == alpha[-1].max() == alpha[:, 0].max() == alpha[:, -1].max() == 0
    assert json.dumps(float(alpha.mean()))
