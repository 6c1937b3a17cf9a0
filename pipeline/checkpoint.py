"""Model folders: JSON configs and safetensors beside a SHA256SUMS file that is checked on loading."""

from __future__ import annotations

import hashlib
import inspect
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pipeline.avatar_pipeline import AvatarPipeline

logger = logging.getLogger(__name__)

SUMS_NAME = "SHA256SUMS"
CHECKED_SUFFIXES = (".json", ".onnx", ".safetensors")
FACE_PARTS = ("drawing.safetensors", "frame_decoder", "motion_encoder", "portrait_encoder")


class CheckpointError(ValueError):
    """A model folder or model config that cannot be used; the message says why and what to do."""


def bundled(name: str) -> Path:
    """Folder of a model that ships with the package, for example `portrait_256`."""
    root = Path(str(resources.files("pipeline"))) / "weights"
    folder = root / name
    if not (folder / "model_index.json").is_file():
        present = sorted(p.parent.name for p in root.glob("*/model_index.json"))
        known = ", ".join(present) if present else "none"
        raise CheckpointError(f"There is no bundled model named '{name}'; bundled models: {known}.")
    return folder


def resolve(name_or_path: str | Path) -> Path:
    """A model folder given by its path or, when no such folder exists, by the name of a bundled model."""
    path = Path(name_or_path)
    if (path / "model_index.json").is_file():
        return path
    if path.exists() or len(path.parts) > 1:
        raise CheckpointError(f"There is no model at {path}: a model's folder holds a model_index.json.")
    return bundled(str(name_or_path))


def write_sums(folder: Path) -> None:
    """Record the SHA-256 of every config and weight file below `folder`."""
    lines = [
        f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in CHECKED_SUFFIXES
    ]
    (folder / SUMS_NAME).write_text("".join(lines), encoding="utf-8")


def verify(folder: Path) -> None:
    """Raise CheckpointError unless all files that SHA256SUMS lists, and all weights, are as recorded."""
    sums = folder / SUMS_NAME
    if not sums.is_file():
        raise CheckpointError(f"{folder} has no {SUMS_NAME}; save the model again with save_pretrained.")
    recorded: dict[str, str] = {}
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        recorded[name] = digest
    for name, digest in recorded.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing, but {SUMS_NAME} lists it; fetch the model again.")
        if _sha256(path) != digest:
            raise CheckpointError(
                f"{path} does not match its recorded SHA-256: it is damaged or was changed; fetch it again."
            )
    for path in folder.rglob("*.safetensors"):
        if path.relative_to(folder).as_posix() not in recorded:
            raise CheckpointError(f"{path} is not listed in {SUMS_NAME}; save the model again.")


def model_sha256(folder: Path) -> str:
    """One digest for the whole model: that of its SHA256SUMS."""
    return _sha256(folder / SUMS_NAME)


def face_sha256(folder: Path) -> str:
    """One digest for what decides how a portrait is drawn: prepared portraits of another one do not fit."""
    lines = (folder / SUMS_NAME).read_text(encoding="utf-8").splitlines()
    parts = [line for line in lines if line.partition("  ")[2].split("/")[0] in FACE_PARTS]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def build(config: Mapping[str, Any] | Path | str, *, seed: int = 0) -> AvatarPipeline:
    """A randomly initialised pipeline from `configs/model/*.yaml` (or the same as a mapping)."""
    import torch

    from pipeline.avatar_pipeline import COMPONENTS, AvatarPipeline

    sections = _read_yaml(Path(config)) if isinstance(config, str | Path) else dict(config)
    place = f"{config}: " if isinstance(config, str | Path) else ""
    unknown = sorted(set(sections) - set(COMPONENTS))
    if unknown:
        raise CheckpointError(
            f"{place}The model config has no section '{unknown[0]}'; the sections are {', '.join(COMPONENTS)}."
        )
    parts: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, component in COMPONENTS.items():
            arguments = dict(sections.get(name) or {})
            known = set(inspect.signature(component.__init__).parameters) - {"self"}
            for key in arguments:
                if key not in known:
                    raise CheckpointError(
                        f"{place}'{key}' is not an option of {name}; its options are {', '.join(sorted(known))}."
                    )
            parts[name] = component(**arguments)
    return AvatarPipeline(**parts)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no model config at {path}.") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} must hold one section per model part, but it holds no mapping.")
    return loaded


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str]) -> int:
    """`python -m pipeline.checkpoint MODEL`: checks the files; prints the model's digest, or what is wrong."""
    try:
        folder = resolve(arguments[0] if arguments else "portrait_256")
        verify(folder)
    except CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    print(model_sha256(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
