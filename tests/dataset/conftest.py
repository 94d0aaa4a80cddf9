"""Fixtures: one ray-cast dataset per session, and a private copy of it for tests that damage it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # raycast.py and synthetic.py lie beside the tests

import synthetic


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with all layers; not to be changed."""
    return synthetic.write_dataset(synthetic.config(*synthetic.ALL_LAYERS), tmp_path_factory.mktemp("out"))


@pytest.fixture
def dataset(pristine: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(pristine, tmp_path / "out" / pristine.name))
