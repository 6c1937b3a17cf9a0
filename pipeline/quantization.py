"""Weights of one byte for layers that are bound by reading them.

A live step has one or two rows of activations, so a linear layer takes the time in which its weights come from memory,
not the time of its products: bytes instead of floats are read four times faster. Activations stay floating point, and
every output has a scale of its own (LLM.int8(), arXiv 2208.07339, section 2.1), so what is lost is about 0.3 % of a
layer's output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FEWEST_WEIGHTS = 16_384  # smaller layers stay in the cache anyway
_BLOCK = 32  # torch's kernel reads whole blocks, beyond the end of a layer of another size
_MOST_ROWS = (
    16  # with more rows the products are what takes the time, and the float kernels are better at them
)


class ByteLinear(nn.Module):
    """A linear layer with int8 weights [outputs, inputs] and a scale for every output, for a few rows at a time.

    float32 in and out, with bfloat16 between; more than a few rows are multiplied in float32.
    """

    weight_bytes: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp_min(1e-12) / 127
        self.register_buffer("weight_bytes", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(torch.bfloat16))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        rows = x.reshape(-1, self.in_features)
        if len(rows) > _MOST_ROWS:
            weight = self.weight_bytes.float() * self.scale.float()[:, None]
            return nn.functional.linear(x, weight, self.bias)
        product = torch._weight_int8pack_mm(rows.to(torch.bfloat16), self.weight_bytes, self.scale)
        out = product.view(*x.shape[:-1], self.out_features).float()
        return out if self.bias is None else out + self.bias


def supported() -> bool:
    """Whether torch multiplies by bytes here; it is asked to do so once."""
    kernel = getattr(torch, "_weight_int8pack_mm", None)
    if kernel is None:
        return False
    row = torch.ones(1, 64, dtype=torch.bfloat16)
    try:
        product = kernel(row, torch.ones(32, 64, dtype=torch.int8), torch.ones(32, dtype=torch.bfloat16))
    except (RuntimeError, TypeError):
        return False
    return bool((product == 64).all())


def _worth_bytes(linear: nn.Linear) -> bool:
    blocks = linear.in_features % _BLOCK == 0 and linear.out_features % _BLOCK == 0
    return blocks and linear.weight.numel() >= _FEWEST_WEIGHTS


def use_bytes(module: nn.Module) -> int:
    """Replace the large linear layers of `module` in place; how many were replaced."""
    replaced = 0
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and _worth_bytes(child):
            setattr(module, name, ByteLinear(child))
            replaced += 1
        else:
            replaced += use_bytes(child)
    return replaced
