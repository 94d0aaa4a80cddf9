"""Rendering on a real Slurm cluster, and what is refused before. All that can happen there: test_slurm_campaign.py."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import runs
from runs import Reference
from slurm_cluster import Cluster

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_attr.pipeline.__main__ import main

WORDS = (*runs.TINY, "executor=slurm", "jobs=2", "workers=1", "threads=1", "slurm_minutes=10")


def run(slurm: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    return runs.pipeline(*WORDS, *words, SLURM_CONF=slurm.env["SLURM_CONF"])


def test_an_array_left_to_itself_and_found_again_makes_the_same_dataset(
    reference: Reference, slurm: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "100 %A of 'it'"  # quotes mean something to a shell, and %A to Slurm
    detached = run(slurm, f"out={out}", "detach=true")
    assert detached.returncode == 0, detached.stderr
    assert "goes on by itself; the same command without detach=true waits for it" in detached.stderr
    assert len(submitted := slurm.queue()) == 2
    done = run(slurm, f"out={out}")
    logs = "\n".join(path.read_text()[-2000:] for path in out.glob("events/slurm/*/logs/*"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert f"waiting for job {submitted[0].partition('_')[0]}, submitted before" in done.stderr
    assert slurm.queue() == []
    assert runs.tree_hash(out) == reference.hash
    assert len(list((out / "events").glob("*.jsonl"))) == 4  # two submitting processes and two jobs


def test_what_slurm_refuses_is_said(slurm: Cluster, tmp_path: Path) -> None:
    done = run(slurm, f"out={tmp_path}", "partition=nowhere")
    assert done.returncode == 4
    assert "Slurm refuses the jobs: sbatch: error: invalid partition specified: nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_slurm_refuses_a_shard_of_a_shard(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="executor=slurm makes its own shards"):
        main([*runs.TINY, "executor=slurm", "shard=1/2", f"out={tmp_path}"])


def test_only_slurm_jobs_can_be_left_to_themselves(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only the jobs of executor=slurm run on by themselves"):
        main([*runs.TINY, "detach=true", f"out={tmp_path}"])


def test_slurm_without_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentProblem, match="there is no sbatch on this machine"):
        main([*runs.TINY, "executor=slurm", f"out={tmp_path}"])
