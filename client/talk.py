"""`talkalong talk`: speak (or play a file) to a server's portrait from the command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client import server_address
from client.api import ServerApi
from client.audio_file import read_pcm
from client.devices import Loudspeaker, Microphone, parse_device
from client.errors import ClientError, DeviceError
from client.peer import AvatarClient
from client.recorder import Recorder
from client.terminal import Terminal
from client.timeline import Moment
from stream.protocol import FPS, ControlValues, ProtocolError, SessionConfig

logger = logging.getLogger(__name__)

TAIL_S = 1.0  # what the pipes hold on top of the playout delay when a file ends
SPEAKER_QUEUE_FRAMES = 10
CHECK_S = 0.5
LINE_WIDTH = 72


@dataclasses.dataclass(frozen=True, kw_only=True)
class TalkOptions:
    """What `run_talk` needs; `portrait` is an id of the gallery or the path of a photograph to upload."""

    server: str
    portrait: str | None = None
    audio: Path | None = None
    record: Path | None = None
    record_minutes: float | None = None
    record_megabytes: float | None = None
    mute: bool = False
    seconds: float | None = None
    token: str | None = None
    consent: str | None = None
    microphone: int | str | None = None
    loudspeaker: int | str | None = None
    expressiveness: float = 1.0
    head_motion: float = 1.0
    gaze: float = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Speak to a server, hear yourself on the portrait's clock, and record the result."
    add = parser.add_argument
    server_address.add_arguments(parser)
    add("--portrait", metavar="ID|FILE", help="a portrait of the server, or a photograph to upload")
    add("--consent", metavar="TEXT", help="for a photograph: who agreed to it being animated")
    add("--audio", type=Path, metavar="FILE", help="speak this file instead of the microphone")
    add("--record", type=Path, metavar="O.mp4", help="write picture and sound into a new file")
    add(
        "--record-minutes",
        type=_amount,
        metavar="M",
        help="end the recording after so long; the talk goes on",
    )
    add("--record-megabytes", type=_amount, metavar="MB", help="end the recording at this size")
    add("--seconds", type=float, metavar="S", help="stop after so long (default: Ctrl-C, or the file's end)")
    add("--mute", action="store_true", help="play nothing: a loudspeaker may feed back into the microphone")
    add("--microphone", type=parse_device, metavar="DEVICE", help="number or name, see `talkalong devices`")
    add("--loudspeaker", type=parse_device, metavar="DEVICE", help="number or name")
    add("--expressiveness", type=float, default=1.0, metavar="X", help="0..2, default 1")
    add("--head-motion", type=float, default=1.0, metavar="X", help="0..2, default 1")
    add("--gaze", type=float, default=1.0, metavar="X", help="steadiness of the gaze, 0..2, default 1")


def _amount(text: str) -> float:
    """More than nothing."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def run(args: argparse.Namespace) -> int:
    names = [field.name for field in dataclasses.fields(TalkOptions)]
    options = TalkOptions(**{name: getattr(args, name) for name in names})
    try:
        asyncio.run(run_talk(options))
    except (ClientError, ProtocolError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def print_now(text: str) -> None:
    print(text, end="", flush=True)


async def run_talk(options: TalkOptions, *, show: Callable[[str], None] = print_now) -> int:
    """Talks until the file, the time or the person ends it; returns the number of frames that came."""
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt instead
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    config = SessionConfig(
        portrait=await find_portrait(options),
        controls=ControlValues(
            expressiveness=options.expressiveness, head_motion=options.head_motion, gaze=options.gaze
        ),
    )
    terminal = Terminal(show, live=sys.stdout.isatty(), width=LINE_WIDTH)
    async with contextlib.AsyncExitStack() as stack:
        speaker = await _speaker(options, stack, terminal)
        recorder = stack.enter_context(_recorder(options, options.record)) if options.record else None
        avatar = AvatarClient(options.server, config=config, token=options.token)
        await stack.enter_async_context(avatar)
        microphone: Microphone | None = None
        if options.audio is None:
            loop = asyncio.get_running_loop()

            def heard(pcm: npt.NDArray[np.int16]) -> None:
                loop.call_soon_threadsafe(avatar.offer, pcm)

            microphone = Microphone(heard, options.microphone)
            stack.callback(microphone.close)
        consumer = asyncio.create_task(_consume(avatar, speaker, recorder, terminal))
        producer = asyncio.create_task(_produce(avatar, options, microphone, stop, terminal))
        try:
            await asyncio.wait({consumer, producer}, return_when=asyncio.FIRST_COMPLETED)
            if consumer.done():
                return consumer.result()
            producer.result()
            await avatar.aclose()
            return await consumer
        finally:
            for task in (consumer, producer):
                task.cancel()
            await asyncio.gather(consumer, producer, return_exceptions=True)


async def _speaker(
    options: TalkOptions, stack: contextlib.AsyncExitStack, terminal: Terminal
) -> Speaker | None:
    """None where nothing is to be played, or nothing can be: only a loudspeaker that was named has to be there."""
    if options.mute:
        return None
    try:
        return await stack.enter_async_context(Speaker(options.loudspeaker, terminal))
    except DeviceError as error:
        if options.loudspeaker is not None:
            raise
        terminal.say(f"{error} The talk goes on, and nothing is played.")
        return None


def _recorder(options: TalkOptions, path: Path) -> Recorder:
    return Recorder(
        path,
        max_minutes=options.record_minutes,
        max_megabytes=options.record_megabytes,
        portrait=Path(options.portrait).stem if options.portrait else "",
    )


async def find_portrait(options: TalkOptions) -> str | None:
    """The portrait's id at the server; a photograph is uploaded first, with its consent statement."""
    photograph = await asyncio.to_thread(_photograph, options.portrait)
    if photograph is None:
        return options.portrait
    if not options.consent:
        raise ClientError(
            f"{options.portrait} is a photograph: say who agreed to it being animated, for example "
            '--consent "Ada Miller: this is me, and I agree".'
        )
    async with ServerApi(options.server, token=options.token) as api:
        portrait = await api.upload(photograph, consent=options.consent)
    return str(portrait["id"])


def _photograph(portrait: str | None) -> Path | None:
    return Path(portrait) if portrait is not None and Path(portrait).is_file() else None


async def _produce(
    avatar: AvatarClient,
    options: TalkOptions,
    microphone: Microphone | None,
    stop: asyncio.Event,
    terminal: Terminal,
) -> None:
    """Ends when there is no more to say; raises `DeviceError` when the microphone is gone."""
    try:
        async with asyncio.timeout(options.seconds):
            if options.audio is None:
                while not stop.is_set():
                    if microphone is not None:
                        microphone.check()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), CHECK_S)
                return
            for piece in read_pcm(options.audio, terminal.say):
                await avatar.push(piece)
                if stop.is_set():
                    return
    except TimeoutError:
        return
    delay_ms = avatar.stats.get("budget", {}).get("playout_delay_ms", 0.0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay_ms / 1000 + TAIL_S):
            await stop.wait()


