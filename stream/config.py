"""The server's configuration: frozen dataclasses filled from a thin YAML file.

An unknown key, a missing section or a value of the wrong type is a `ConfigError` that names key and file.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from stream.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Where the server listens. `cors_origins`: pages of other origins that may call the API."""

    host: str = "127.0.0.1"
    port: int = 8080
    cors_origins: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class IceServerConfig:
    urls: str
    username: str | None = None
    credential: str | None = None


@dataclass(frozen=True, kw_only=True)
class IceConfig:
    """loopback: also offer 127.0.0.1, so that a machine without a network can talk to itself.
    private_candidates: accept peers on private addresses; turn it off on a public server."""

    servers: tuple[IceServerConfig, ...] = ()
    loopback: bool = True
    private_candidates: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """name: a bundled model, a folder saved by `save_pretrained`, or a model YAML (random weights, tests).
    factory: "module:function" that loads it in the model process. steps: denoising steps, None for the
    model's own; min_steps: what overload may reduce them to. threads: CPU threads, 0 for torch's choice.
    int8: on a CPU, large linear layers read weights of one byte (`pipeline.quantization`)."""

    name: str = "portrait_256"
    factory: str = "stream.model_process:load_pipeline"
    device: str = "auto"
    steps: int | None = None
    min_steps: int = 1
    threads: int = 0
    int8: bool = True
    nice: int = 5
    warm_up_windows: int = 12
    hang_timeout_s: float = 10.0
    start_timeout_s: float = 120.0
    max_restarts_per_minute: int = 6


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """Chunking, delay and codecs. hop_frames None: chunks of one frame while the machine keeps up with them, else of
    two (`stream.pace`). step_allowance_ms None: measured at warm-up, within the two limits.
    margin_ms covers scheduling and network jitter. conceal_after_ms: audio overdue by this is filled in."""

    hop_frames: int | None = None
    right_frames: int = 2
    step_allowance_ms: float | None = None
    min_step_allowance_ms: float = 15.0
    max_step_allowance_ms: float = 120.0
    margin_ms: float = 10.0
    floor_ms: float = 25.0
    conceal_after_ms: float = 60.0
    video_codecs: tuple[str, ...] = ("video/H264", "video/VP8")
    video_bitrate_kbps: int = 1200
    max_video_bitrate_kbps: int = 2500
    jpeg_quality: int = 85


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    sessions: int = 4
    sessions_per_address: int = 4
    session_minutes: float = 240.0
    connect_timeout_s: float = 20.0
    close_timeout_s: float = 3.0
    sdp_bytes: int = 65_536
    candidates: int = 20
    portrait_bytes: int = 8_000_000
    portrait_pixels: int = 16_000_000
    uploaded_portraits: int = 32
    messages_per_second: int = 20


@dataclass(frozen=True, kw_only=True)
class SecurityConfig:
    """token: bearer token for every POST, PATCH and DELETE; None leaves the API open (fine on localhost).
    The environment variable TALKALONG_TOKEN, when set, takes precedence."""

    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class PortraitsConfig:
    """default: the portrait of a session that names none (None: the first of the gallery).
    uploads_directory: keeps uploads and their consent records; None keeps both in memory only."""

    default: str | None = None
    uploads_directory: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    network: NetworkConfig = field(default_factory=NetworkConfig)
    ice: IceConfig = field(default_factory=IceConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    portraits: PortraitsConfig = field(default_factory=PortraitsConfig)


def load_config(path: Path) -> ServeConfig:
    """The configuration in a YAML file; raises `ConfigError`."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror or error}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    return _build(ServeConfig, {} if values is None else values, path=path, where="")


def _build(cls: type[T], values: Any, *, path: Path, where: str) -> T:
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {where.rstrip('.') or 'the file'} must hold keys and values.")
    hints = typing.get_type_hints(cls)
    known = [item.name for item in dataclasses.fields(cls)]  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {where}{key}; known here are {', '.join(known)}.")
        arguments[key] = _convert(hints[key], value, path=path, where=f"{where}{key}")
    return cls(**arguments)


def _convert(hint: Any, value: Any, *, path: Path, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, path=path, where=f"{where}.")
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: {where} must be a list.")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, entry, path=path, where=f"{where}[{i}]") for i, entry in enumerate(value))
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed:
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
        raise ConfigError(f"{path}: {where} is {value!r}, but must be {names}.")
    return value
