"""Rendering on a real Slurm cluster, and what is refused before."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import runs
import slurm_cluster
from runs import Reference

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_attr.pipeline.__main__ import main


def test_a_slurm_array_makes_the_same_dataset(reference: Reference, tmp_path: Path) -> None:
    """Slurm is an optional part: also in continuous integration this is skipped where it is not installed."""
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    pytest.importorskip("submitit", reason="submitit is not installed (pip install megasynth-attr[farm])")
    folder = tmp_path / "slurm"
    folder.mkdir()
    out = tmp_path / "out"
    words = ("executor=slurm", "jobs=2", "workers=1", "threads=1", "slurm_minutes=10", f"out={out}")
    with slurm_cluster.slurm_cluster(folder) as env:
        done = subprocess.run(
            runs.command(*runs.TINY, *words),
            env=runs.environment(SLURM_CONF=env["SLURM_CONF"]),
            capture_output=True,
            text=True,
            timeout=runs.LIMIT_S,
            check=False,
        )
    logs = "\n".join(path.read_text()[-2000:] for path in (out / "events" / "slurm").glob("*_log.out"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert runs.tree_hash(out) == reference.hash
    assert len(list((out / "events").glob("*.jsonl"))) == 3  # the submitting process and two jobs


def test_slurm_refuses_a_shard_of_a_shard(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="executor=slurm makes its own shards"):
        main([*runs.TINY, "executor=slurm", "shard=1/2", f"out={tmp_path}"])


def test_slurm_without_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentProblem, match="there is no sbatch on this machine"):
        main([*runs.TINY, "executor=slurm", f"out={tmp_path}"])