async def _consume(
    avatar: AvatarClient, speaker: Speaker | None, recorder: Recorder | None, terminal: Terminal
) -> int:
    frames = told = 0
    moment: Moment
    async for moment in avatar:
        frames += 1
        if speaker is not None:
            speaker.play(moment.pcm)
        if recorder is not None:
            await asyncio.to_thread(recorder.write, moment)
            if recorder.ended is not None:
                terminal.say(f"{recorder.ended.message} The talk goes on.")
                recorder = None
        for notice in avatar.notices[told:]:
            terminal.say(f"The server says: {notice}")
        told = len(avatar.notices)
        if frames % round(FPS * terminal.status_s) == 0:
            terminal.status(status_line(frames, avatar.stats))
    terminal.status(status_line(frames, avatar.stats))
    terminal.end()
    return frames


def status_line(frames: int, stats: dict[str, Any]) -> str:
    """One line of figures: time, sent frame rate, misses, mouth to photon."""
    seconds = frames / FPS
    line = f"{int(seconds // 60)}:{int(seconds % 60):02d}"
    if stats:
        line += (
            f"  {stats.get('fps_sent', 0.0):4.1f} fps  {stats.get('frames_missed', 0)} missed"
            f"  about {stats.get('mouth_to_photon_ms', 0.0):.0f} ms from mouth to photon"
        )
    return line


class Speaker:
    """Plays PCM on a thread; when the device is slower than the stream, the oldest sound is left out. A
    device that is gone is said once."""

    def __init__(self, device: int | str | None, terminal: Terminal) -> None:
        self._loudspeaker = Loudspeaker(device)
        self._terminal = terminal
        self._queue: asyncio.Queue[npt.NDArray[np.int16]] = asyncio.Queue(SPEAKER_QUEUE_FRAMES)
        self._task: asyncio.Task[None] | None = None
        self.dropped_frames = 0

    async def __aenter__(self) -> Speaker:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._loudspeaker.close)  # a cancelled task leaves its write in its thread

    def play(self, pcm: npt.NDArray[np.int16]) -> None:
        if self._queue.full():
            self._queue.get_nowait()
            self.dropped_frames += 1
        self._queue.put_nowait(pcm)

    async def _run(self) -> None:
        try:
            while True:
                await asyncio.to_thread(self._loudspeaker.write, await self._queue.get())
        except DeviceError as error:
            self._terminal.say(f"{error} The talk goes on, and nothing is played any more.")
