"""The documented run from random weights to evaluated adapters, on datasets the generator renders. Takes minutes.

Not part of the ordinary tests: ``pytest -m proof tests/train/test_train_proof.py -s`` shows what it prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TRAIN_PRESETS = ROOT / "presets" / "train"
LOSS_FALLS_BY, ACCURACY_IMPROVES_BY = 10, 3

pytestmark = [pytest.mark.slow, pytest.mark.proof]


def run(module: str, *words: object) -> float:
    """Run a program as its users do; return the seconds it took."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", module, *map(str, words)], cwd=ROOT, text=True, env=dict(os.environ))
    assert done.returncode == 0, f"{module} ended with {done.returncode}"
    seconds = time.monotonic() - started
    print(f"{module}: {seconds:.0f} s", flush=True)
    return seconds


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("bpy", reason="the demo datasets are rendered with the bpy module")
    out = tmp_path_factory.mktemp("proof") / "demo"
    size = ("scene_count=4", "frames=12", "render.width_px=168", "render.height_px=168")
    run(
        "megasynth_attr.pipeline",
        "preset=demo",
        "stages=generate",
        "dataset_count=1",
        "downstream=",
        *size,
        f"out={out}",
    )
    return out


@pytest.fixture(scope="module")
def overfitted(demo: Path) -> Path:
    out = demo.parent / "tiny"
    words = (f"config={TRAIN_PRESETS / 'overfit_tiny.yaml'}", f"data={demo / 'geometry_00'}", f"out={out}")
    run("megasynth_train.finetune", *words, "run.log_every=1")
    return out


def evaluated(demo: Path, out: Path, *words: object) -> dict[str, Any]:
    """Return the averages of an evaluation on the two scenes."""
    common = (f"data={demo / 'geometry_00'}", "scenes=0-1", "stride=4", "views=3", "width_px=98", "model=vggt-tiny")
    run("megasynth_train.evaluate", *common, f"out={out}", *words)
    return json.loads((out / "results.json").read_text())["average"]


def test_two_scenes_are_learned_by_heart(demo: Path, overfitted: Path) -> None:
    lines = [json.loads(line) for line in (overfitted / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0]["objective"], lines[-1]["objective"]
    print(f"objective {first:.3f} → {last:.3f}")
    assert last < first / LOSS_FALLS_BY
    # the objective holds -log(confidence), which may become negative: the errors alone must have fallen, too
    camera = [lines[i]["camera"] for i in (0, -1)]
    assert camera[1] < camera[0] / LOSS_FALLS_BY

    trained = evaluated(demo, overfitted / "evaluation", f"adapter={overfitted / 'adapter'}")["points"]
    untrained = evaluated(demo, overfitted / "untrained", "pictures=false", "page=false")["points"]
    for key in ("accuracy_mean", "completeness_mean"):
        before, after = untrained[key]["mean"], trained[key]["mean"]
        print(f"{key} {before:.4f} → {after:.4f}, {before / after:.1f}×")
        assert after < before / ACCURACY_IMPROVES_BY


def test_a_cluster_of_adapters(demo: Path, overfitted: Path) -> None:
    out = demo.parent / "adapters"
    base = overfitted / "adapter" / "model.safetensors"
    words = (f"config={TRAIN_PRESETS / 'cluster_tiny.yaml'}", f"experiment={demo}", f"checkpoint={base}", f"out={out}")
    run("megasynth_train.cluster", *words)
    for name in ("camera_00", "geometry_00", "lighting_00", "texture_00"):
        lines = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        print(f"{name}: objective {lines[0]['objective']:.3f} → {lines[-1]['objective']:.3f}")
        assert lines[-1]["objective"] < lines[0]["objective"]
        assert (out / name / "adapter" / "adapter_model.safetensors").is_file()
