"""What server and clients say to each other: session configuration, control messages, statistics, frames.

Only the standard library is imported here, so clients can use it without the server's packages. Everything
travels as JSON (HTTP bodies, data channel, WebSocket text) except the WebSocket's binary audio and frames.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

FPS = 25
SAMPLE_RATE = 48_000
AUDIO_LEAD_S = 0.030
"""Sound is sent this long before the picture of its media time, and the RTP sender reports say so. A browser holds
sound back longer than pictures (58 ms against 11 in Chromium on a busy machine) and makes the picture wait for it."""
DATA_CHANNEL_LABEL = "talkalong"
MAX_MESSAGE_BYTES = 4_096


class ProtocolError(ValueError):
    """A message that cannot be understood; the text says what was wrong and what is expected."""


# --- session configuration ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ControlValues:
    """The speaker's sliders, each 0..2 with 1 the natural amount."""

    expressiveness: float = 1.0
    head_motion: float = 1.0
    gaze: float = 1.0

    def __post_init__(self) -> None:
        for name in ("expressiveness", "head_motion", "gaze"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ProtocolError(f"{name} is {value!r}; it must be a number between 0 and 2.")
            if not 0.0 <= value <= 2.0:
                raise ProtocolError(f"{name} is {value}; it must lie between 0 and 2.")


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """What a client may ask of its session; anything left out is chosen by the server.

    portrait: an id from GET /v1/portraits. hop_frames and right_frames: chunk size and look-ahead in video
    frames of 40 ms. seed: fixes the noise of the diffusion model. token: only for WebSocket clients that
    cannot send an Authorization header. format: WebSocket frames, "jpeg" or "h264".
    """

    portrait: str | None = None
    controls: ControlValues = field(default_factory=ControlValues)
    hop_frames: int | None = None
    right_frames: int | None = None
    seed: int = 0
    format: str = "jpeg"
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.portrait is not None and not isinstance(self.portrait, str):
            raise ProtocolError(f"portrait is {self.portrait!r}; it must be the id of a portrait, as text.")
        for name, low, high in (("hop_frames", 1, 5), ("right_frames", 0, 5)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not low <= value <= high):
                raise ProtocolError(f"{name} is {value!r}; it must be a whole number from {low} to {high}.")
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ProtocolError(f"seed is {self.seed!r}; it must be a whole number from 0 to 2^63 - 1.")
        if self.format not in ("jpeg", "h264"):
            raise ProtocolError(f'format is {self.format!r}; choose "jpeg" or "h264".')
        if self.token is not None and not isinstance(self.token, str):
            raise ProtocolError("token must be text.")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def parse_session_config(text: str | bytes) -> SessionConfig:
    """The session configuration in a JSON object; raises `ProtocolError` for anything it does not know."""
    values = _json_object(text, what="The session configuration")
    values.pop("type", None)
    if "controls" in values:
        values["controls"] = _controls(values["controls"], what="controls")
    return _from_mapping(SessionConfig, values, what="the session configuration")


# --- messages on the data channel and as WebSocket text -----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SetControls:
    """Client to server: move the sliders; the server answers with the same message once applied."""

    values: ControlValues


@dataclass(frozen=True, kw_only=True)
class Ping:
    """Client to server; answered at once with `{"type": "pong", "id": id, "time_s": the server's monotonic clock}`."""

    id: int = 0


@dataclass(frozen=True)
class EndOfAudio:
    """WebSocket client to server: no more audio; the server flushes, sends the rest and closes."""


@dataclass(frozen=True)
class SetRecording:
    """Client to server: begin to record this session on the server (`on`), or stop; answered by a recording message and
    a notice."""

    on: bool
    title: str = ""

    def __post_init__(self) -> None:
        if type(self.on) is not bool or not isinstance(self.title, str):
            raise ProtocolError(
                'A recording message holds "on": true or false, and a title if you like, as text.'
            )


ClientMessage = SetControls | Ping | EndOfAudio | SetRecording


def parse_client_message(text: str | bytes) -> ClientMessage:
    """One control message of a client; raises `ProtocolError` with a sentence that can be sent back."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"The message is {len(text)} bytes long; at most {MAX_MESSAGE_BYTES} are accepted."
        )
    values = _json_object(text, what="A control message")
    kind = values.pop("type", None)
    if kind == "controls":
        return SetControls(values=_controls(values, what="a controls message"))
    if kind == "ping":
        return _from_mapping(Ping, values, what="a ping message")
    if kind == "end":
        return _from_mapping(EndOfAudio, values, what="an end message")
    if kind == "recording":
        if "on" not in values:
            raise ProtocolError('A recording message needs "on": true or false.')
        return _from_mapping(SetRecording, values, what="a recording message")
    raise ProtocolError(
        f'The message type is {kind!r}; the server knows "controls", "ping", "recording" and "end".'
    )


def controls_message(values: ControlValues) -> str:
    return json.dumps({"type": "controls", **dataclasses.asdict(values)})


def pong_message(id: int) -> str:
    """With the server's monotonic clock, in seconds."""
    return json.dumps({"type": "pong", "id": id, "time_s": time.monotonic()})


def notice_message(code: str, message: str, *, level: str = "info") -> str:
    """Something the person should know; `level` is info, warning or error, `message` a whole sentence."""
    return json.dumps({"type": "notice", "level": level, "code": code, "message": message})


def recording_message(recording: Mapping[str, Any] | None) -> str:
    """Server to client whenever a recording begins or ends: `on`, and the recording as GET /v1/recordings has it."""
    on = recording is not None and recording["state"] == "recording"
    return json.dumps({"type": "recording", "on": on, "recording": recording})


def stats_message(stats: SessionStats) -> str:
    return json.dumps({"type": "stats", **dataclasses.asdict(stats)})


# --- statistics --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LatencyBudget:
    """Where the time from mouth to photon goes, in ms. playout_delay is exact, counted from a packet's first
    sample; floor is an estimate of what is outside it (capture, codecs, receiver, screen: Chromium over
    loopback took 13 ms beyond the playout delay)."""

    hop_ms: float
    right_context_ms: float
    step_allowance_ms: float
    margin_ms: float
    floor_ms: float = 25.0

    @property
    def playout_delay_ms(self) -> float:
        return self.hop_ms + self.right_context_ms + self.step_allowance_ms + self.margin_ms

    @property
    def mouth_to_photon_ms(self) -> float:
        return self.playout_delay_ms + self.floor_ms

    def to_dict(self) -> dict[str, float]:
        parts = {key: round(value, 1) for key, value in dataclasses.asdict(self).items()}
        return parts | {
            "playout_delay_ms": round(self.playout_delay_ms, 1),
            "mouth_to_photon_ms": round(self.mouth_to_photon_ms, 1),
        }

    def sentence(self) -> str:
        return (
            f"hop {self.hop_ms:.0f} + look-ahead {self.right_context_ms:.0f} "
            f"+ step {self.step_allowance_ms:.0f} + margin {self.margin_ms:.0f} "
            f"= playout delay {self.playout_delay_ms:.0f} ms; with about {self.floor_ms:.0f} ms for capture, "
            f"network and screen: {self.mouth_to_photon_ms:.0f} ms from mouth to photon"
        )


@dataclass(frozen=True, kw_only=True)
class SessionStats:
    """One session's figures, pushed each second and served at GET /v1/sessions/{id}/stats.

    Counters count from the start of the session; fps_sent, miss_ratio, loss_ratio, step and buffer figures
    describe the last seconds. Due frames are the 40 ms slots of media time; a miss is one whose own frame was not
    there in time (the last one was repeated); late frames came after their slot; skipped frames were left out under
    overload or while the model restarted; slow: so many are missed, again and again, that this machine is too slow for
    the session; the delay is raised when the model is late again and again; concealed audio was lost or late on its
    way here and filled in.
    """

    session_id: str
    state: str  # connecting, live, restarting (the model is coming back), closed
    portrait: str
    codec: str = ""
    uptime_s: float = 0.0
    media_time_s: float = 0.0
    fps_sent: float = 0.0
    frames_sent: int = 0
    frames_due: int = 0
    frames_missed: int = 0
    frames_late: int = 0
    frames_skipped: int = 0
    miss_ratio: float = 0.0
    slow: bool = False
    reanchors: int = 0
    delay_raised_ms: float = 0.0
    audio_buffer_ms: float = 0.0
    video_buffer_ms: float = 0.0
    windows_queued: int = 0
    audio_underrun_ms: float = 0.0
    audio_concealed_ms: float = 0.0
    packets_lost: int = 0
    loss_ratio: float = 0.0
    uplink_jitter_ms: float = 0.0
    rtt_ms: float = 0.0
    step_ms: dict[str, float] = field(default_factory=dict)  # p50, p99
    stages_ms: dict[str, float] = field(default_factory=dict)  # features, denoise, draw
    denoising_steps: int = 0
    engine_restarts: int = 0
    mouth_to_photon_ms: float = 0.0
    budget: dict[str, float] = field(default_factory=dict)  # see LatencyBudget.to_dict
    controls: dict[str, float] = field(default_factory=dict)
    viewers: int = 0  # who watch it by WHEP
    recording: dict[str, Any] = field(
        default_factory=dict
    )  # id, seconds, bytes, dropped_*; empty: not recorded


@dataclass(kw_only=True)
class ChunkTrace:
    """The way of one chunk through the server (GET /v1/sessions/{id}/chunks); seconds of the server's own monotonic
    clock, which a `pong` tells.

    packet_rtp: RTP time stamp of the packet that completed the chunk's window; packet_end: one past its last sample at
    48 kHz, and first_frame the chunk's first frame, both counted from the start of the speaker's stream. picture_rtp:
    RTP time stamp of the picture that shows the first frame. arrived: the packet came off the wire; complete: its
    window was cut; started: the model began; made: the frames were back; shown: the picture's slot began; encoded: it
    left.
    """

    chunk: int
    first_frame: int
    packet_rtp: int
    packet_end: int
    arrived_s: float
    complete_s: float
    started_s: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)
    made_s: float = 0.0
    shown_s: float = 0.0
    encoded_s: float = 0.0
    picture_rtp: int = 0


