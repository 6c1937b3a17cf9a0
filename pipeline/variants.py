"""Other ways to run a part of the model on a CPU: number types, memory formats, compilers, runtimes, int8.

A maker takes a module in eval mode whose inputs and outputs are plain tensors, and example inputs; it gives a function
of the same inputs. `Unavailable` says in a sentence why a way is not open here. Nothing of this is used by a session:
`pipeline.benchmark_variants` measures what each would bring.
"""

from __future__ import annotations

import copy
import importlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import quantization

Inputs = tuple[Tensor, ...]
Call = Callable[[Inputs], tuple[Tensor, ...]]
Maker = Callable[[nn.Module, Sequence[Inputs], int], Call]


class Unavailable(RuntimeError):
    """This way to run a part is not open here; the message says why."""


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"the package {name} is missing: .venv/bin/pip install -e '.[variants]'") from error


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _laid(module: nn.Module, memory_format: torch.memory_format = torch.channels_last) -> nn.Module:
    """A copy of the module with its weights laid out like that."""
    copied = copy.deepcopy(module)
    copied.to(memory_format=memory_format)  # type: ignore[call-overload]
    return copied


def eager(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """Plain torch, float32, weights and maps as they are stored."""
    plain = _laid(module, torch.contiguous_format)
    return lambda inputs: _tuple(plain(*inputs))


def channels_last(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """What `runtime.prepare` does: weights and, by them, maps with the channels innermost."""
    laid = _laid(module)
    return lambda inputs: _tuple(laid(*inputs))


def bfloat16(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """Weights and maps in bfloat16, channels last."""
    half = _laid(module).to(torch.bfloat16)
    return _in_bfloat16(half)


def _in_bfloat16(run: Callable[..., Any]) -> Call:
    cast: dict[int, tuple[Tensor, Tensor]] = {}

    def half(x: Tensor) -> Tensor:
        """A session would keep what lasts (features, basis) in bfloat16, so that is not converted for every frame."""
        if x.numel() < 1 << 16:
            return x.bfloat16()
        if id(x) not in cast:
            cast[id(x)] = (x, x.bfloat16())
        return cast[id(x)][1]

    return lambda inputs: tuple(out.float() for out in _tuple(run(*map(half, inputs))))


def weight_bytes(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """Linear layers with weights of one byte: what `runtime.prepare` does to the audio encoder and the denoiser."""
    if not quantization.supported():
        raise Unavailable("torch has no product of bfloat16 with int8 weights here")
    light = _laid(module)
    quantization.use_bytes(light)
    return lambda inputs: _tuple(light(*inputs))


def traced(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """torch.jit: traced, frozen."""
    return _trace(_laid(module), examples)


def _trace(module: nn.Module, examples: Sequence[Inputs]) -> Call:
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = tuple(x.clone() for x in examples[0])
        script = torch.jit.freeze(torch.jit.trace(module, plain, check_trace=False))
    return lambda inputs: _tuple(script(*inputs))


def compiled(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """torch.compile by Inductor, with weights frozen and laid out for oneDNN; needs a C++ compiler."""
    return _compile(_laid(module))


def compiled_bfloat16(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """The same in bfloat16."""
    half = _laid(module).to(torch.bfloat16)
    return _in_bfloat16(_compile_module(half))


def _compile(module: nn.Module) -> Call:
    run = _compile_module(module)
    return lambda inputs: _tuple(run(*inputs))


def _compile_module(module: nn.Module) -> Callable[..., Any]:
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise Unavailable("torch.compile needs a C++ compiler, and none is installed")
    from torch._inductor import config

    module.requires_grad_(False)
    config.freezing = True  # read while compiling, which happens at the first call
    run: Callable[..., Any] = torch.compile(module, dynamic=False)
    return run


def _onnx(module: nn.Module, examples: Sequence[Inputs], folder: Path) -> Path:
    """The module as an ONNX file with fixed shapes."""
    _package("onnx")
    _package("onnxscript")
    path = folder / "part.onnx"
    inputs = tuple(x.clone() for x in examples[0])
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            copy.deepcopy(module), inputs, dynamo=True, verbose=False, input_names=_names(inputs)
        )
        assert program is not None
        program.save(str(path))
    return path


def _names(inputs: Inputs) -> list[str]:
    return [f"input_{place}" for place in range(len(inputs))]


def _ort_session(path: Path, threads: int) -> Call:
    ort = _package("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def call(inputs: Inputs) -> tuple[Tensor, ...]:
        # Inputs that turned out to be constants are no longer asked for.
        fed = {name: inputs[int(name.rpartition("_")[2])].numpy() for name in names}
        return tuple(map(torch.from_numpy, session.run(None, fed)))

    return call


def onnx_runtime(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """ONNX Runtime, float32."""
    _package("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        return _ort_session(_onnx(module, examples, Path(folder)), threads)


def onnx_runtime_int8(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """ONNX Runtime, convolutions in int8: static post-training quantisation with the examples as calibration."""
    quantization = _package("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self, wanted: set[str]) -> None:
            named = [dict(zip(_names(e), map(Tensor.numpy, e), strict=True)) for e in examples]
            self._feeds = iter([{k: v for k, v in feed.items() if k in wanted} for feed in named])

        def get_next(self) -> Any:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = _onnx(module, examples, folder)
        ort = _package("onnxruntime")
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        wanted = {entry.name for entry in session.get_inputs()}
        logging.getLogger().setLevel(logging.ERROR)
        quantization.quantize_static(
            str(path),
            str(folder / "int8.onnx"),
            Reader(wanted),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            quant_format=quantization.QuantFormat.QDQ,
        )
        return _ort_session(folder / "int8.onnx", threads)


def _openvino_model(module: nn.Module, examples: Sequence[Inputs]) -> Any:
    openvino = _package("openvino")
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = tuple(x.clone() for x in examples[0])
        return openvino.convert_model(copy.deepcopy(module), example_input=plain)


def _openvino_call(model: Any, threads: int, precision: str) -> Call:
    openvino = _package("openvino")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled_model = openvino.Core().compile_model(model, "CPU", settings)
    request = compiled_model.create_infer_request()

    def call(inputs: Inputs) -> tuple[Tensor, ...]:
        request.infer([x.numpy() for x in inputs], share_inputs=True)
        return tuple(torch.from_numpy(output.data.copy()) for output in request.output_tensors)

    return call


def openvino(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """OpenVINO, float32."""
    return _openvino_call(_openvino_model(module, examples), threads, "f32")


def openvino_bfloat16(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """OpenVINO, bfloat16 where it helps."""
    return _openvino_call(_openvino_model(module, examples), threads, "bf16")


def openvino_int8(module: nn.Module, examples: Sequence[Inputs], threads: int) -> Call:
    """OpenVINO after NNCF's static post-training quantisation with the examples as calibration."""
    nncf = _package("nncf")
    import contextlib

    model = _openvino_model(module, examples)
    data = nncf.Dataset([tuple(x.numpy() for x in example) for example in examples])
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        quantized = nncf.quantize(model, data, subset_size=len(examples))
    return _openvino_call(quantized, threads, "f32")


VARIANTS: dict[str, Maker] = {
    "eager": eager,
    "channels_last": channels_last,
    "bf16": bfloat16,
    "weights of one byte": weight_bytes,
    "trace + freeze": traced,
    "compile": compiled,
    "compile bf16": compiled_bfloat16,
    "ONNX Runtime": onnx_runtime,
    "ONNX Runtime int8": onnx_runtime_int8,
    "OpenVINO": openvino,
    "OpenVINO bf16": openvino_bfloat16,
    "OpenVINO int8": openvino_int8,
}
