"""Writes the graphs that ONNX Runtime runs on a processor: `denoiser/pass.onnx` and `audio_encoder/stream.onnx`.

They hold no weights, only their names: at run time `pipeline.onnx_graph` gives them those of the torch modules, so a
model that is trained anew needs no new graph, and no weight lies in its folder twice. Large products read weights of
one byte in blocks of 32, each with a scale of its own (the operator MatMulNBits of ONNX Runtime).

    python -m pipeline.training.export_onnx --model runs/portrait_256
"""

from __future__ import annotations

import argparse
import io
import json
import warnings
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional

from pipeline import checkpoint
from pipeline.audio_encoder import AudioEncoder, CausalBlock
from pipeline.denoiser import Block, Denoiser, rotate, rotation
from pipeline.onnx_graph import BLOCK, BYTES, PASS_GRAPH, SCALES, STREAM_GRAPH, is_large

OPSET = 17


class _Pass(nn.Module):
    """`Denoiser._run`, of which the embedding of the noise level is an input; RMS norms and attention written out."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, x: Tensor, level: Tensor, audio: Tensor, session: Tensor, keys: Tensor, values: Tensor, table: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        net = self.denoiser
        batch, rows, channels = x.shape[0], x.shape[1], net.channels
        condition = functional.silu(level + session)
        own = torch.stack([cast(Block, block).modulation for block in net.blocks]) + net.unscaled[:, None]
        modulation = net.modulation(condition).view(1, batch, rows, 6, channels) + own[:, None, None]
        h, new_keys, new_values = net.latent_in(x) + audio, [], []
        for layer, block in enumerate(net.blocks):
            assert isinstance(block, Block)
            shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation[layer].unbind(2)
            y = functional.layer_norm(h, (channels,)) * scale_a + shift_a
            qkv = block.qkv(y).view(batch, rows, 3, block.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            q, k = _rms(q, block.query_norm), _rms(k, block.key_norm)
            new_keys.append(k)
            new_values.append(v)
            all_k = torch.cat([keys[layer], rotate(k, table)], 2)
            all_v = torch.cat([values[layer], v], 2)
            q = rotate(q, table) * q.shape[-1] ** -0.5
            seen = torch.softmax(q @ all_k.transpose(2, 3) + bias, -1) @ all_v
            h = h + gate_a * block.out(seen.transpose(1, 2).reshape(batch, rows, channels))
            y = functional.layer_norm(h, (channels,)) * scale_m + shift_m
            h = h + gate_m * block.down(functional.gelu(block.up(y), approximate="tanh"))
        shift, scale = net.out_modulation(condition).chunk(2, -1)
        h = functional.layer_norm(h, (channels,)) * (1 + scale) + shift
        return net.latent_out(h), torch.stack(new_keys), torch.stack(new_values)


def _rms(x: Tensor, norm: nn.Module) -> Tensor:
    assert isinstance(norm, nn.RMSNorm)
    normed: Tensor = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + (norm.eps or 0.0)) * norm.weight
    return normed


class _Stream(nn.Module):
    """`AudioEncoder._encode` with a past: log-mel bands, the last of the frame before included, and each layer's input
    before these steps; the same for the next call comes out."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mel: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        net, kept = self.encoder, []
        windows = torch.stack([mel[:, at : at + mel.shape[1] - 3] for at in range(4)], -1)[:, ::2]
        x = functional.gelu(net.enter(windows.flatten(2)))
        for index, block in enumerate([*net.at_50hz, *net.at_25hz]):
            assert isinstance(block, CausalBlock)
            if index == len(net.at_50hz):
                x = net.down(x.reshape(x.shape[0], -1, 2 * x.shape[2]))
            x = torch.cat([past[index], x], 1)
            kept.append(x[:, -block.left :])
            steps = x.shape[1] - block.left
            h = x[:, :steps] * block.taps[0]
            for tap in range(1, block.kernel):
                h = h + x[:, tap * block.dilation : tap * block.dilation + steps] * block.taps[tap]
            x = x[:, block.left :] + block.project(functional.gelu(block.expand(block.norm(h))))
        return (net.leave(x), *kept)


