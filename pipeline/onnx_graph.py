"""Graphs that ONNX Runtime runs with the weights of a torch module: the same numbers for a half of the time, or less.

A live step has one or two rows of activations, so on a processor it is not the products that take the time but some
hundred small operators, and reading the weights. The graphs (`pipeline.training.export_onnx`) hold no weights; large
ones are given to them as bytes in blocks of 32, which are off by 0.4 % of a block's largest at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PASS_GRAPH, STREAM_GRAPH = "pass.onnx", "stream.onnx"
BLOCK = 32
BYTES, SCALES = ":bytes", ":scales"
FEWEST_WEIGHTS = 16_384


def is_large(shape: tuple[int, ...]) -> bool:
    """Whether a weight [outputs, inputs] is read as bytes: in others nothing is gained."""
    return len(shape) == 2 and shape[0] * shape[1] >= FEWEST_WEIGHTS and shape[1] % BLOCK == 0


def in_blocks(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Bytes [outputs, blocks, 32], of which 128 stands for 0, and scales [outputs, blocks]."""
    blocks = weight.reshape(len(weight), -1, BLOCK)
    scales = np.maximum(np.abs(blocks).max(-1), 1e-12) / 127
    quantised = np.rint(blocks / scales[..., None]) + 128
    return quantised.astype(np.uint8), scales.astype(np.float32)


class OnnxGraph:
    """One graph with a module's weights, run by one thread."""

    def __init__(self, path: Path, module: nn.Module) -> None:
        """path: the graph; beside it, as JSON, the names of the weights that it needs."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        known, needed = _weights(module), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        weights = {name: known[name] for name in needed}
        options.add_external_initializers(
            list(weights), [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        )
        self._weights = weights  # not copied: they live as long as the graph
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, given: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs in their order; tensors of the processor in and out."""
        arrays: dict[str, Any] = {name: value.contiguous().numpy() for name, value in given.items()}
        return [torch.from_numpy(made) for made in self._session.run(None, arrays)]


def _weights(module: nn.Module) -> dict[str, NDArray[Any]]:
    """All of a module's tensors by their names, and the large ones in blocks of bytes, too."""
    found: dict[str, NDArray[Any]] = {}
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    for name, tensor in tensors.items():
        value = tensor.detach().float().contiguous().numpy()
        found[name] = value
        if is_large(value.shape):
            found[name + BYTES], found[name + SCALES] = in_blocks(value)
    return found
