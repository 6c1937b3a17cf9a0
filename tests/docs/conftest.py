"""One server for all documented commands, the material that they name, and a few hands that run them side by side."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml

from client.latency import bench_report, report
from client.latency.measurement import measure
from client.latency.probe import make_probe
from stream.protocol import SAMPLE_RATE
from tests.browser.served import ROOT, STAND_IN, RunningServer
from tests.docs.desk import Desk, Outcome
from tests.docs.documents import DOCUMENTS, blocks
from tests.loopback.sound_server import SoundServer, missing_programs
from tests.network.certificates import Authority
from tests.unit.recorded import recorded
from tests.unit.test_latency_bench import result as bench_result

HANDS = 3  # most commands wait for real time to pass
ROOMY = "limits: {sessions: 64, sessions_per_address: 64, uploaded_portraits: 64}\n"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the stand-in for the model, without a slash at its end."""
    server = RunningServer(tmp_path_factory.mktemp("served"), stand_in=True, settings=ROOMY)
    try:
        server.wait_until_ready()
        yield server.url.rstrip("/")
    finally:
        server.close()


@pytest.fixture(scope="session")
def reference() -> Iterator[str]:
    """The address of the latency harness's reference server."""
    with subprocess.Popen(
        [sys.executable, "-m", "client.latency.reference_server"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}/offer"
        process.stdin.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Path:
    """The files that documented commands name."""
    folder = tmp_path_factory.mktemp("material")
    portraits = ROOT / "pipeline" / "weights" / "portrait_256" / "portraits"
    (folder / "me.jpg").write_bytes((portraits / "astronaut.jpg").read_bytes())
    _speech(folder / "speech.wav")
    (folder / "offer.sdp").write_text(asyncio.run(_offer()))
    certificate, key = authority.issue(folder, "localhost")
    certificate.rename(folder / "fullchain.pem")
    key.rename(folder / "privkey.pem")
    for name in ("default", "low_latency"):
        _with_stand_in(ROOT / "configs" / "serve" / f"{name}.yaml", folder / f"{name}.yaml")
    (folder / "ice.yaml").write_text(
        _relay_settings().replace("turn.example.net", "127.0.0.1")
    )  # no look-ups
    _with_stand_in(folder / "ice.yaml", folder / "my.yaml")
    probe = make_probe(seconds=20, seed=7)
    for name, delay_s in (("before", 0.25), ("after", 0.22)):
        figures = {"schema": report.SCHEMA, "provenance": report.provenance({}, {}), "budget": {}, "stages_ms": {},
                   "figures": measure(probe, recorded(probe, photon_s=delay_s))}  # fmt: skip
        report.write(figures, folder / name / "report.json")
        report.write(bench_result(photon_s=delay_s), folder / f"{name}.json")
    assert bench_report.SCHEMA in (folder / "before.json").read_text()
    return folder


@pytest.fixture(scope="session")
def desk(
    tmp_path_factory: pytest.TempPathFactory, material: Path, served: str, reference: str, tiny_model: Path
) -> Iterator[Desk]:
    """Its commands hear and are heard by a PulseAudio of their own, where there is one."""
    words = {
        "url": served,
        "reference": reference,
        "tiny": str(tiny_model),
        "root": str(ROOT),
        "environment": sys.prefix,
    }
    place = tmp_path_factory.mktemp("desk")
    if missing_programs():
        yield Desk(place, material, words, dict(os.environ))
        return
    with SoundServer() as sound:
        yield Desk(place, material, words, dict(sound.environment))


@pytest.fixture(scope="session")
def outcomes(
    request: pytest.FixtureRequest, desk: Desk, trusting: ssl.SSLContext
) -> Iterator[dict[str, Future[Outcome]]]:
    """What becomes of each prepared command of the chosen tests; they are run side by side, the same one once."""
    with ThreadPoolExecutor(HANDS) as hands:
        running: dict[str, Future[Outcome]] = {}
        for item in request.session.items:
            if (command := getattr(item, "callspec", None)) and "to_run" in command.params:
                text = desk.prepare(command.params["to_run"])
                if text not in running:
                    running[text] = hands.submit(desk.run, text, certificate=trusting)
        try:
            yield running
        finally:
            for future in running.values():
                future.cancel()


def _speech(path: Path) -> None:
    """The beginning of the sample voice, a second and a half, which is mono at 48 kHz."""
    from client.audio_file import read_pcm, write_wav

    pcm = np.concatenate(list(read_pcm(ROOT / "client" / "web" / "sample-voice.mp3")))
    write_wav(path, pcm[: 3 * SAMPLE_RATE // 2])


async def _offer() -> str:
    """What a WHIP source sends: one section of sound."""
    from aiortc import RTCPeerConnection

    peer = RTCPeerConnection()
    peer.addTransceiver("audio", direction="sendonly")
    await peer.setLocalDescription(await peer.createOffer())
    sdp = peer.localDescription.sdp
    await peer.close()
    return sdp


def _with_stand_in(path: Path, copy: Path) -> None:
    values = yaml.safe_load(path.read_text())
    values["model"] = (values.get("model") or {}) | {"factory": STAND_IN}
    values.get("network", {}).pop("host", None)
    copy.write_text(yaml.safe_dump(values))


def _relay_settings() -> str:
    """The documented configuration with a TURN server: what `my.yaml` stands for."""
    (found,) = (
        block.text for document in DOCUMENTS for block in blocks(document)
        if block.language == "yaml" and "turn:" in block.text
    )  # fmt: skip
    return found
