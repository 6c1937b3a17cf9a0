"""What tests of several kinds need: a small real model and a bundled portrait."""

from __future__ import annotations

import os

# Before anything imports torch: on shared cores, threads that spin while they wait starve the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# No test leaves portraits in the data directory of whoever runs it; those that need a folder name one.
os.environ["TALKALONG_UPLOADS"] = "memory"

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def gallery_portrait() -> Path:
    """A bundled picture of one large face."""
    return ROOT / "pipeline" / "weights" / "portrait_256" / "portraits" / "astronaut.jpg"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of configs/model/tiny.yaml: every part is real, none is trained."""
    from pipeline import checkpoint

    folder = tmp_path_factory.mktemp("model") / "tiny"
    checkpoint.build(ROOT / "configs" / "model" / "tiny.yaml").save_pretrained(folder)
    return folder
