"""Reads a training stage's YAML into its frozen dataclass; an unknown or missing key is an error that names it."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

MODEL = Path("configs/model/portrait_256.yaml")
SettingsT = TypeVar("SettingsT")
_TYPES: dict[str, type | tuple[type, ...]] = {"float": (int, float), "int": int, "str": str, "bool": bool}


def load_settings(kind: type[SettingsT], path: Path) -> SettingsT:
    """Builds `kind` from the YAML at `path`.

    Raises:
        ValueError: a key is unknown, missing, or of the wrong type; the message names key and file.
    """
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold one 'key: value' a line.")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"{path}: unknown key '{key}'. Known keys: {', '.join(known)}.")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{path}: the key '{name}' is missing.")
    for name, value in values.items():
        wanted = _TYPES.get(str(known[name].type))
        # To Python True is also an int.
        if wanted is not None and (
            not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool)
        ):
            raise ValueError(f"{path}: '{name}' should be of type {known[name].type}, found {value!r}.")
    return kind(**values)


def model_part(model: Path, name: str, **fixed: Any) -> dict[str, Any]:
    """The arguments of one part of a model config (configs/model/*.yaml); `fixed` ones win.

    Raises:
        ValueError: the file holds no such part.
    """
    parts = yaml.safe_load(model.read_text(encoding="utf-8"))
    if not isinstance(parts, dict) or name not in parts:
        raise ValueError(f"{model} says nothing of {name}; take a model config like {MODEL}.")
    return dict(parts[name] or {}) | fixed
