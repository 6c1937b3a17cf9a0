"""A server whose delay is known: it echoes the voice and opens a drawn mouth with it, after what it was told.

    python -m client.latency.reference_server PORT

`POST /offer?session=a&delay_ms=120&jitter_ms=10&muted=1` takes and gives `{sdp, type}`. `POST /began?session=a&at=S`
says when the first sound is spoken, on this machine's monotonic clock: delays are counted from there, so that they are
known exactly, whatever the way here takes. The harness measures itself against it, in a process of its own so that the
two do not wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import sys
import time
from collections.abc import AsyncIterator

import av
import numpy as np
import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from fastapi import FastAPI
from pydantic import BaseModel

from stream.protocol import FPS, SAMPLE_RATE

PACKET = SAMPLE_RATE // 50
LOUD = 2_000  # of int16
HOLD_S = 0.06  # a mouth stays open between two periods of a voice
HOLD_SAMPLES = round(HOLD_S * SAMPLE_RATE)
WAY_S = 0.2  # enough for capture, network and this server's own jitter buffer
SIDE = 96  # small: six sessions at once must not make each other late
MOUTH_ROWS, MOUTH_COLUMNS = slice(60, 75), slice(35, 61)


class Description(BaseModel):
    sdp: str
    type: str


class Voice:
    """What was heard, on a timeline that is exact to the sample: what is spoken at t is due at t + WAY_S + delay.

    first_s: when the first sound is spoken. Where it lies in what arrives gives all other times.
    """

    def __init__(self, *, delay_s: float, jitter_s: float, seed: int) -> None:
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self._rng = np.random.default_rng(seed)
        self.first_s = np.nan
        self._base_s = np.nan
        self._pcm = np.zeros(0, np.int16)
        self._openings: list[tuple[float, float]] = []
        self._last_loud = -HOLD_SAMPLES

    def push(self, position: int, pcm: np.ndarray) -> None:
        """int16 samples from `position` on."""
        padded = np.zeros(max(len(self._pcm), position + len(pcm)), np.int16)
        padded[: len(self._pcm)] = self._pcm
        padded[position : position + len(pcm)] = pcm
        self._pcm = padded
        for at in (position + np.flatnonzero(np.abs(pcm.astype(int)) > LOUD)).tolist():
            if not np.isfinite(self._base_s):
                self._base_s = self.first_s - at / SAMPLE_RATE + WAY_S
            due = self._base_s + at / SAMPLE_RATE + self._delay_s
            if (
                at - self._last_loud >= HOLD_SAMPLES
            ):  # one draw for each sound: all of its opening is that late
                self._openings.append((due + self._rng.uniform(0, 2 * self._jitter_s), 0.0))
            start, _ = self._openings[-1]
            self._openings[-1] = (start, due + self._jitter_s + HOLD_S)
            self._last_loud = at

    def open_at(self, now: float) -> bool:
        return any(start <= now < end for start, end in self._openings[-4:])

    def samples(self, now: float) -> np.ndarray:
        """The int16 [PACKET] samples that are due from `now` on."""
        out = np.zeros(PACKET, np.int16)
        if np.isfinite(self._base_s):
            first = round((now - self._base_s - self._delay_s) * SAMPLE_RATE)
            part = self._pcm[max(first, 0) : max(first + PACKET, 0)]
            out[PACKET - len(part) if first < 0 else 0 :][: len(part)] = part
        return out


class Picture(MediaStreamTrack):
    """25 drawn faces a second."""

    kind = "video"

    def __init__(self, voice: Voice, *, muted: bool) -> None:
        super().__init__()
        self._voice, self._muted = voice, muted
        self._start_s = time.monotonic()
        self._index = 0
        self._faces = {open_: _face(open_) for open_ in (False, True)}

    async def recv(self) -> av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(max(0.0, self._start_s + self._index / FPS - time.monotonic()))
        open_ = not self._muted and self._voice.open_at(time.monotonic())
        frame = av.VideoFrame.from_ndarray(self._faces[open_], format="gray").reformat(format="yuv420p")
        frame.pts, frame.time_base = self._index * 3_600, fractions.Fraction(1, 90_000)
        self._index += 1
        return frame


class Echo(MediaStreamTrack):
    """The voice again, later; silence while none is due."""

    kind = "audio"

    def __init__(self, voice: Voice) -> None:
        super().__init__()
        self._voice = voice
        self._start_s = time.monotonic()
        self._position = 0

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(max(0.0, self._start_s + self._position / SAMPLE_RATE - time.monotonic()))
        pcm = self._voice.samples(self._start_s + self._position / SAMPLE_RATE)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._position
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self._position += PACKET
        return frame


def _face(open_: bool) -> np.ndarray:
    """uint8 [SIDE, SIDE]: a bright oval with eyes and a mouth that is a line or a hole."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    face = np.where(((rows - 48) / 42) ** 2 + ((columns - 48) / 32) ** 2 < 1, 190, 60)
    for centre in (35, 61):
        face[(rows - 38) ** 2 + (columns - centre) ** 2 < 16] = 40
    mouth = face[MOUTH_ROWS, MOUTH_COLUMNS]
    if open_:
        mouth[:] = 30
    else:
        mouth[6:9] = 90
    return face.astype(np.uint8)


def make_app() -> FastAPI:
    peers: set[RTCPeerConnection] = set()
    tasks: set[asyncio.Task[None]] = set()
    voices: dict[str, Voice] = {}

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(peer.close() for peer in peers), return_exceptions=True)

    app = FastAPI(lifespan=lifespan)

    @app.post("/offer")
    async def offer(
        offered: Description,
        session: str = "",
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        muted: bool = False,
        seed: int = 0,
    ) -> Description:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peers.add(peer)
        voice = voices[session] = Voice(delay_s=delay_ms / 1_000, jitter_s=jitter_ms / 1_000, seed=seed)

        @peer.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            tasks.add(asyncio.create_task(_listen(track, voice)))

        await peer.setRemoteDescription(RTCSessionDescription(offered.sdp, offered.type))
        peer.addTrack(Echo(voice))
        peer.addTrack(Picture(voice, muted=muted))
        await peer.setLocalDescription(await peer.createAnswer())
        return Description(sdp=peer.localDescription.sdp, type=peer.localDescription.type)

    @app.post("/began", status_code=204)
    async def began(session: str, at: float) -> None:
        voices[session].first_s = at

    return app


async def _listen(track: MediaStreamTrack, voice: Voice) -> None:
    with contextlib.suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            if isinstance(frame, av.AudioFrame):
                channels = len(frame.layout.channels)
                pcm = frame.to_ndarray().reshape(-1, channels)[:, 0].astype(np.int16)
                voice.push(frame.pts or 0, pcm)


def main() -> None:
    uvicorn.run(make_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
