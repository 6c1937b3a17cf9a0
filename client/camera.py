"""`talkalong camera`: be the portrait in video calls, through a virtual camera and a virtual microphone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import signal
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client import server_address
from client.api import ServerApi
from client.call_sound import open_sound
from client.devices import parse_device
from client.errors import ClientError, ServerRefusedError
from client.peer import AvatarClient
from client.presentation import Presentation
from client.presenter import Presenter
from client.talk import TalkOptions, find_portrait
from client.terminal import Terminal, last_words, status_line, terminal
from client.virtual_camera import VirtualCamera, decode_picture
from stream.protocol import FPS, ControlValues, ProtocolError, SessionConfig

logger = logging.getLogger(__name__)

PORTRAIT_RETRY_S = 2.0
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """What `run_camera` needs; `portrait` is an id of the gallery or the path of a photograph to upload."""

    server: str
    portrait: str | None = None
    consent: str | None = None
    microphone: int | str | None = None
    speaker: int | str | None = None
    camera_device: str | None = None
    size: tuple[int, int] = (1280, 720)
    fps: float = FPS
    camera: bool = True
    voice: bool = True
    sound_later: float = 0.0
    mark: bool = True
    seconds: float | None = None
    expressiveness: float = 1.0
    head_motion: float = 1.0
    gaze: float = 1.0
    token: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Appear as the portrait in video calls: pictures go to a virtual camera, your voice, delayed by just as much, "
        "to a virtual microphone. docs/camera.md says how to set both up and choose them in call apps."
    )
    add = parser.add_argument
    server_address.add_arguments(parser)
    add("--portrait", metavar="ID|FILE", help="a portrait of the server, or a photograph to upload")
    add("--consent", metavar="TEXT", help="for a photograph: who agreed to it being animated")
    add(
        "--microphone",
        type=parse_device,
        metavar="DEVICE",
        help="what you speak into, see `talkalong devices`",
    )
    add(
        "--speaker",
        type=parse_device,
        metavar="DEVICE",
        help="the output that your delayed voice is played on: BlackHole, VB-Cable (on Linux a virtual microphone "
        "is made if none is named)",
    )
    add(
        "--camera-device",
        metavar="DEVICE",
        help="for example /dev/video10; default: the first virtual camera",
    )
    add("--size", type=parse_size, default=(1280, 720), metavar="WxH", help="of the camera, default 1280x720")
    add(
        "--fps",
        type=parse_rate,
        default=float(FPS),
        metavar="N",
        help="pictures a second, default %(default).0f",
    )
    add("--no-camera", dest="camera", action="store_false", help="the voice alone")
    add("--no-microphone", dest="voice", action="store_false", help="the pictures alone")
    add(
        "--sound-later",
        type=float,
        default=0.0,
        metavar="MS",
        help="hold the voice back further, for a call app that shows its camera late (negative: earlier)",
    )
    add(
        "--no-mark",
        dest="mark",
        action="store_false",
        help='leave out the words "AI generated" in the corner',
    )
    add("--seconds", type=float, metavar="S", help="stop after so long (default: Ctrl-C)")
    add("--expressiveness", type=float, default=1.0, metavar="X", help="0..2, default 1")
    add("--head-motion", type=float, default=1.0, metavar="X", help="0..2, default 1")
    add("--gaze", type=float, default=1.0, metavar="X", help="steadiness of the gaze, 0..2, default 1")


def parse_size(text: str) -> tuple[int, int]:
    """ "1280x720" as (1280, 720); cameras want even numbers."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()) or int(width) < 64 or int(height) < 64:
        raise argparse.ArgumentTypeError(f'"{text}" is no size; write it like 1280x720, 64 pixels or more.')
    if int(width) % 2 or int(height) % 2:
        raise argparse.ArgumentTypeError(f'"{text}" has an odd side; cameras take even ones.')
    return int(width), int(height)


