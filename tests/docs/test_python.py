"""The Python that documents show is executed as it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from client.audio_file import read_pcm
from client.latency import adapters, command
from client.latency.probe import make_probe
from client.latency.receiver import Receiver
from tests.browser.served import has_trained_model
from tests.docs.documents import DOCUMENTS, Block, blocks

PYTHON = [block for document in DOCUMENTS for block in blocks(document) if block.language == "python"]


def only(word: str) -> Block:
    (found,) = (block for block in PYTHON if word in block.text)
    return found


def execute(block: Block, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(block.text, str(block), "exec"), names)
    return names


def test_there_is_no_python_that_is_not_tested_here() -> None:
    assert set(PYTHON) == {only("AvatarPipeline"), only("class MyServerAdapter")}


def test_the_model_in_a_few_lines(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's: a picture me.jpg in the folder, sound `pcm`, something that shows."""
    if not has_trained_model():
        pytest.skip("no trained weights in this checkout")
    monkeypatch.chdir(material)
    sound = np.concatenate(list(read_pcm(material / "speech.wav")))
    pcm = sound[::3].astype(np.float32) / 32_768  # 48 to 16 kHz
    shown: list[np.ndarray] = []
    execute(only("AvatarPipeline"), {"pcm": pcm, "show": shown.append})
    assert len(shown) > 1
    frames = np.concatenate(shown)
    assert frames.dtype == np.uint8
    assert frames.shape[1:] == (512, 512, 3)
    assert len(frames) == pytest.approx(1.5 * 25, abs=2)
    assert frames.astype(int).std(0).max() > 1, "nothing moves"


@asynccontextmanager
async def another_server(reference: str) -> AsyncIterator[str]:
    """One of the shape that the example is for: {"offer"} in, {"answer"} out, with the reference server behind it."""
    app = FastAPI()

    @app.post("/call")
    async def call(body: dict[str, str]) -> dict[str, str]:
        async with httpx.AsyncClient() as http:
            reply = await http.post(reference, json={"sdp": body["offer"], "type": "offer"}, timeout=20)
        return {"answer": reply.json()["sdp"]}

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/call"
    finally:
        server.should_exit = True
        await task


async def test_an_adapter_for_another_server(reference: str) -> None:
    """docs/latency.md's, in the module where the document puts it."""
    assert adapters.KINDS
    assert callable(command.adapter)
    adapter = execute(only("class MyServerAdapter"), dict(vars(adapters)))["MyServerAdapter"]
    async with another_server(reference) as url:
        recording = await Receiver(adapter(url), make_probe(seconds=3, seed=3, kind="clicks")).record()
    assert len(recording.frame_s) > 25
    assert len(recording.heard) > 24_000
