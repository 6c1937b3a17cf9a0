"""What the media side of one session costs without a model: `python -m stream.media_benchmark` prints one JSON object.

Each part that works on every picture or on every packet is timed alone, on a portrait that sways and on a voice-like
sound: colour conversion, H.264, VP8, Opus both ways, resampling for the model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from aiortc.codecs.opus import OpusDecoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.jitterbuffer import JitterFrame

from stream.aiortc_patches import TunedH264Encoder, TunedOpusEncoder, audio_level_dbov
from stream.config import MediaConfig
from stream.protocol import FPS, SAMPLE_RATE
from stream.resample import Downsampler
from stream.server import BUNDLED_MODEL
from stream.tracks import AUDIO_TIME_BASE, PACKET_SAMPLES, VIDEO_TICKS, VIDEO_TIME_BASE, yuv

SIDE = 512
WARM_UP = 10  # calls that are not counted: encoders open at the first picture
PARTS = 4  # of a run, to see how steady it was

Picture = npt.NDArray[np.uint8]


def run(seconds: float = 4.0, *, portrait: Path | None = None) -> dict[str, Any]:
    """{"picture", "bit_rate_kbps", "frames": {part: times}, "packets": {part: times}, "cores": {codec: share}}, each
    part timed on `seconds` of media; times as in `times`; cores: CPU of all parts together in one session with that
    video codec, without network and Python around them. Raises `ValueError` for no seconds, or a
    picture that cannot be read."""
    if not seconds > 0:
        raise ValueError(f"--seconds is {seconds:g}; it must be positive.")
    frames, packets = max(round(seconds * FPS), PARTS), max(round(seconds * FPS * 2), PARTS)
    pictures = _pictures(portrait or _bundled_portrait(), frames + WARM_UP)
    planes = [yuv(picture) for picture in pictures]
    voice = _voice(packets + WARM_UP)
    media = MediaConfig()
    h264 = TunedH264Encoder(
        bit_rate=1000 * media.video_bitrate_kbps, max_bit_rate=1000 * media.max_video_bitrate_kbps
    )
    vp8, opus, ears, downsampler = Vp8Encoder(), TunedOpusEncoder(), OpusDecoder(), Downsampler()
    vp8.target_bitrate = 1000 * media.video_bitrate_kbps
    heard = [opus.encode(_audio_frame(pcm, index))[0][0] for index, pcm in enumerate(voice)]
    speaker = TunedOpusEncoder()
    video = [_video_frame(plane, index) for index, plane in enumerate(planes)]
    audio = [_audio_frame(pcm, index) for index, pcm in enumerate(voice)]
    found: dict[str, Any] = {
        "picture": [SIDE, SIDE],
        "bit_rate_kbps": media.video_bitrate_kbps,
        "frames": {
            "yuv": _timed(pictures, yuv),
            "h264": _timed(video, lambda frame: h264.encode(frame)[0]),
            "vp8": _timed(video, lambda frame: vp8.encode(frame)[0]),
        },
        "packets": {
            "opus_encode": _timed(audio, lambda frame: speaker.encode(frame)[0]),
            "opus_decode": _timed(
                list(enumerate(heard)),
                lambda packet: ears.decode(JitterFrame(packet[1], packet[0] * PACKET_SAMPLES)),
            ),
            "level": _timed(audio, audio_level_dbov),
            "resample": _timed(voice, downsampler.push),
        },
    }
    return found | {"cores": {codec: _cores(found, codec) for codec in ("h264", "vp8")}}


def times(values_ms: npt.NDArray[np.float64], cpu_ms: float) -> dict[str, Any]:
    """count, p50, p95, p99, max; cpu: mean CPU time a call, of all threads; parts: the p50 of each quarter of the run.
    All in ms."""
    p50, p95, p99 = (round(float(value), 4) for value in np.percentile(values_ms, (50, 95, 99)))
    return {
        "count": len(values_ms), "p50": p50, "p95": p95, "p99": p99, "max": round(float(values_ms.max()), 4),
        "cpu": round(cpu_ms, 4),
        "parts": [round(float(np.median(part)), 4) for part in np.array_split(values_ms, PARTS)],
    }  # fmt: skip


def _cores(found: dict[str, Any], codec: str) -> float:
    """CPU seconds a second of one session."""
    frame_ms = sum(found["frames"][part]["cpu"] for part in ("yuv", codec))
    packet_ms = sum(part["cpu"] for part in found["packets"].values())
    return round(float(FPS * (frame_ms + 2 * packet_ms)) / 1_000, 4)


def _timed(items: list[Any], work: Callable[[Any], Any]) -> dict[str, Any]:
    """Calls `work` with each item; where it gives encoded payloads, their mean size is told, too."""
    values_ms, sizes = np.zeros(len(items)), 0
    cpu_s = 0.0
    for index, item in enumerate(items):
        if index == WARM_UP:
            cpu_s, sizes = time.process_time(), 0
        begun_s = time.perf_counter()
        result = work(item)
        values_ms[index] = 1000 * (time.perf_counter() - begun_s)
        if isinstance(result, list) and result and isinstance(result[0], bytes):
            sizes += sum(len(payload) for payload in result)
    counted = len(items) - WARM_UP
    found = times(values_ms[WARM_UP:], 1000 * (time.process_time() - cpu_s) / counted)
    return found | ({"bytes": round(sizes / counted)} if sizes else {})


def _bundled_portrait() -> Path:
    return Path(str(resources.files("pipeline") / "weights" / BUNDLED_MODEL / "portraits" / "astronaut.jpg"))


def _pictures(path: Path, count: int) -> list[Picture]:
    """RGB uint8 [SIDE, SIDE, 3]: the portrait swaying by some pixels, its lower half opening and closing."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"The picture {path} cannot be read; give a JPEG or PNG file.")
    rgb = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    mouth = np.exp(-(((rows - 0.68 * SIDE) / 40) ** 2) - ((columns - 0.5 * SIDE) / 60) ** 2)
    made = []
    for index in range(count):
        sway_x, sway_y = 4 * np.sin(index / 23), 3 * np.sin(index / 17)
        opening = 10 * mouth * np.sin(index / 2.5) * np.sign(rows - 0.68 * SIDE)
        warped = cv2.remap(
            rgb, (columns + sway_x).astype(np.float32), (rows + sway_y - opening).astype(np.float32),
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        made.append(np.asarray(warped, np.uint8))
    return made


def _voice(packets: int) -> list[npt.NDArray[np.int16]]:
    """int16 [PACKET_SAMPLES] each: a tone with overtones whose pitch and loudness wander, and some noise."""
    rng = np.random.default_rng(0)
    time_s = np.arange(packets * PACKET_SAMPLES) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 1.3 * time_s)) / SAMPLE_RATE
    tone = sum(np.sin(order * phase) / order for order in range(1, 12))
    loud = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time_s)
    pcm = 5_000 * loud * tone + 200 * rng.standard_normal(len(time_s))
    return list(np.clip(pcm, -32_000, 32_000).astype(np.int16).reshape(packets, PACKET_SAMPLES))


def _video_frame(plane: Picture, index: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
    frame.pts, frame.time_base = index * VIDEO_TICKS, VIDEO_TIME_BASE
    return frame


def _audio_frame(pcm: npt.NDArray[np.int16], index: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, index * PACKET_SAMPLES, AUDIO_TIME_BASE
    return frame


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stream.media_benchmark", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of media for each part (default: 4)")
    args = parser.parse_args()
    try:
        print(json.dumps(run(args.seconds)))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
