"""Cores and disk, counted as this process may use them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import runs

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.machine import available_cores, check_disk, free_bytes


def test_the_cores_of_this_process_are_counted_not_those_of_the_machine() -> None:
    code = "from megasynth_attr.core.machine import available_cores; print(available_cores())"
    command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", code]
    done = subprocess.run(command, env=runs.environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1" and available_cores() >= 1


def test_the_disk_check(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "there", 0, "nothing")
    with pytest.raises(EnvironmentProblem, match=r"5 frames need about .* but only .* are; free some space"):
        check_disk(tmp_path, free_bytes(tmp_path), "5 frames")
