"""Starts the judge in its own Python and asks it about frames; makes that Python when there is none."""

from __future__ import annotations

import io
import json
import logging
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "TALKALONG_JUDGE_PYTHON"
PACKAGES = ("mediapipe==0.10.21", "numpy<2", "dlib-bin==20.0.1.post1", "face-recognition-models==0.3.0")


class JudgeError(RuntimeError):
    """The judge could not be made or started, or died; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the judge saw: `landmarks` f32 [T,478,3] in pixels and `embeddings` f32 [K,128] of frames `embed`.

    NaN where it found no face.
    """

    landmarks: NDArray[np.float32]
    embed: tuple[int, ...]
    embeddings: NDArray[np.float32]

    @property
    def found(self) -> float:
        """Share of frames in which a face was found, 0..1."""
        return float(np.isfinite(self.landmarks).all((1, 2)).mean())


def judge_python(given: Path | None = None, folder: Path = Path("build/judge")) -> Path:
    """The judge's Python: as given, as in $TALKALONG_JUDGE_PYTHON, or an environment made in `folder`."""
    named = given or (Path(os.environ[ENVIRONMENT_VARIABLE]) if ENVIRONMENT_VARIABLE in os.environ else None)
    if named is not None:
        if not named.is_file():
            raise JudgeError(
                f"There is no Python at {named}; leave --judge-python out and one is made in {folder}."
            )
        return named
    python = folder / "bin" / "python"
    marker = folder / "ready"
    if not marker.is_file():
        logger.info(
            "Making the judge's own Python in %s (MediaPipe needs numpy < 2): some 100 MB, once.", folder
        )
        commands = (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise JudgeError(
                    f"The judge's Python could not be made. {' '.join(command)}:\n{done.stderr.strip()}\n"
                    f"Make one by hand (Python 3.9 to 3.12, packages {', '.join(PACKAGES)}) and name it with "
                    f"--judge-python or ${ENVIRONMENT_VARIABLE}."
                )
        marker.touch()
    return python


class Judge:
    """The running judge. `submit` returns at once, so frames are judged while the next ones are rendered."""

    def __init__(self, python: Path) -> None:
        quiet = {"GLOG_minloglevel": "3", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [str(python), "-I", "-W", "ignore", str(Path(__file__).with_name("judge.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | quiet,
        )
        self._talker = ThreadPoolExecutor(1, thread_name_prefix="judge")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(
        self, frames: NDArray[np.uint8], *, embed: Sequence[int] = (), still: bool = False
    ) -> Future[Observation]:
        """Judges frames [T,H,W,3] RGB in the background; `embed` are frames whose identity is wanted."""
        return self._talker.submit(
            self._ask, np.ascontiguousarray(frames), tuple(int(i) for i in embed), still
        )

    def observe(
        self, frames: NDArray[np.uint8], *, embed: Sequence[int] = (), still: bool = False
    ) -> Observation:
        """Judges frames and waits. Raises JudgeError when the judge has died."""
        return self.submit(frames, embed=embed, still=still).result()

    def _ask(self, frames: NDArray[np.uint8], embed: tuple[int, ...], still: bool) -> Observation:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        header = json.dumps({"shape": frames.shape, "embed": embed, "still": still}) + "\n"
        try:
            requests.write(header.encode())
            requests.write(frames.data)
            requests.flush()
            size = answers.read(8)
        except BrokenPipeError:
            size = b""
        if len(size) < 8:
            raise JudgeError(
                f"The judge ended with code {self._process.wait()}; "
                f"check that its Python has {', '.join(PACKAGES)}."
            )
        with np.load(io.BytesIO(answers.read(struct.unpack("<Q", size)[0]))) as archive:
            return Observation(landmarks=archive["landmarks"], embed=embed, embeddings=archive["embeddings"])

    def close(self) -> None:
        """Ends the judge; safe to call twice."""
        self._talker.shutdown(wait=True, cancel_futures=True)
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
