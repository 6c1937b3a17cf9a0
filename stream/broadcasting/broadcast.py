"""Those who watch a session: one name, shared encoders, any number of viewers up to the server's limit."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from stream.broadcasting.shared_encoder import SharedAudio, SharedVideo
from stream.clock import SLOT_SAMPLES
from stream.config import ServeConfig
from stream.errors import BadRequestError, ConflictError, NotLiveError, TooManySessionsError, UnavailableError
from stream.portraits.entry import Entry
from stream.protocol import SAMPLE_RATE
from stream.released import Released

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME_BYTES = 16
NOT_LIVE_RETRY_S = 2
SILENT_S = 3.0  # a publisher of whom nothing has come for so long may be replaced by another of the same name
SPARE_SLOTS = 5  # sound is ahead of its picture
FULL_RETRY_S = 10


def new_name() -> str:
    """128 random bits: knowing a stream's name is the right to watch it."""
    return secrets.token_hex(NAME_BYTES)


def check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise BadRequestError(
            "The name of a stream has 1 to 64 letters, digits, '-' and '_' (for example: studio-1).",
            code="bad_stream_name",
        )
    return name


class Broadcast:
    """What a session releases, for its viewers. Costs nothing while there are none.

    A session that goes may leave it to the next (`detach`, `attach`): the viewers see the last picture in between, and
    their timeline goes on.
    """

    def __init__(self, name: str, *, released: Released, entry: Entry, bit_rate: int) -> None:
        self.name = name
        self.entry = entry
        self.ended = asyncio.Event()
        self.viewers = 0
        self.audio = SharedAudio()
        self._released: Released | None = released
        self._offset: int | None = (
            0  # from the session's timeline to that of the viewers; None until it is known
        )
        self._last = 0  # on theirs
        self._last_at = time.monotonic()
        self._bit_rate = bit_rate
        self._videos: dict[str, SharedVideo] = {}

    def video(self, codec: str) -> SharedVideo:
        """The pictures in this codec (H264 or VP8)."""
        if codec not in self._videos:
            self._videos[codec] = SharedVideo(codec, bit_rate=self._bit_rate, on_error=self._fail)
        return self._videos[codec]

    def enter(self) -> None:
        """One viewer more; the first makes the session's sound and pictures come here."""
        self.viewers += 1
        if self.viewers == 1 and self._released is not None:
            self._released.add(self)

    async def leave(self) -> None:
        """One viewer less; after the last, the encoders go."""
        self.viewers -= 1
        if not self.viewers:
            if self._released is not None:
                self._released.remove(self)
            videos, self._videos = self._videos, {}
            self.audio = SharedAudio()
            await asyncio.gather(*(video.aclose() for video in videos.values()))

    def detach(self) -> None:
        """From its session, which may end now without ending this."""
        if self._released is not None:
            self._released.remove(self)
        self._released = None

    def attach(self, released: Released, entry: Entry) -> None:
        """To another session."""
        self._released, self.entry = released, entry
        self._offset = None if self.viewers else 0
        if self.viewers:
            released.add(self)

    def _place(self, position: int) -> int:
        """On the viewers' timeline, whole slots from the session's: as much later than the last as time has passed."""
        now = time.monotonic()
        if self._offset is None:
            slots = (
                self._last - position + (now - self._last_at) * SAMPLE_RATE
            ) // SLOT_SAMPLES + SPARE_SLOTS
            self._offset = int(slots) * SLOT_SAMPLES
        placed = position + self._offset
        if placed > self._last:
            self._last, self._last_at = placed, now
        return placed

    def on_picture(self, position: int, yuv: npt.NDArray[np.uint8], fresh: bool) -> None:
        position = self._place(position)
        for video in self._videos.values():
            video.push(position, yuv)

    def on_sound(self, position: int, pcm: npt.NDArray[np.int16]) -> None:
        self.audio.push(self._place(position), pcm)

    def on_end(self) -> None:
        self.ended.set()

    def end(self) -> None:
        """The session has gone; every viewer ends."""
        self.ended.set()

    def _fail(self, error: Exception) -> None:
        logger.error("the pictures of stream %s cannot be encoded", self.name[:8], exc_info=error)
        self.ended.set()


class Broadcasts:
    """All streams by name, and who is let in to watch. Event loop only."""

    def __init__(self, config: ServeConfig) -> None:
        self._limits = config.limits
        self._bit_rate = 1000 * config.media.video_bitrate_kbps
        self._streams: dict[str, Broadcast] = {}
        self._addresses: Counter[str] = Counter()

    def __len__(self) -> int:
        """Viewers now."""
        return self._addresses.total()

    def check_free(self, name: str) -> None:
        if name in self._streams:
            raise ConflictError(
                f"Somebody publishes as '{name}' already; end that, or choose another name. One who has gone without a "
                f"word leaves it after {SILENT_S:.0f} s.",
                code="stream_in_use",
                retry_after_s=round(SILENT_S),
            )

    def open(self, name: str, *, released: Released, entry: Entry) -> Broadcast:
        self.check_free(name)
        stream = Broadcast(name, released=released, entry=entry, bit_rate=self._bit_rate)
        self._streams[name] = stream
        return stream

    def close(self, stream: Broadcast | None) -> None:
        """Idempotent; nothing for None."""
        if stream is None:
            return
        stream.end()
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]

    def get(self, name: str) -> Broadcast:
        """The stream that is live under this name; draft-ietf-wish-whep, 4.2: 409 and Retry-After where none is."""
        stream = self._streams.get(check_name(name))
        if stream is None or stream.ended.is_set():
            raise NotLiveError(
                "Nobody is publishing here now; try again in a few seconds.", retry_after_s=NOT_LIVE_RETRY_S
            )
        return stream

    def enter(self, address: str) -> Callable[[], None]:
        """Count a viewer from this address, or refuse it; call what is returned, once, when it has gone."""
        if len(self) >= self._limits.viewers:
            raise UnavailableError(
                f"The server is full: {self._limits.viewers} are watching, the most it allows. Try again soon.",
                code="viewers_full",
                retry_after_s=FULL_RETRY_S,
            )
        if self._addresses[address] >= self._limits.viewers_per_address:
            raise TooManySessionsError(
                f"{self._addresses[address]} are watching from your address, the most this server allows; "
                "close one first."
            )
        self._addresses[address] += 1

        def leave() -> None:
            self._addresses[address] -= 1
            if self._addresses[address] <= 0:
                del self._addresses[address]

        return leave
