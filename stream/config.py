"""The server's configuration: frozen dataclasses filled from a thin YAML file.

An unknown key, a missing section or a value of the wrong type is a `ConfigError` that names key and file.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pipeline.picture_limits import LIMITS
from stream.errors import ConfigError

T = TypeVar("T")

ICE_URL = re.compile(
    r"stun:[^?:\s/]+(:\d{1,5})?|turn:[^?:\s/]+(:\d{1,5})?(\?transport=(udp|tcp))?|"
    r"turns:[^?:\s/]+(:\d{1,5})?(\?transport=tcp)?"
)
ICE_POLICIES = ("all", "relay")
LAST_PORT = 65_535


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Where the server listens. `cors_origins`: pages of other origins that may call the API. certificate and key:
    PEM files; with both the server speaks https."""

    host: str = "127.0.0.1"
    port: int = 8080
    cors_origins: tuple[str, ...] = ()
    certificate: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= LAST_PORT:
            raise ConfigError(
                f"{self.port} is no port to listen on; take one from 1 to {LAST_PORT}, or 0 for any free one."
            )
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("network.certificate and network.key belong together; give both, or neither.")


@dataclass(frozen=True, kw_only=True)
class IceServerConfig:
    """urls: one `stun:`, `turn:` or `turns:` address (RFC 7064, RFC 7065). A TURN server has a fixed `username` and
    `credential`, or a `secret`: coturn's static-auth-secret, of which credentials are made for each session. The
    environment variable TALKALONG_TURN_SECRET is the secret of every TURN server with neither."""

    urls: str
    username: str | None = None
    credential: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not ICE_URL.fullmatch(self.urls):
            raise ConfigError(
                f"'{self.urls}' is not the address of an ICE server; write stun:HOST:PORT, turn:HOST:PORT, "
                "turn:HOST:PORT?transport=tcp or turns:HOST:PORT, with a name in place of an IPv6 address."
            )
        if self.secret is not None and (self.username is not None or self.credential is not None):
            raise ConfigError(
                f"{self.urls} has a secret and a fixed username or credential; keep one of them."
            )
        if (self.username is None) != (self.credential is None):
            raise ConfigError(f"{self.urls} has a username or a credential without the other.")
        if self.secret == "":
            raise ConfigError(f"{self.urls} has an empty secret.")
        if not f"{self.username}{self.credential}".isascii():
            raise ConfigError(f"The username and the credential of {self.urls} must be plain ASCII text.")

    @property
    def relays(self) -> bool:
        return self.urls.startswith("turn")


@dataclass(frozen=True, kw_only=True)
class IceConfig:
    """How sound and picture get through; docs/reachability.md.

    loopback: also offer 127.0.0.1, so that a machine without a network can talk to itself.
    private_candidates: accept peers on private addresses; turn it off on a public server.
    port_range: first and last UDP port of the server's own sockets; empty for any. A session takes one of them.
    public_address: on a machine behind 1:1 NAT (most clouds, Docker), the address that others see; also as
    PUBLIC/PRIVATE where the machine has several addresses.
    policy: "relay" makes the server talk through its TURN server only; client_policy: the same for clients.
    credential_minutes: how long made credentials are valid; None for a session's longest time and ten minutes.
    """

    servers: tuple[IceServerConfig, ...] = ()
    loopback: bool = True
    private_candidates: bool = True
    port_range: tuple[int, ...] = ()
    public_address: str | None = None
    policy: str = "all"
    client_policy: str = "all"
    credential_minutes: float | None = None

    def __post_init__(self) -> None:
        if self.port_range and not (
            len(self.port_range) == 2 and 1024 <= self.port_range[0] <= self.port_range[1] <= 65_535
        ):
            raise ConfigError(
                f"ice.port_range is {list(self.port_range)}; it needs the first and the last port, between 1024 "
                "and 65535, for example [50000, 50100]."
            )
        for part in (self.public_address or "127.0.0.1").split("/", 1):
            try:
                ipaddress.IPv4Address(part)
            except ValueError:
                raise ConfigError(
                    f"ice.public_address is '{self.public_address}'; write an IPv4 address, or PUBLIC/PRIVATE."
                ) from None
        for name in ("policy", "client_policy"):
            value = getattr(self, name)
            if value not in ICE_POLICIES:
                raise ConfigError(f"ice.{name} is '{value}'; choose one of {', '.join(ICE_POLICIES)}.")
            if value == "relay" and not any(server.relays for server in self.servers):
                raise ConfigError(
                    f"ice.{name} is 'relay', but ice.servers has no TURN server to relay through."
                )
        if self.credential_minutes is not None and self.credential_minutes <= 0:
            raise ConfigError("ice.credential_minutes must be positive.")


