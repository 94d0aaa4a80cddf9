"""Folders for temporary files, which outlive no run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import runs

from megasynth_attr.farm.scratch import scratch_folder


def test_scratch_folders_of_the_dead_are_removed_and_those_of_the_living_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = (
        "import time\nfrom megasynth_attr.farm.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n    print(folder, flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], env=runs.environment(), stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    with scratch_folder() as ours:
        assert theirs.is_dir() and ours.parent == theirs.parent == tmp_path
    assert not ours.exists()
    other.kill()
    other.communicate()
    assert theirs.is_dir()
    with scratch_folder():
        assert not theirs.exists()
