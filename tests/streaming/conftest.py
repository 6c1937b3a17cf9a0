"""A plain portrait and an engine with the loudness stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pipeline.drawing import PreparedPortrait
from stream.config import ModelConfig
from stream.engine import ModelEngine
from tests.streaming.portraits import plain_prepared

ENERGY_MOUTH = "tests.streaming.energy_mouth"


@pytest.fixture
def portrait() -> PreparedPortrait:
    return plain_prepared()


@pytest.fixture
async def engine() -> AsyncIterator[ModelEngine]:
    async with ModelEngine(ModelConfig(factory=ENERGY_MOUTH, nice=0)) as running:
        yield running
