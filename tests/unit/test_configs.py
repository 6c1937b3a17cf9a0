"""Every bundled YAML loads into its dataclass, and a mistake in one is named."""

from __future__ import annotations

import importlib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import checkpoint
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.evaluation.studies.settings import StudySettings
from pipeline.training.settings import load_settings
from stream.config import load_config
from stream.errors import ConfigError

CONFIGS = Path(str(resources.files("configs")))


def names(folder: str) -> list[str]:
    return sorted(path.name for path in (CONFIGS / folder).glob("*.yaml"))


def misspelt(path: Path, tmp_path: Path, section: str | None = None) -> Path:
    """A copy with one key that does not exist."""
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    (values if section is None else values.setdefault(section, {}))["colour_of_socks"] = 1
    copy = tmp_path / path.name
    copy.write_text(yaml.safe_dump(values))
    return copy


def test_the_folders_hold_what_the_design_names() -> None:
    assert {"default.yaml", "low_latency.yaml", "gpu.yaml"} <= set(names("serve"))
    assert {"portrait_256.yaml", "portrait_512.yaml", "tiny.yaml"} <= set(names("model"))
    assert "default.yaml" in names("eval")
    stages = ("audio_encoder", "autoencoder", "motion_encoder", "teacher", "student")
    assert {f"{stage}.yaml" for stage in stages} <= set(names("train"))
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders == {"serve", "model", "train", "eval"}, "a new folder of configs needs a test here"


@pytest.mark.parametrize("name", names("serve"))
def test_serve_configs(name: str, tmp_path: Path) -> None:
    path = CONFIGS / "serve" / name
    load_config(path)
    with pytest.raises(ConfigError, match=rf"{name}: unknown key media\.colour_of_socks"):
        load_config(misspelt(path, tmp_path, "media"))


def test_the_low_latency_config_hears_one_frame_ahead() -> None:
    media = load_config(CONFIGS / "serve" / "low_latency.yaml").media
    assert (media.hop_frames, media.right_frames) == (1, 1)
    media = load_config(CONFIGS / "serve" / "default.yaml").media
    assert (media.hop_frames, media.right_frames) == (None, 2)


@pytest.mark.parametrize("name", names("model"))
def test_model_configs(name: str, tmp_path: Path) -> None:
    path = CONFIGS / "model" / name
    checkpoint.build(path)
    with pytest.raises(
        checkpoint.CheckpointError, match=rf"{name}: 'colour_of_socks' is not an option of denoiser"
    ):
        checkpoint.build(misspelt(path, tmp_path, "denoiser"))


def test_the_studies_config(tmp_path: Path) -> None:
    load_settings(StudySettings, CONFIGS / "eval" / "studies.yaml")
    with pytest.raises(ValueError, match=r"studies.yaml: unknown key 'colour_of_socks'"):
        load_settings(StudySettings, misspelt(CONFIGS / "eval" / "studies.yaml", tmp_path))


@pytest.mark.parametrize("name", sorted(set(names("eval")) - {"studies.yaml"}))
def test_evaluation_configs(name: str, tmp_path: Path) -> None:
    path = CONFIGS / "eval" / name
    load_settings(EvaluationSettings, path)
    with pytest.raises(ValueError, match=rf"{name}: unknown key 'colour_of_socks'"):
        load_settings(EvaluationSettings, misspelt(path, tmp_path))


@pytest.mark.parametrize("name", names("train"))
def test_training_configs(name: str, tmp_path: Path) -> None:
    """configs/train/a_stage.yaml and a_stage_gpu.yaml fill AStageSettings of pipeline.training.a_stage."""
    path = CONFIGS / "train" / name
    stage = path.stem.removesuffix("_gpu")
    kind = "".join(word.capitalize() for word in stage.split("_")) + "Settings"
    settings = getattr(importlib.import_module(f"pipeline.training.{stage}"), kind)
    load_settings(settings, path)
    with pytest.raises(ValueError, match=rf"{name}: unknown key 'colour_of_socks'"):
        load_settings(settings, misspelt(path, tmp_path))