# --- WebSocket frames --------------------------------------------------------------------------

FRAME_MAGIC = b"TKF1"
FRAME_HEADER = struct.Struct("<4sBBHIQ")
FRAME_FORMATS = ("jpeg", "h264")
KEY_FRAME = 1


@dataclass(frozen=True, kw_only=True)
class EncodedFrame:
    """One picture of the WebSocket: `media_time_us` counts from the first audio sample that was sent."""

    format: str
    key_frame: bool
    index: int
    media_time_us: int
    data: bytes

    def pack(self) -> bytes:
        """20 header bytes, little endian (magic, format, flags, 0, index, media time), then the picture."""
        flags = KEY_FRAME if self.key_frame else 0
        code = FRAME_FORMATS.index(self.format)
        return FRAME_HEADER.pack(FRAME_MAGIC, code, flags, 0, self.index, self.media_time_us) + self.data

    @classmethod
    def unpack(cls, message: bytes) -> EncodedFrame:
        if len(message) < FRAME_HEADER.size or message[:4] != FRAME_MAGIC:
            raise ProtocolError("The binary message is not a frame: it does not begin with TKF1.")
        _, code, flags, _, index, media_time_us = FRAME_HEADER.unpack_from(message)
        if code >= len(FRAME_FORMATS):
            raise ProtocolError(f"The frame has format {code}, which this client does not know; update it.")
        return cls(
            format=FRAME_FORMATS[code],
            key_frame=bool(flags & KEY_FRAME),
            index=index,
            media_time_us=media_time_us,
            data=message[FRAME_HEADER.size :],
        )


# --- reading JSON ------------------------------------------------------------------------------


def _json_object(text: str | bytes, *, what: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{what} must be a JSON object, but is not valid JSON ({error}).") from error
    if not isinstance(values, dict):
        raise ProtocolError(f"{what} must be a JSON object, but is a {type(values).__name__}.")
    return values


def _from_mapping(cls: type[T], values: Mapping[str, Any], *, what: str) -> T:
    known = [item.name for item in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        listed = ", ".join(known) or "nothing else"
        raise ProtocolError(f"{unknown[0]!r} is not part of {what}; it may hold {listed}.")
    return cls(**values)


def _controls(values: Any, *, what: str) -> ControlValues:
    if not isinstance(values, dict):
        raise ProtocolError(f"{what} must be a JSON object, but is a {type(values).__name__}.")
    return _from_mapping(ControlValues, values, what=what)
