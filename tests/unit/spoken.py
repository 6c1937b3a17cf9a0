"""A program that stands in for Festival where the real one is not what is tested."""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np
import pytest

SEGMENTS = (
    "#\n0.2000 100 pau\n0.2800 100 b\n0.4000 100 aa\n0.4800 100 pp\n0.6000 100 mh\n0.7 100 sh\n0.8 100 #\n"
)


def put_festival(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """This Python program is all that is found under the name of Festival."""
    path = folder / "festival"
    path.write_text(f"#!{sys.executable}\n{program}")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def put_speaking_festival(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text is 0.8 s of a tone, cut into the sounds of SEGMENTS."""
    recorded = folder / "recorded.wav"
    with wave.open(str(recorded), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        tone = 8_000 * np.sin(np.arange(12_800) / 16_000 * 2 * np.pi * 200)
        file.writeframes(tone.astype("<i2").tobytes())
    program = (
        "import pathlib, shutil, sys\n"
        "if sys.argv[-1] != 'say.scm': sys.exit()\n"  # asked whether it has a voice
        "assert 'voice_' in pathlib.Path('say.scm').read_text(errors='replace')\n"
        f"shutil.copy({str(recorded)!r}, 'said.wav')\n"
        f"pathlib.Path('said.segs').write_text({SEGMENTS!r})\n"
    )
    put_festival(folder, monkeypatch, program)
