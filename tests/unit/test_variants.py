"""Every way to run a part of the model is compared with what the part really does; what is missing is said."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import variants
from pipeline.benchmark_variants import compare, markdown, record
from pipeline.variants import VARIANTS, Unavailable
from tests.unit.avatar import plain_portrait, tiny_pipeline

PCM = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)


def test_recorded_parts_are_the_session_s_and_variants_are_compared_with_them() -> None:
    parts = record(tiny_pipeline(), plain_portrait(), PCM, 2)
    assert [part.name for part in parts] == ["features", "denoise"]
    assert [part.calls_per_frame for part in parts] == [0.5, 1.0]
    for part in parts:
        rows = compare(part, ["eager", "channels_last", "bf16"], rounds=2, threads=1, report=lambda _: None)
        assert rows[0]["frame_difference_max"] == 0
        assert rows[0]["speed_up"] == 1.0
        assert rows[1]["frame_difference_max"] <= 1
        assert "unavailable" in rows[2] or rows[2]["frame_difference_mean"] < 20
        assert part.name in markdown(rows)
    with pytest.raises(ValueError, match="too few to fill the motion ring"):
        record(tiny_pipeline(), plain_portrait(), PCM[:1280], 2)


def test_a_variant_that_changes_the_picture_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    part = record(tiny_pipeline(), plain_portrait(), PCM, 2)[1]

    def wrong(module: nn.Module, examples: object, threads: int) -> variants.Call:
        def call(inputs: variants.Inputs) -> tuple[torch.Tensor, ...]:
            x0, *rest = module(*inputs)
            return x0 + 1e4, *rest  # untrained faces hardly move

        return call

    def missing(module: nn.Module, examples: object, threads: int) -> variants.Call:
        raise Unavailable("it is not there")

    monkeypatch.setitem(VARIANTS, "wrong", wrong)
    monkeypatch.setitem(VARIANTS, "missing", missing)
    rows = compare(part, ["eager", "wrong", "missing"], rounds=1, threads=1, report=lambda _: None)
    assert rows[1]["frame_difference_max"] > 20
    assert rows[2]["unavailable"] == "it is not there"
    assert "it is not there" in markdown(rows)


@pytest.mark.parametrize("package", ["onnxruntime", "openvino", "nncf"])
def test_a_missing_package_is_a_sentence(package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(Unavailable, match=r"pip install -e '\.\[variants\]'"):
        variants._package(package)
