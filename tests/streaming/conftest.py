"""A plain portrait and an engine with the loudness stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pipeline.portrait import Portrait
from stream.config import ModelConfig
from stream.engine import ModelEngine
from tests.streaming.portraits import plain_portrait

ENERGY_MOUTH = "tests.streaming.energy_mouth:load"


@pytest.fixture
def portrait() -> Portrait:
    return plain_portrait()


@pytest.fixture
async def engine() -> AsyncIterator[ModelEngine]:
    async with ModelEngine(ModelConfig(factory=ENERGY_MOUTH, nice=0)) as running:
        yield running
