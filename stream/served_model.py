"""The model that the configuration names: bundled, a saved folder, or a model YAML with random weights.

`load` gives its processes the pipeline, with torch; `painters` gives the server what draws its motion, without.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from threadpoolctl import threadpool_limits

from pipeline import checkpoint
from pipeline.drawing import DrawingModel, Painter, PreparedPortrait
from stream.config import ModelConfig
from stream.engine_session import Draws

LATENT_SIZE = 40
REASON_CHARACTERS = 300

Painting = Callable[[PreparedPortrait], Draws]


def load(settings: dict[str, Any]) -> Any:
    """The `AvatarPipeline`; settings: `ModelConfig` as a dictionary."""
    name, device = settings["name"], settings["device"]
    folder = None if _is_yaml(name) else checkpoint.resolve(name)  # before the slow imports: it may not exist

    from pipeline.avatar_pipeline import AvatarPipeline
    from pipeline.runtime import RuntimeConfig, prepare

    pipe = checkpoint.build(Path(name)) if folder is None else AvatarPipeline.from_pretrained(folder)
    return prepare(pipe, RuntimeConfig(device=device, threads=settings["threads"], int8=settings["int8"]))


def painters(config: ModelConfig) -> Painting:
    """Makes a painter of a prepared portrait; raises CheckpointError.

    From here on NumPy's products take one thread each in this process: they are small, and a second one that waits for
    the first would cost whoever shares the cores.
    """
    threadpool_limits(1, user_api="blas")
    if _is_yaml(config.name):
        parts = yaml.safe_load(Path(config.name).read_text(encoding="utf-8")) or {}
        model = DrawingModel.first_order((parts.get("frame_decoder") or {}).get("latent_size", LATENT_SIZE))
    else:
        model = DrawingModel.load(checkpoint.resolve(config.name))
    return lambda portrait: Painter(portrait, model)


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def load_from(factory: str, settings: dict[str, Any]) -> Any:
    """`load` of the module of this name."""
    return importlib.import_module(factory).load(settings)


def painters_from(factory: str, config: ModelConfig) -> Painting:
    """`painters` of the module of this name."""
    made: Painting = importlib.import_module(factory).painters(config)
    return made


def refusal(name: str, error: Exception) -> str:
    """Why the model could not be loaded, as a sentence."""
    if isinstance(error, checkpoint.CheckpointError):
        return str(error)
    reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")[:REASON_CHARACTERS]
    return (
        f"The model '{name}' could not be loaded: {reason} ({type(error).__name__}). `--log-level debug` "
        "shows where it stopped."
    )