def parse_rate(text: str) -> float:
    """Pictures a second, 1 to 120."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 1 <= rate <= 120:
        raise argparse.ArgumentTypeError(f'"{text}" is no frame rate; it must lie between 1 and 120.')
    return rate


def run(args: argparse.Namespace) -> int:
    names = [field.name for field in dataclasses.fields(CameraOptions)]
    options = CameraOptions(**{name: getattr(args, name) for name in names})
    try:
        asyncio.run(run_camera(options))
    except (ClientError, ProtocolError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class Sitter:
    """Whose portrait it is: a photograph is uploaded once, and again where the server has forgotten it."""

    def __init__(self, options: CameraOptions) -> None:
        self._wanted = TalkOptions(
            server=options.server, portrait=options.portrait, consent=options.consent, token=options.token
        )
        self._known: str | None = None

    async def portrait(self) -> str | None:
        """Its id at the server."""
        if self._known is not None and self._known != self._wanted.portrait:
            async with ServerApi(self._wanted.server, token=self._wanted.token) as api:
                try:
                    await api.picture(self._known)
                except ServerRefusedError:
                    self._known = None
                else:
                    return self._known
        self._known = await find_portrait(self._wanted)
        return self._known


async def run_camera(options: CameraOptions, *, screen: Terminal | None = None) -> None:
    """Until the time is over or the person ends it."""
    screen = screen or terminal()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in SIGNALS:
        with contextlib.suppress(NotImplementedError, AttributeError):  # Windows: KeyboardInterrupt instead
            loop.add_signal_handler(getattr(signal, name), stop.set)
    if not options.camera and not options.voice:
        raise ClientError("--no-camera and --no-microphone together leave nothing to do.")
    config = SessionConfig(
        controls=ControlValues(
            expressiveness=options.expressiveness, head_motion=options.head_motion, gaze=options.gaze
        )
    )
    presentation = Presentation(sound_later_s=options.sound_later / 1000)

    def report(sentence: str) -> None:
        loop.call_soon_threadsafe(screen.say, sentence)

    sitter = Sitter(options)

    async def connect() -> AvatarClient:
        portrait = await sitter.portrait()
        return AvatarClient(
            options.server, config=dataclasses.replace(config, portrait=portrait), token=options.token
        )

    presenter = Presenter(connect, presentation=presentation, say=screen.say)

    def heard(pcm: npt.NDArray[np.int16]) -> None:
        presenter.meter.said(pcm, time.monotonic())
        loop.call_soon_threadsafe(presenter.heard, pcm)

    with contextlib.ExitStack() as stack:
        camera = None
        if options.camera:
            camera = VirtualCamera(
                presentation,
                width=options.size[0],
                height=options.size[1],
                fps=options.fps,
                device=options.camera_device,
                marked=options.mark,
                report=report,
            )
            stack.callback(camera.close)
            screen.say(f"Camera: {camera.device}, {options.size[0]}x{options.size[1]}.")
        await asyncio.to_thread(
            open_sound,
            presenter.pull_sound if options.voice else None,
            heard,
            stack,
            microphone=options.microphone,
            speaker=options.speaker,
            report=report,
        )
        tasks = [asyncio.create_task(presenter.run()), asyncio.create_task(stop.wait())]
        watchers = [asyncio.create_task(_watch(presenter, camera, screen))]
        if camera is not None:
            watchers.append(asyncio.create_task(_show_portrait(options, presenter, camera)))
        try:
            await asyncio.wait(tasks, timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in (*tasks, *watchers):
                task.cancel()
            await asyncio.gather(*tasks, *watchers, return_exceptions=True)
            screen.say(last_words(presenter))


async def _show_portrait(options: CameraOptions, presenter: Presenter, camera: VirtualCamera) -> None:
    """The portrait itself on the camera before it comes alive; asks until the server has it or something comes."""
    while not presenter.moments:
        try:
            picture = decode_picture(np.frombuffer(await _portrait_file(options), np.uint8))
        except (ClientError, OSError) as error:
            logger.debug("the portrait cannot be shown yet: %s", error)
            await asyncio.sleep(PORTRAIT_RETRY_S)
        else:
            if picture is not None:
                camera.show(picture)
            return


async def _portrait_file(options: CameraOptions) -> bytes:
    photograph = Path(options.portrait) if options.portrait else None
    if photograph is not None and await asyncio.to_thread(photograph.is_file):
        return await asyncio.to_thread(photograph.read_bytes)
    async with ServerApi(options.server, token=options.token) as api:
        portrait = options.portrait or (await api.describe()).get("default_portrait")
        return await api.picture(str(portrait))


async def _watch(presenter: Presenter, camera: VirtualCamera | None, screen: Terminal) -> None:
    begun = time.monotonic()
    while True:
        await asyncio.sleep(screen.status_s)
        delay_ms = await asyncio.to_thread(presenter.meter.delay_ms)
        screen.status(status_line(time.monotonic() - begun, presenter, camera, delay_ms))
