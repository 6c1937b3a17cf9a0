"""Layers with one-byte weights say what the float layers say, to within what a byte can hold."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline import quantization
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.quantization import ByteLinear, use_bytes
from pipeline.runtime import RuntimeConfig, prepare
from tests.unit.avatar import tiny_pipeline

pytestmark = pytest.mark.skipif(
    not quantization.supported(), reason="this torch has no kernel for one-byte weights"
)


@pytest.mark.parametrize("shape", [(1, 256), (1, 2, 256), (40, 256)])
def test_a_layer_is_within_a_byte_of_the_float_layer(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(256, 96)
    linear.weight.data[0] *= 50  # one loud output must not cost the others their precision
    x = torch.randn(shape)
    with torch.inference_mode():
        expected, got = linear(x), ByteLinear(linear)(x)
    assert got.shape == expected.shape
    assert got.dtype == torch.float32
    error = (got - expected).abs().amax(tuple(range(got.ndim - 1)))
    assert (error <= 0.02 * linear.weight.norm(dim=1)).all()
    assert not torch.equal(got, expected)


def test_only_large_layers_are_replaced_wherever_they_are() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(128, 256, bias=False)), nn.LayerNorm(256))
    assert use_bytes(module) == 1
    assert isinstance(module[1][0], ByteLinear)
    assert isinstance(module[0], nn.Linear)
    assert module[1](torch.zeros(1, 128)).shape == (1, 256)


def linears(pipe: AvatarPipeline) -> set[type]:
    return {type(module) for part in (pipe.audio_encoder, pipe.denoiser) for module in part.modules()}


def test_the_runtime_uses_them_on_a_processor_unless_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_FEWEST_WEIGHTS", 1)
    assert ByteLinear in linears(prepare(tiny_pipeline(), RuntimeConfig(device="cpu")))
    assert ByteLinear not in linears(prepare(tiny_pipeline(), RuntimeConfig(device="cpu", int8=False)))


def test_a_layer_of_no_whole_blocks_stays_float() -> None:
    """The kernel reads beyond the end of it, which has crashed a server with the wide model."""
    module = nn.Sequential(nn.Linear(512, 40), nn.Linear(1000, 64))
    assert use_bytes(module) == 0
