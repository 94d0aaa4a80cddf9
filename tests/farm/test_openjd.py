"""The Open Job Description template, with the real program that checks and runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runs
from runs import Reference

from megasynth_attr.farm.openjd import template_text
from megasynth_attr.scene.config import resolve


def test_keys_of_stages_that_a_job_does_not_run_stay_here() -> None:
    text = template_text(resolve(["preset=demo", "frames=3", "training.optim.steps=9"]))
    assert "frames=3" in text and "training" not in text


def test_the_openjd_template_is_valid_and_runs(reference: Reference, tmp_path: Path) -> None:
    openjd = shutil.which("openjd") or str(Path(sys.executable).with_name("openjd"))
    if not Path(openjd).exists():
        pytest.skip("openjd-cli is not installed (pip install megasynth-attr[dev])")
    out, file = tmp_path / "out", tmp_path / "tiny.openjd.yaml"
    words = [*runs.TINY, "workers=1", f"out={out}", f"file={file}"]
    env = runs.environment()
    subprocess.run([sys.executable, "-m", "megasynth_attr.farm.openjd", *words], env=env, check=True)
    subprocess.run([openjd, "check", str(file)], env=env, check=True)
    run = [openjd, "run", str(file), "--step", "Generate", "-p", "Shards=4", "--tasks", '[{"Shard": 2}]']
    done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=runs.LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "openjd_progress: 100.0" in done.stdout
    assert runs.complete_scenes(out) == ["000001"]
    ours, theirs = (path / "geometry_00/scenes/000/000001/checksums.json" for path in (out, reference.out))
    assert ours.read_bytes() == theirs.read_bytes()