def export_pass(denoiser: Denoiser) -> onnx.ModelProto:
    """The denoiser's pass for any number of rows, sessions and frames in the ring."""
    rows, held, channels = 2, 3, denoiser.channels
    ring = torch.randn(len(denoiser.blocks), 1, denoiser.heads, held, channels // denoiser.heads)
    row = torch.randn(1, rows, channels)
    table = rotation(held + rows, channels // denoiser.heads, like=row)[:, held:]
    example = (
        torch.randn(1, rows, denoiser.latent_size),
        row,
        row,
        row,
        ring,
        ring,
        table,
        torch.zeros(rows, held + rows),
    )
    axes = {name: {0: "sessions", 1: "rows"} for name in ("x", "level", "audio", "session")}
    axes |= {"keys": {1: "sessions", 3: "held"}, "values": {1: "sessions", 3: "held"}}
    axes |= {"table": {1: "rows"}, "bias": {0: "rows", 1: "seen"}}
    return _export(_Pass(denoiser), example, list(axes), ["x0", "new_keys", "new_values"], axes, "denoiser.")


def export_stream(encoder: AudioEncoder) -> onnx.ModelProto:
    """The audio encoder after its front-end, for any number of new frames."""
    blocks = [block for block in (*encoder.at_50hz, *encoder.at_25hz) if isinstance(block, CausalBlock)]
    bands, channels = encoder.filters.shape[0], encoder.enter.out_features
    past = tuple(torch.randn(1, block.left, channels) for block in blocks)
    names = ["mel", *(f"past_{index}" for index in range(len(blocks)))]
    outputs = ["features", *(f"kept_{index}" for index in range(len(blocks)))]
    axes = {"mel": {0: "streams", 1: "steps"}} | {name: {0: "streams"} for name in names[1:]}
    return _export(_Stream(encoder), (torch.randn(1, 6, bands), *past), names, outputs, axes, "encoder.")


def _export(
    module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str],
    axes: dict[str, dict[int, str]], prefix: str,
) -> onnx.ModelProto:  # fmt: skip
    out = io.BytesIO()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shapes that are traced are those of the network
        torch.onnx.export(
            module.eval(), example, cast(Any, out), dynamo=False, opset_version=OPSET, do_constant_folding=False,
            input_names=inputs, output_names=outputs, dynamic_axes=axes,
        )  # fmt: skip
    model = onnx.load_from_string(out.getvalue())
    _use_bytes(model)
    _without_weights(model, prefix)
    return model


def _use_bytes(model: onnx.ModelProto) -> None:
    """Products with large weights become MatMulNBits."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    transposed = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in weights
    }
    nodes = []
    for node in graph.node:
        name = transposed.get(node.input[1]) if node.op_type == "MatMul" else None
        if name is None or not is_large(tuple(weights[name].dims)):
            nodes.append(node)
            continue
        outputs, inputs = weights[name].dims
        nodes.append(
            helper.make_node(
                "MatMulNBits", [node.input[0], name + BYTES, name + SCALES], list(node.output),
                domain="com.microsoft", K=inputs, N=outputs, bits=8, block_size=BLOCK, accuracy_level=4,
            )
        )  # fmt: skip
        blocks = inputs // BLOCK
        graph.initializer.append(
            onnx.TensorProto(
                name=name + BYTES, data_type=onnx.TensorProto.UINT8, dims=[outputs, blocks, BLOCK]
            )
        )
        graph.initializer.append(
            onnx.TensorProto(name=name + SCALES, data_type=onnx.TensorProto.FLOAT, dims=[outputs, blocks])
        )
    used = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    nodes = [node for node in nodes if any(output in used for output in node.output)]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _without_weights(model: onnx.ModelProto, prefix: str) -> None:
    """Weights are named as in the torch module, and said to lie elsewhere."""
    renamed = {t.name: t.name.removeprefix(prefix) for t in model.graph.initializer}
    for tensor in model.graph.initializer:
        tensor.name = renamed[tensor.name]
        for field in ("raw_data", "float_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "weights"
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    for node in model.graph.node:
        node.name, node.doc_string = "", ""


def write(graph: onnx.ModelProto, path: Path) -> None:
    """The graph, and the names of its weights beside it."""
    path.write_bytes(graph.SerializeToString())
    names = sorted(tensor.name for tensor in graph.graph.initializer)
    path.with_suffix(".json").write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="portrait_256", help="a bundled model's name or a model folder")
    folder = checkpoint.resolve(parser.parse_args().model)
    for name, kind, export, file in (
        ("denoiser", Denoiser, export_pass, PASS_GRAPH),
        ("audio_encoder", AudioEncoder, export_stream, STREAM_GRAPH),
    ):
        module = kind.from_pretrained(folder / name, low_cpu_mem_usage=False)
        write(export(module), folder / name / file)
    checkpoint.write_sums(folder)


if __name__ == "__main__":
    main()
