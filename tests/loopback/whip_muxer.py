"""Publishes a pattern with FFmpeg's own WHIP client, the `whip` muxer inside PyAV, as a program of its own: it holds
Python's lock while it connects. Speaks until it is stopped; prints when its first sound leaves, by time.monotonic.
"""

from __future__ import annotations

import argparse
import fractions
import time
from typing import Any

import av
import numpy as np

from tests.loopback.peer import PACKET, Speaker

RATE = 48_000
FPS = 25
SIDE = 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--profile", help="of H.264 beside the sound")
    parser.add_argument("--active", action="store_true", help="begin the DTLS handshake")
    # Its own certificate is on the curve P-224 where FFmpeg (up to 8.1) has GnuTLS; OpenSSL takes no such any more.
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    wanted = parser.parse_args()
    profile = wanted.profile
    speaker = Speaker(seed=1)
    options = {"handshake_timeout": "20000", "cert_file": wanted.certificate, "key_file": wanted.key}
    options |= {"whip_flags": "dtls_active"} if wanted.active else {}
    out = av.open(wanted.url, "w", format="whip", options=options)
    sound: Any = out.add_stream("libopus", rate=RATE)
    sound.layout = "stereo"
    sound.options = {"frame_duration": "20"}
    picture: Any = out.add_stream("libx264", rate=FPS) if profile else None
    if picture is not None:
        picture.width = picture.height = SIDE
        picture.pix_fmt = "yuv420p"
        picture.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": profile}
    out.start_encoding()  # offers, connects
    begin = time.monotonic()
    print(begin, flush=True)
    for packet in range(60 * RATE // PACKET):
        time.sleep(max(begin + (packet + 1) * PACKET / RATE - time.monotonic(), 0))
        pcm = np.repeat(speaker.pcm(packet), 2)  # left and right
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="stereo")
        frame.sample_rate, frame.pts = RATE, packet * PACKET
        frame.time_base = fractions.Fraction(1, RATE)
        out.mux(sound.encode(frame))
        if picture is not None and packet % 2 == 0:
            grey = np.full((SIDE * 3 // 2, SIDE), packet % 200, np.uint8)
            image = av.VideoFrame.from_ndarray(grey, format="yuv420p")
            image.pts, image.time_base = packet // 2, fractions.Fraction(1, FPS)
            out.mux(picture.encode(image))


if __name__ == "__main__":
    av.logging.set_level(av.logging.INFO)
    main()
