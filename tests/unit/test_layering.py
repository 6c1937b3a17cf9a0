"""Dependencies point one way: client -> stream.protocol and sound files, stream -> pipeline through its engine."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import client
import pipeline
import stream

FORBIDDEN_NAMES = {"utils", "common", "helpers", "manager", "misc"}
WRITING = (
    "stream.recordings.fragment_file",
    "stream.recordings.recording_file",
)  # a recording, on either side
SOUND = ("pipeline.downmix", "pipeline.resampler", "pipeline.samples", "pipeline.sound_file")
CORE = [
    "pipeline.windowing", "pipeline.state", "pipeline.audio_encoder", "pipeline.autoencoder", "pipeline.denoiser",
    "pipeline.scheduler", "pipeline.sampler", "pipeline.portrait", "pipeline.drawing", "pipeline.avatar_pipeline",
    "pipeline.runtime", "pipeline.checkpoint",
]  # fmt: skip


def imported_by(*modules: str) -> set[str]:
    """Top-level and project modules that a fresh interpreter holds after importing these."""
    code = f"import sys, json, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_of(package: object) -> list[str]:
    path, name = package.__path__, package.__name__  # type: ignore[attr-defined]
    return [info.name for info in pkgutil.walk_packages(path, f"{name}.")]


def test_the_client_imports_neither_torch_nor_the_model() -> None:
    found = imported_by(*modules_of(client))
    assert "torch" not in found
    # Sound files are read by one module, as free of the model as the client is: see below.
    assert {name for name in found if name.split(".")[0] == "pipeline"} <= {"pipeline", *SOUND}
    # What a recording is written with is shared, and as free of the server as the protocol: see the next test.
    assert {name for name in found if name.startswith("stream.")} <= {
        "stream.protocol",
        "stream.recordings",
        *WRITING,
    }


def test_a_recording_is_written_without_the_server() -> None:
    found = imported_by(*WRITING)
    assert {name for name in found if name.startswith("stream.")} == {
        "stream.protocol",
        "stream.recordings",
        *WRITING,
    }
    assert not found & {"torch", "fastapi", "aiortc", "uvicorn", "websockets", "client", "pipeline"}


def test_sound_files_are_read_without_the_model() -> None:
    found = imported_by(*SOUND)
    assert {name for name in found if name.startswith("pipeline.")} == set(SOUND)
    assert not found & {"torch", "diffusers", "cv2", "fastapi", "aiortc", "stream", "client"}


def test_the_protocol_is_cheap_to_import() -> None:
    assert not imported_by("stream.protocol") & {"torch", "fastapi", "aiortc", "av"}


def test_pictures_are_drawn_without_torch_and_without_the_rest_of_the_model() -> None:
    found = imported_by("pipeline.drawing")
    rooms = {".".join(name.split(".")[:2]) for name in found if name.startswith("pipeline.")}
    assert rooms == {"pipeline.drawing"}
    assert not found & {"torch", "diffusers", "stream", "client"}


def test_the_media_process_starts_without_torch() -> None:
    assert "torch" not in imported_by("stream.server", "stream.session", "stream.engine")


def test_the_model_knows_nothing_of_the_network() -> None:
    found = imported_by(*CORE)
    assert not found & {"aiortc", "fastapi", "uvicorn", "websockets", "av"}
    assert not {name for name in found if name.split(".")[0] in ("stream", "client")}
    assert not {name for name in found if name.startswith(("pipeline.training", "pipeline.evaluation"))}


@pytest.mark.parametrize("package", [client, stream, pipeline])
def test_every_module_has_a_noun_for_a_name(package: object) -> None:
    for name in modules_of(package):
        assert name.rsplit(".", 1)[-1] not in FORBIDDEN_NAMES
    folder = Path(package.__path__[0])  # type: ignore[attr-defined]
    assert all(path.stem not in FORBIDDEN_NAMES for path in folder.rglob("*.py"))
