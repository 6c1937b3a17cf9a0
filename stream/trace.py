"""The way of each chunk through the server: when its last packet came, when the model had it, when its picture left.

One record per chunk, under the chunk's own number, on the server's monotonic clock; `client.latency.spans` sets them
beside what the receiver saw. Cheap enough to run always: a few dictionary writes per chunk.
"""

from __future__ import annotations

from collections import deque

from stream.engine_session import EngineFrames
from stream.protocol import ChunkTrace

KEPT = 600
OPEN = 64  # chunks and pictures on their way; what never arrives is forgotten


class Traces:
    """Told by a session's parts what happened; `after` gives the finished records. Event loop only."""

    def __init__(self) -> None:
        self._finished: deque[ChunkTrace] = deque(maxlen=KEPT)
        self._open: dict[int, ChunkTrace] = {}  # by first frame
        self._shown: dict[int, ChunkTrace] = {}  # by the picture's time stamp
        self._packet: tuple[int, float] | None = None

    def packet(self, arrival: tuple[int, float] | None) -> None:
        """What is added now came in the packet with this RTP time stamp, at this time; None: in none."""
        self._packet = arrival

    def window(self, chunk: int, first_frame: int, end: int, complete_s: float) -> None:
        """A window is complete, with the stream `end` samples long. One that was completed by concealed sound is
        not traced."""
        if self._packet is None:
            return
        timestamp, arrived_s = self._packet
        self._open[first_frame] = ChunkTrace(
            chunk=chunk,
            first_frame=first_frame,
            packet_rtp=timestamp,
            packet_end=end,
            arrived_s=arrived_s,
            complete_s=complete_s,
        )
        _bound(self._open)

    def made(self, frames: EngineFrames, made_s: float) -> None:
        trace = self._open.get(frames.first_frame)
        if trace is not None and frames.cost is not None:
            trace.started_s = frames.cost.started_s
            trace.stages_ms = frames.cost.stages_ms
            trace.made_s = made_s

    def shown(self, frame: int, timestamp: int, shown_s: float) -> None:
        """Picture `frame` was released in its own slot, with this time stamp before the sender's offset."""
        trace = self._open.pop(frame, None)
        if trace is not None:
            trace.shown_s = shown_s
            self._shown[timestamp] = trace
            _bound(self._shown)

    def sent(self, timestamp: int, rtp: int, encoded_s: float) -> None:
        """The picture with this time stamp was encoded, and sent with the RTP time stamp `rtp`."""
        trace = self._shown.pop(timestamp, None)
        if trace is not None:
            trace.encoded_s = encoded_s
            trace.picture_rtp = rtp
            self._finished.append(trace)

    def after(self, chunk: int) -> list[ChunkTrace]:
        """The finished records of the chunks after this one, the oldest first, as far as they are still kept."""
        return [trace for trace in self._finished if trace.chunk > chunk]


def _bound(records: dict[int, ChunkTrace]) -> None:
    while len(records) > OPEN:
        del records[next(iter(records))]
