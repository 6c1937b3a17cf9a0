"""The codecs that a session needs, each tried with real media."""

from __future__ import annotations

import fractions

import av
import numpy as np

from client.doctor.finding import Finding, ok, problem

SIDE = 128
OPUS_SAMPLES = 960
VIDEO = {"H.264 (x264)": ("libx264", "h264"), "VP8": ("libvpx", "vp8")}


def check() -> list[Finding]:
    """One finding: all work, or which do not."""
    missing = {}
    for name, (encoder, decoder) in VIDEO.items():
        if error := _try_video(encoder, decoder):
            missing[name] = error
    if error := _try_opus():
        missing["Opus"] = error
    names = [*VIDEO, "Opus"]
    figures = {
        "codecs": [name for name in names if name not in missing],
        "missing": missing,
        "pyav": av.__version__,
    }
    if not missing:
        return [ok("codecs", f"{', '.join(names[:-1])} and {names[-1]} encode and decode.", **figures)]
    lacking = "; ".join(f"{name}: {error}" for name, error in missing.items())
    says = f"PyAV {av.__version__} lacks codecs ({lacking})."
    remedy = "Install PyAV from its wheel (`pip install --force-reinstall --only-binary :all: av`): it brings FFmpeg."
    return [problem("codecs", says, remedy, **figures)]


def _try_video(encoder: str, decoder: str) -> str:
    """Encodes one picture and decodes it; "" or what went wrong."""
    try:
        writer = av.CodecContext.create(encoder, "w")
        assert isinstance(writer, av.VideoCodecContext)
        writer.width, writer.height, writer.pix_fmt = SIDE, SIDE, "yuv420p"
        writer.framerate, writer.time_base = fractions.Fraction(25), fractions.Fraction(1, 25)
        picture = np.full((SIDE, SIDE, 3), 100, np.uint8)
        picture[:, SIDE // 2 :] = 200
        packets = [*writer.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")), *writer.encode(None)]
        reader = av.CodecContext.create(decoder, "r")
        assert isinstance(reader, av.VideoCodecContext)
        frames = [frame for packet in [*packets, None] for frame in reader.decode(packet)]
        got = frames[0].to_ndarray(format="rgb24").astype(int)
    except (av.FFmpegError, ValueError, IndexError, AssertionError) as error:
        return str(error) or type(error).__name__
    return "" if np.abs(got - picture).mean() < 8 else "its picture is damaged"


def _try_opus() -> str:
    try:
        writer = av.CodecContext.create("libopus", "w")
        assert isinstance(writer, av.AudioCodecContext)
        writer.sample_rate, writer.layout, writer.format = 48_000, "mono", "s16"
        tone = 8_000 * np.sin(2 * np.pi * 440 * np.arange(10 * OPUS_SAMPLES) / 48_000)
        packets = []
        for start in range(0, len(tone), OPUS_SAMPLES):
            pcm = tone[None, start : start + OPUS_SAMPLES].astype(np.int16)
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48_000, start
            packets += writer.encode(frame)
        reader = av.CodecContext.create("libopus", "r")
        assert isinstance(reader, av.AudioCodecContext)
        heard = np.concatenate(
            [frame.to_ndarray().ravel() for packet in packets for frame in reader.decode(packet)]
        )
    except (av.FFmpegError, ValueError, IndexError, AssertionError) as error:
        return str(error) or type(error).__name__
    return "" if np.abs(heard).max() > 0 else "it is silent"
