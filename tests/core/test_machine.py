"""Cores and disk, counted as this process may use them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import runs

from megasynth_attr.core.errors import EnvironmentProblem, ExitCode, run_main
from megasynth_attr.core.machine import check_disk, free_bytes
from megasynth_attr.core.threads import available_cores
from megasynth_attr.pipeline.__main__ import main


def test_the_cores_of_this_process_are_counted_not_those_of_the_machine() -> None:
    code = "from megasynth_attr.core.threads import available_cores; print(available_cores())"
    command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", code]
    done = subprocess.run(command, env=runs.environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1" and available_cores() >= 1


def test_the_disk_check(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "there", 0, "nothing")
    with pytest.raises(EnvironmentProblem, match=r"5 frames need about .* but only .* are; free some space"):
        check_disk(tmp_path, free_bytes(tmp_path), "5 frames")


def test_a_pipeline_started_several_times_is_refused_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Process 0 says it; torchrun, which ends the others when it has ended, finds the same exit code in all."""
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert run_main(main, ["preset=demo"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert said.startswith("ConfigError: the pipeline was started 2 times by torchrun or accelerate; its stages run in")
    code = (
        "from megasynth_attr.core.machine import refuse_several_processes\n"
        "print('ready', flush=True)\n"
        "refuse_several_processes('it', 'do not')"
    )
    environment = runs.environment(WORLD_SIZE="2", LOCAL_RANK="1", RANK="1")
    other = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    runs.wait_until(lambda: runs.catches(other.pid, signal.SIGTERM))
    other.send_signal(signal.SIGTERM)
    assert other.communicate(timeout=20) == ("", "") and other.returncode == ExitCode.USAGE
