"""The process that prepares portraits: right answers, refusals with words, a death that costs one picture, no leak."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import checkpoint
from stream.config import ModelConfig
from stream.errors import EngineError, PictureRefusedError
from stream.portraits.bundled import PreparedCache, load_bundled
from stream.portraits.preparer import Preparer
from tests.streaming.portraits import plain_prepared
from tests.streaming.uploads import picture

PORTRAITS = checkpoint.bundled("portrait_256") / "portraits"
MIRA = (PORTRAITS / "mira.jpg").read_bytes()


@pytest.fixture
async def preparer() -> AsyncIterator[Preparer]:
    async with Preparer(ModelConfig(factory="tests.streaming.energy_mouth")) as running:
        yield running


async def test_a_picture_becomes_a_portrait(preparer: Preparer) -> None:
    told: list[float] = []
    portrait = await preparer.prepare(MIRA, name="Mira")
    assert (portrait.name, portrait.model) == ("Mira", "energy mouth")
    assert portrait.canvas.shape[2] == 3
    upload = await preparer.prepare_upload(MIRA, name="Mine", progress=told.append)
    assert told == [1.0]
    assert upload.portrait.name == "Mine"
    assert set(upload.images) == {"crop", "mask", "rest", "speaking", "moving"}
    again = await preparer.prepare(upload.picture, name="Mine", kept=True)
    assert again.sha256 == upload.portrait.sha256
    np.testing.assert_array_equal(again.canvas, upload.portrait.canvas)


async def test_what_is_no_portrait_is_refused_in_words(preparer: Preparer) -> None:
    with pytest.raises(PictureRefusedError, match="face") as refused:
        await preparer.prepare_upload(picture(320, 320), name="grey")
    assert refused.value.code == "no_face"
    with pytest.raises(PictureRefusedError):
        await preparer.prepare_upload(b"no picture", name="text")
    assert (await preparer.prepare(MIRA, name="Mira")).name == "Mira"


async def test_a_process_that_dies_costs_one_picture(preparer: Preparer) -> None:
    await preparer.warm_up()
    first = preparer.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    asking = asyncio.create_task(preparer.prepare(MIRA, name="Mira"))
    await asyncio.sleep(0.1)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(EngineError, match="try again"):
        await asking
    assert (await preparer.prepare(MIRA, name="Mira")).name == "Mira"
    assert preparer.pid != first


async def test_several_pictures_wait_for_each_other(preparer: Preparer) -> None:
    names = [str(number) for number in range(4)]
    portraits = await asyncio.gather(*(preparer.prepare(MIRA, name=name) for name in names))
    assert [portrait.name for portrait in portraits] == names


async def test_nothing_is_left_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with Preparer(ModelConfig(factory="tests.streaming.energy_mouth")) as preparer:
        await preparer.warm_up()
        pid = preparer.pid
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_bundled_portraits_are_prepared_once(tmp_path: Path) -> None:
    asked: list[str] = []

    async def prepare(data: bytes, *, name: str, kept: bool = False) -> object:
        asked.append(name)
        return replace(plain_prepared(name=name), model="m" * 64)

    told: list[tuple[int, int]] = []
    cache = PreparedCache(tmp_path / "prepared", "m" * 64)
    first = await load_bundled(PORTRAITS, prepare, cache, lambda *it: told.append(it))  # type: ignore[arg-type]
    assert len(asked) == len(first) == len(list(PORTRAITS.glob("*.jpg")))
    assert told == [(place, len(first)) for place in range(len(first))]
    asked.clear()
    again = await load_bundled(PORTRAITS, prepare, cache)  # type: ignore[arg-type]
    assert asked == []
    assert [entry.id for entry in again] == [entry.id for entry in first]
    np.testing.assert_array_equal(again[0].portrait.canvas, first[0].portrait.canvas)
    damaged = next((tmp_path / "prepared").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:100])
    await load_bundled(PORTRAITS, prepare, cache)  # type: ignore[arg-type]
    assert len(asked) == 1, "what is damaged is made anew"
    other = PreparedCache(tmp_path / "prepared", "o" * 64)
    asked.clear()
    await load_bundled(PORTRAITS, prepare, other)  # type: ignore[arg-type]
    assert len(asked) == len(first), "another model needs its own"
    assert len(list((tmp_path / "prepared").iterdir())) == len(first), "which replace the old ones"


async def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "prepared").write_text("a file, not a folder")
    cache = PreparedCache(tmp_path / "prepared", "m" * 64)
    cache.keep(b"picture", plain_prepared())
    assert cache.find(b"picture") is None
