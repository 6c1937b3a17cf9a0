"""What ONNX Runtime makes with a module's weights is what torch makes, nearly; and no graph is stale."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pipeline import checkpoint
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.onnx_graph import BLOCK, PASS_GRAPH, STREAM_GRAPH, OnnxGraph, in_blocks, is_large
from pipeline.training.export_onnx import export_pass, export_stream, write
from tests.unit.avatar import TINY, tiny_pipeline
from tests.unit.sounds import tone

BUNDLED = checkpoint.bundled("portrait_256")
SPEECH = (tone(3.0, 16_000) * np.repeat(np.random.default_rng(0).uniform(0, 1, 75), 640)).astype(np.float32)


def spoken(pipe: AvatarPipeline, hop: int, right: int = 2) -> np.ndarray:
    """Motion latents [T,D], from an empty ring to a full one."""
    window = pipe.window_spec(hop, right)
    z_ref = np.zeros(pipe.denoiser.latent_size, np.float32)
    state, made = pipe.start(z_ref, window=window, seed=4), []
    for index in range(window.chunk_count(len(SPEECH))):
        state, motion = pipe.move(state, window.cut(SPEECH, index))
        made.append(motion.z_TD)
    return np.concatenate(made)


def with_graphs(pipe: AvatarPipeline, folder: Path) -> AvatarPipeline:
    write(export_pass(pipe.denoiser), folder / PASS_GRAPH)
    write(export_stream(pipe.audio_encoder), folder / STREAM_GRAPH)
    pipe.denoiser.graph = OnnxGraph(folder / PASS_GRAPH, pipe.denoiser)
    pipe.audio_encoder.graph = OnnxGraph(folder / STREAM_GRAPH, pipe.audio_encoder)
    return pipe


@pytest.mark.parametrize("hop", [1, 2, 3])
def test_a_small_model_moves_alike(tmp_path: Path, hop: int) -> None:
    """None of its weights is large enough for bytes, so nothing at all is lost."""
    assert not any(is_large(tuple(w.shape)) for w in tiny_pipeline().denoiser.parameters())
    wanted = spoken(tiny_pipeline(), hop)
    made = spoken(with_graphs(tiny_pipeline(), tmp_path), hop)
    np.testing.assert_allclose(made, wanted, atol=2e-4)


@pytest.mark.parametrize("hop", [1, 2])
def test_the_bundled_model_moves_alike(hop: int) -> None:
    wanted = spoken(AvatarPipeline.from_pretrained(BUNDLED), hop)
    pipe = AvatarPipeline.from_pretrained(BUNDLED)
    pipe.use_graphs()
    made = spoken(pipe, hop)
    assert np.sqrt(np.square(made - wanted).mean()) < 0.1 * wanted.std()
    for lips in range(3):
        assert np.corrcoef(made[:, lips], wanted[:, lips])[0, 1] > 0.995


def test_the_bundled_graphs_are_those_of_the_networks(tmp_path: Path) -> None:
    """A change of a network without a new graph would go unseen: what is traced now must be what is in the folder."""
    pipe = AvatarPipeline.from_pretrained(BUNDLED)
    for module, export, file in (
        ("denoiser", export_pass, PASS_GRAPH),
        ("audio_encoder", export_stream, STREAM_GRAPH),
    ):
        kept = onnx.load(BUNDLED / module / file, load_external_data=False)
        fresh = export(getattr(pipe, module))
        assert [node.op_type for node in kept.graph.node] == [node.op_type for node in fresh.graph.node]
        names = {tensor.name: list(tensor.dims) for tensor in fresh.graph.initializer}
        assert {tensor.name: list(tensor.dims) for tensor in kept.graph.initializer} == names
        assert json.loads((BUNDLED / module / file).with_suffix(".json").read_text()) == sorted(names)


def test_gradients_and_training_stay_in_torch(tmp_path: Path) -> None:
    pipe = with_graphs(checkpoint.build(TINY), tmp_path)
    x = torch.zeros(1, 2, pipe.denoiser.latent_size, requires_grad=True)
    audio = torch.zeros(1, 2, pipe.denoiser.channels)
    x0, _, _ = pipe.denoiser(x, torch.ones(1, 1), audio, audio[:, 0])
    x0.sum().backward()
    assert x.grad is not None


def test_bytes_are_the_nearest_in_their_block() -> None:
    weight = np.random.default_rng(1).normal(0, 1, (6, 4 * BLOCK)).astype(np.float32)
    weight[0] = 0
    quantised, scales = in_blocks(weight)
    back = (quantised.astype(np.float32) - 128) * scales[..., None]
    error = np.abs(back - weight.reshape(back.shape))
    assert (error <= scales[..., None] / 2 + 1e-7).all()
    assert (back[0] == 0).all()
