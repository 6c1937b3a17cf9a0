"""`talkalong camera`: be the portrait in video calls, through a virtual camera and a virtual microphone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client import devices, pulse
from client.api import ServerApi
from client.devices import parse_device
from client.errors import ClientError, DeviceError
from client.peer import AvatarClient
from client.presentation import Presentation
from client.presenter import Presenter
from client.talk import TalkOptions, find_portrait
from client.virtual_camera import VirtualCamera, decode_picture
from client.virtual_microphone import SINK, SOURCE_TITLE, VirtualMicrophone, real_microphone
from client.voice import PulseEar, PulseVoice, Running, portaudio_voice
from stream.protocol import FPS, ControlValues, ProtocolError, SessionConfig

logger = logging.getLogger(__name__)

STATUS_S = 1.0
QUIET_STATUS_S = 10.0  # where no terminal overwrites the line
LINE_WIDTH = 110
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
    token: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Appear as the portrait in video calls: pictures go to a virtual camera, your voice, delayed by just as much, "
        "to a virtual microphone. docs/camera.md says how to set both up and choose them in call apps."
    )
    add = parser.add_argument
    add("--server", default="http://localhost:8080", metavar="URL", help="default: %(default)s")
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
    add("--fps", type=float, default=float(FPS), metavar="N", help="pictures a second, default %(default).0f")
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
    add("--token", metavar="T", help="the server's bearer token, if it asks for one")


def parse_size(text: str) -> tuple[int, int]:
    """ "1280x720" as (1280, 720); cameras want even numbers."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()) or int(width) < 64 or int(height) < 64:
        raise argparse.ArgumentTypeError(f'"{text}" is no size; write it like 1280x720, 64 pixels or more.')
    if int(width) % 2 or int(height) % 2:
        raise argparse.ArgumentTypeError(f'"{text}" has an odd side; cameras take even ones.')
    return int(width), int(height)


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


class Terminal:
    """Sentences that stay, and one line of figures that is written over (where nobody looks, now and then a line)."""

    def __init__(self, write: Callable[[str], None], *, live: bool) -> None:
        self._write, self._live = write, live
        self.status_s = STATUS_S if live else QUIET_STATUS_S

    def say(self, sentence: str) -> None:
        self._write(f"\r{sentence:<{LINE_WIDTH}}\n" if self._live else f"{sentence}\n")

    def status(self, line: str) -> None:
        self._write(f"\r{line:<{LINE_WIDTH}}" if self._live else f"{line}\n")


