"""Many scenes in one process: no data blocks and no memory are left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from blender_jobs import leak_jobs, write_files
from blender_runtime import Runtime


def test_forty_scenes_leave_nothing_behind(runtime: Runtime, tmp_path: Path) -> None:
    outcome = runtime.run(leak_jobs(write_files(tmp_path / "files")), tmp_path / "out")
    memory = np.array(outcome.results["jobs"]["forty"]["rss_mb"])
    assert len(memory) == 40
    growth = np.polyfit(np.arange(40), memory, 1)[0]
    assert growth < 1.0, f"{growth:.2f} MB a scene, from {memory[0]:.0f} to {memory[-1]:.0f} MB"
    assert memory[-10:].mean() - memory[:10].mean() < 30
    assert set(outcome.results["left_over"].values()) == {0}