SERVED_MODEL = "stream.served_model"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """name: a bundled model, a folder saved by `save_pretrained`, or a model YAML (random weights, tests).
    factory: the module whose `load` and `painters` make it. steps: denoising steps, None for the model's own;
    min_steps: what overload may reduce them to. threads: CPU threads, 0 for torch's choice.
    int8: on a CPU, large linear layers read weights of one byte (`pipeline.quantization`)."""

    name: str = "portrait_256"
    factory: str = SERVED_MODEL
    device: str = "auto"
    steps: int | None = None
    min_steps: int = 1
    threads: int = 0
    int8: bool = True
    nice: int = 5
    warm_up_windows: int = 20
    hang_timeout_s: float = 10.0
    start_timeout_s: float = 120.0
    max_restarts_per_minute: int = 6

    @property
    def has_own_drawing(self) -> bool:
        """Whether its portraits take time to prepare, so that they are kept; those of stand-ins do not."""
        return self.factory == SERVED_MODEL


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
    """sessions: at most, where the machine carries so many (`stream.pace`). portrait_pixels: of JPEGs, decoded
    small; portrait_whole_pixels: of PNG, WebP and progressive JPEG."""

    sessions: int = 16
    sessions_per_address: int = 4
    session_minutes: float = 240.0
    connect_timeout_s: float = 20.0
    close_timeout_s: float = 3.0
    sdp_bytes: int = 65_536
    candidates: int = 20
    portrait_bytes: int = LIMITS.bytes
    portrait_pixels: int = LIMITS.pixels
    portrait_whole_pixels: int = LIMITS.whole_pixels
    uploaded_portraits: int = 32
    messages_per_second: int = 20
    viewers: int = 32
    viewers_per_address: int = 16


@dataclass(frozen=True, kw_only=True)
class SecurityConfig:
    """token: bearer token for every POST, PATCH and DELETE; None leaves the API open (fine on localhost).
    viewer_token: one that allows no more than to watch; None: viewers need the token too.
    The environment variables TALKALONG_TOKEN and TALKALONG_VIEWER_TOKEN, when set, take precedence."""

    token: str | None = field(default=None, repr=False)
    viewer_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class PortraitsConfig:
    """default: the portrait of a session that names none (None: the first of the gallery).
    uploads_directory: keeps uploads and their consent records: a folder, or auto for the person's own data
    directory (docs/portraits.md); None keeps both in memory only. The environment variable TALKALONG_UPLOADS,
    a folder or the word memory, takes precedence."""

    default: str | None = None
    uploads_directory: str | None = "auto"


@dataclass(frozen=True, kw_only=True)
class RecordingConfig:
    """allowed: clients may begin and end recordings of their sessions; every_session: all are recorded, from their
    start (where allowed is false, nobody can end that). max_minutes and max_megabytes: of one file; go_on: begins a new
    one there instead of ending. total_megabytes: of the folder; min_free_megabytes: what recording leaves free on the
    disk; both end a recording."""

    allowed: bool = False
    every_session: bool = False
    directory: str = "recordings"
    max_minutes: float = 120.0
    max_megabytes: float = 2_000.0
    go_on: bool = False
    total_megabytes: float = 20_000.0
    min_free_megabytes: float = 1_000.0


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    network: NetworkConfig = field(default_factory=NetworkConfig)
    ice: IceConfig = field(default_factory=IceConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    portraits: PortraitsConfig = field(default_factory=PortraitsConfig)
    recording: RecordingConfig = field(default_factory=RecordingConfig)


def load_config(path: Path) -> ServeConfig:
    """The configuration in a YAML file; raises `ConfigError`."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror or error}.") from error
    except yaml.YAMLError as error:
        # Without PyYAML's own text: it quotes the lines, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}: {getattr(error, 'problem', None)})" if mark is not None else ""
        raise ConfigError(f"{path} is not valid YAML{where}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8, so it is no configuration.") from None
    except (ValueError, RecursionError):  # a date that no calendar has, brackets without end
        raise ConfigError(f"{path} is YAML that cannot be read.") from None
    return _build(ServeConfig, {} if values is None else values, path=path, where="")


def _build(cls: type[T], values: Any, *, path: Path, where: str) -> T:
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {where.rstrip('.') or 'the file'} must hold keys and values.")
    hints = typing.get_type_hints(cls)
    known = [item.name for item in dataclasses.fields(cls)]  # type: ignore[arg-type]
    secrets = {item.name for item in dataclasses.fields(cls) if not item.repr}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {where}{key}; known here are {', '.join(known)}.")
        place = f"{where}{key}"
        arguments[key] = _convert(hints[key], value, path=path, where=place, secret=key in secrets)
    missing = [
        item.name
        for item in dataclasses.fields(cls)  # type: ignore[arg-type]
        if item.name not in arguments
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{path}: {where}{missing[0]} is missing.")
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _convert(hint: Any, value: Any, *, path: Path, where: str, secret: bool = False) -> Any:
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
        if secret:
            raise ConfigError(f"{path}: {where} must be {names}; put it into quotes.")
        raise ConfigError(f"{path}: {where} is {value!r}, but must be {names}.")
    return value