def terminal() -> Terminal:
    return Terminal(lambda text: print(text, end="", flush=True), live=sys.stdout.isatty())


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
        controls=ControlValues(expressiveness=options.expressiveness, head_motion=options.head_motion)
    )
    presentation = Presentation(sound_later_s=options.sound_later / 1000)

    def report(sentence: str) -> None:
        loop.call_soon_threadsafe(screen.say, sentence)

    async def connect() -> AvatarClient:
        portrait = await find_portrait(
            TalkOptions(
                server=options.server, portrait=options.portrait, consent=options.consent, token=options.token
            )
        )
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
        await asyncio.to_thread(_open_sound, options, presenter, heard, stack, screen.say, report)
        tasks = [asyncio.create_task(presenter.run()), asyncio.create_task(stop.wait())]
        watchers = [asyncio.create_task(_watch(presenter, camera, screen))]
        if camera is not None:
            watchers.append(asyncio.create_task(_show_portrait(options, camera)))
        try:
            await asyncio.wait(tasks, timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in (*tasks, *watchers):
                task.cancel()
            await asyncio.gather(*tasks, *watchers, return_exceptions=True)
            screen.say(last_words(presenter))


def _open_sound(
    options: CameraOptions,
    presenter: Presenter,
    heard: Callable[[npt.NDArray[np.int16]], None],
    stack: contextlib.ExitStack,
    say: Callable[[str], None],
    report: Callable[[str], None],
) -> None:
    """Opens the microphone and the output for the voice; what was opened is closed with `stack`."""
    served = sys.platform.startswith("linux") and pulse.available()
    # Which microphone is the default is asked before a new device can change it.
    source = (
        real_microphone(None if options.microphone is None else str(options.microphone)) if served else None
    )
    voice: Running | None = None
    if not options.voice:
        pass
    elif served:
        voice = _pulse_voice(options, presenter, stack, say, report)
    else:
        device = options.speaker if options.speaker is not None else _cable()
        voice = portaudio_voice(presenter.pull_sound, device)
        say(f"Voice: {device}; choose its other end as the microphone.")
    if voice is not None:
        stack.callback(voice.close)
    if source is not None:
        ear: Running = PulseEar(heard, source, report=report)
        say(f"Listening to {source}.")
    else:
        ear = devices.open_microphone(heard, options.microphone)
    stack.callback(ear.close)


def _pulse_voice(
    options: CameraOptions,
    presenter: Presenter,
    stack: contextlib.ExitStack,
    say: Callable[[str], None],
    report: Callable[[str], None],
) -> Running:
    if options.speaker is not None:
        sink = pulse.find("sinks", str(options.speaker))
        if sink is None:
            raise DeviceError(f'There is no output "{options.speaker}". `talkalong devices` lists them.')
        say(f"Voice: {sink.description}.")
        return PulseVoice(presenter.pull_sound, sink.name, report=report)
    microphone = stack.enter_context(VirtualMicrophone())
    say(f'Microphone: choose "{SOURCE_TITLE}" in the call app.')
    return PulseVoice(presenter.pull_sound, SINK, prepare=microphone.make_again, report=report)


def _cable() -> int:
    """The number of the first virtual cable among PortAudio's outputs."""
    for item in devices.sound().query_devices():
        if item["max_output_channels"] > 0 and devices.is_virtual(str(item["name"])):
            return int(item["index"])
    raise DeviceError(
        "There is no virtual sound cable for the voice. Install BlackHole (macOS) or VB-Cable (Windows), or name an "
        "output with --speaker; docs/camera.md says how. For pictures alone use --no-microphone."
    )


async def _show_portrait(options: CameraOptions, camera: VirtualCamera) -> None:
    """The portrait itself on the camera before it comes alive; not being able to is no failure."""
    try:
        photograph = Path(options.portrait) if options.portrait else None
        if photograph is not None and await asyncio.to_thread(photograph.is_file):
            data = await asyncio.to_thread(photograph.read_bytes)
        else:
            async with ServerApi(options.server, token=options.token) as api:
                portrait = options.portrait or (await api.describe()).get("default_portrait")
                data = await api.picture(str(portrait))
    except (ClientError, OSError) as error:
        logger.info("the portrait cannot be shown beforehand: %s", error)
        return
    picture = decode_picture(np.frombuffer(data, np.uint8))
    if picture is not None:
        camera.show(picture)


async def _watch(presenter: Presenter, camera: VirtualCamera | None, screen: Terminal) -> None:
    begun = time.monotonic()
    while True:
        await asyncio.sleep(screen.status_s)
        delay_ms = await asyncio.to_thread(presenter.meter.delay_ms)
        screen.status(status_line(time.monotonic() - begun, presenter, camera, delay_ms))


def status_line(
    seconds: float, presenter: Presenter, camera: VirtualCamera | None, delay_ms: float | None
) -> str:
    """Time, frame rate, measured delay, picture after sound at the devices, pictures missed, sound corrections."""
    presentation, stats = presenter.presentation, presenter.stats
    line = f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{int(seconds % 60):02d}"
    if not presenter.connected:
        return f"{line}  no connection"
    line += f"  {stats.get('fps_sent', 0.0):4.1f} fps"
    line += "  delay --" if delay_ms is None else f"  delay {delay_ms:.0f} ms"
    late_ms = statistics.median(camera.late_ms) if camera is not None and camera.late_ms else 0.0
    line += f"  skew {presentation.sound_error_ms + late_ms:+.0f} ms"
    line += f"  missed {stats.get('frames_missed', 0)} there, {presentation.missed_pictures} here"
    line += f"  sound {1e6 * presentation.sound_rate:+.0f} ppm, {presentation.sound_jumps} jumps"
    return line


def last_words(presenter: Presenter) -> str:
    presentation = presenter.presentation
    return (
        f"{presenter.moments} moments in {presenter.connections} connection(s); "
        f"{presentation.missed_pictures} pictures missed here, {presentation.late_moments} moments late, "
        f"{presentation.reanchors} shifts, {presentation.sound_jumps} jumps of sound, "
        f"{presentation.corrected_samples:.0f} samples made up for by resampling."
    )
