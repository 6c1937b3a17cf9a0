"""What a receiver notes for the report's spans: its packets and pictures by RTP time stamp, and the server's clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stream.protocol import ChunkTrace

TIMESTAMP_MODULUS = 1 << 32


@dataclass(kw_only=True)
class Trace:
    """Seconds of the receiver's clock, except in `chunks`.

    sent: RTP time stamp of each packet of the microphone and when it left. sounded_s: when a packet's last sample
    sounded at the microphone, by RTP time stamp. received: when each picture was whole, by RTP time stamp.
    displayed: when it was on the screen. pings: when one left, the server's clock, when the answer came.
    chunks: the server's own records.
    """

    sent: dict[int, float] = field(default_factory=dict)
    sounded_s: dict[int, float] = field(default_factory=dict)
    received: dict[int, float] = field(default_factory=dict)
    displayed: dict[int, float] = field(default_factory=dict)
    pings: list[tuple[float, float, float]] = field(default_factory=list)
    chunks: list[ChunkTrace] = field(default_factory=list)

    @property
    def newest_chunk(self) -> int:
        return self.chunks[-1].chunk if self.chunks else -1

    def server_offset(self) -> tuple[float, float] | None:
        """The server's clock less ours, and how far off that may be: from the quickest answers, as NTP does (RFC
        5905, section 8). None where no ping was answered."""
        if not self.pings:
            return None
        quickest = sorted(self.pings, key=lambda ping: ping[2] - ping[0])[:5]
        offset = float(np.median([server - (left + came) / 2 for left, server, came in quickest]))
        return offset, (quickest[0][2] - quickest[0][0]) / 2
