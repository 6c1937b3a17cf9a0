"""What a browser test needs around the page: a Chromium, a spoken file as its microphone, a served model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from client.audio_file import read_pcm, write_wav

ROOT = Path(__file__).parents[2]
SAMPLE_VOICE = ROOT / "client" / "web" / "sample-voice.mp3"
START_TIMEOUT_S = 90
# A picture as bright as the voice is loud: for checkouts without trained weights, or the transport alone.
STAND_IN = "tests.streaming.energy_mouth"
SERVE = """
import argparse, sys
from stream import serve
parser = argparse.ArgumentParser()
serve.add_arguments(parser)
sys.exit(serve.run(parser.parse_args()))
"""


def has_trained_model() -> bool:
    return (ROOT / "pipeline" / "weights" / "portrait_256" / "model_index.json").is_file()


def write_voice(path: Path) -> Path:
    write_wav(path, np.concatenate(list(read_pcm(SAMPLE_VOICE))))
    return path


class RunningServer:
    """`talkalong serve` in its own process."""

    def __init__(
        self,
        folder: Path,
        *,
        stand_in: bool | None = None,
        settings: str = "",
        environment: dict[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        if stand_in is None:
            stand_in = not has_trained_model()
        self.model = STAND_IN if stand_in else "portrait_256"
        if port is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
        self.port = port
        self.url = f"http://localhost:{port}/"
        config = folder / "serve.yaml"
        config.write_text((f"model: {{factory: {STAND_IN}}}\n" if stand_in else "") + settings)
        self._log = (folder / "server.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "--config", str(config), "--port", str(port)],
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}healthz", timeout=2) as answer:
                    answer.read()
                return
            except urllib.error.HTTPError as error:
                with error:
                    if json.load(error)["status"] == "failed":
                        break
            except OSError:
                pass
            time.sleep(0.3)
        raise RuntimeError(f"The server did not get ready:\n{self.log()}")

    def delete_uploads(self) -> None:
        with urllib.request.urlopen(f"{self.url}v1/portraits", timeout=10) as answer:
            portraits = json.load(answer)["portraits"]
        for portrait in portraits:
            if portrait["source"] == "uploaded":
                place = f"{self.url}v1/portraits/{portrait['id']}"
                urllib.request.urlopen(urllib.request.Request(place, method="DELETE"), timeout=10).close()

    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def kill(self) -> None:
        """As by the system, without a word to anybody."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
