"""A presenter's call: the microphone up to the server, its moments down to the virtual devices, for hours.

The camera never stops: before the first picture and while the connection is away it shows the portrait or the last
picture, the virtual microphone is silent, and the server is asked again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from client.delay_meter import DelayMeter
from client.drift import ElasticInput
from client.errors import ClientError, ConnectionLostError, ServerRefusedError, ServerUnreachableError
from client.peer import AvatarClient
from client.presentation import Presentation
from client.timeline import Moment
from stream.protocol import SAMPLE_RATE

logger = logging.getLogger(__name__)

MICROPHONE_TARGET_SAMPLES = (
    3 * SAMPLE_RATE // 100
)  # a packet may leave just before a block comes, and that late
SILENT_S = 5.0
RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_S = 10.0  # a session that lasted so long starts the row of waits anew
HOPELESS = frozenset(range(400, 500)) - {408, 429}

Pcm = npt.NDArray[np.int16]


class Presenter:
    """`run` until cancelled; `heard` takes the microphone's blocks on the event loop, `pull_sound` is the device's.

    connect: a new client for the server each time it is called. say: takes sentences for the person.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[AvatarClient]],
        *,
        presentation: Presentation,
        say: Callable[[str], None],
    ) -> None:
        self.presentation = presentation
        self.meter = DelayMeter()
        self.connections = 0
        self.moments = 0
        self._connect = connect
        self._say = say
        self._avatar: AvatarClient | None = None
        self._input = ElasticInput(MICROPHONE_TARGET_SAMPLES)

    @property
    def stats(self) -> dict[str, Any]:
        """The server's latest figures; {} while there is no connection."""
        return self._avatar.stats if self._avatar is not None else {}

    @property
    def connected(self) -> bool:
        return self._avatar is not None

    def heard(self, pcm: Pcm) -> None:
        """int16 [N] from the microphone, just now; on the event loop."""
        if self._avatar is not None:
            self._avatar.offer(self._input.push(pcm, self._avatar.level_samples))

    def pull_sound(self, samples: int, now: float, heard_at: float) -> Pcm:
        """See `client.voice.Pull`."""
        pcm = self.presentation.pull_sound(samples, now, heard_at)
        self.meter.heard(pcm, heard_at)
        return pcm

    async def run(self) -> None:
        """Raises a `ClientError` only where waiting cannot help: the server says no before it ever said yes."""
        failures = 0
        while True:
            begun = time.monotonic()
            try:
                await self._session()
            except ClientError as error:
                if not self.connections and not _waiting_helps(error):
                    raise
                if time.monotonic() - begun > STEADY_S:
                    failures = 0
                wait_s = RETRY_S[min(failures, len(RETRY_S) - 1)]
                if isinstance(error, ServerRefusedError):
                    wait_s = max(wait_s, error.retry_after_s)
                failures += 1
                self._say(f"{error} The camera shows the last picture; trying again in {wait_s:.0f} s.")
                await asyncio.sleep(wait_s)

    async def _session(self) -> None:
        avatar = await self._connect()
        try:
            async with avatar:
                self._avatar = avatar
                self._input = ElasticInput(MICROPHONE_TARGET_SAMPLES)
                await self._take(avatar)
        finally:
            self._avatar = None
            self.presentation.lose()

    async def _take(self, avatar: AvatarClient) -> None:
        moments = aiter(avatar)
        first = True
        while True:
            try:
                async with asyncio.timeout(SILENT_S):
                    moment: Moment = await anext(moments)
            except StopAsyncIteration:
                raise ConnectionLostError("The session ended.") from None
            except TimeoutError:
                raise ConnectionLostError(f"Nothing has come from the server for {SILENT_S:.0f} s.") from None
            self.presentation.push(moment, time.monotonic())
            self.moments += 1
            if first:
                first = False
                self.connections += 1
                self._say("Live." if self.connections == 1 else "Live again.")


def _waiting_helps(error: ClientError) -> bool:
    if isinstance(error, ServerRefusedError):
        return error.status not in HOPELESS
    return isinstance(error, ServerUnreachableError | ConnectionLostError)
