"""One small experiment for all tests of the report, written once, and its report."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from ray_cast_experiment import Size, write_dataset

from megasynth_attr.dataset.verify import verify_dataset
from megasynth_attr.report.page import write_report
from megasynth_attr.scene.settings import WriteSettings

FACTORS = ("geometry", "texture", "camera", "lighting")


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``texture_00``: complete, verified, isolation measured. ``camera_00``: 3 of 4 scenes and nothing of that."""
    out = tmp_path_factory.mktemp("runs") / "ray_cast"
    relative = {"geometry": 0.0, "texture": 0.93, "camera": 0.0, "lighting": 0.02}
    everything = WriteSettings(normal=True, instance=True)
    texture = write_dataset(out, "texture", Size(), write=everything, isolation=relative)
    verify_dataset(texture, progress=False)
    write_dataset(out, "camera", Size(), write=WriteSettings(), scenes=[0, 1, 3], finalised=False)
    return out


@pytest.fixture(scope="session")
def index(experiment: Path) -> Path:
    """The summary page of the experiment's report."""
    return write_report(experiment, progress=False)
