"""What comes of the folders of version 0.1.0 when they are continued and measured: the contents of old_folders.json."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import golden_files
import old_folders
import old_words

ADAPTERS = (
    "",  # the base model itself
    "runs/finished/adapter",
    "runs/finished/best",
    "cluster/texture_01/adapter",
    "comparison/runs/lora-1/seed_0/adapter",
    *(f"runs/{name}/adapter" for name in old_words.MODES),
)
SECOND_SCENE = (*old_words.DATA, "datasets=0", "stages=generate")
FIRST, SECOND = "data/texture_00/scenes/000/000000", "data/texture_00/scenes/000/000001"
GEOMETRY = ("scene.json", "cameras.json", "depth/0000.exr", "depth/0001.exr", "normal/0000.exr", "instance/0000.png")


def record() -> dict[str, Any]:
    """Return what today's program makes of the old folders."""
    with tempfile.TemporaryDirectory() as folder, old_folders.copied(Path(folder)):
        evaluations = {name: evaluation(name) for name in ADAPTERS}
        said = old_folders.call("pipeline", SECOND_SCENE)
        assert said.code == 0, said.err
        return {"machine": golden_files.machine(), "evaluations": evaluations, "second_scene": second_scene()}


def evaluation(adapter: str) -> dict[str, float]:
    """Return some numbers of the measurement of an adapter, made in the current folder."""
    words = old_words.evaluate(adapter)
    said = old_folders.call("evaluate", words)
    assert said.code == 0, said.err
    out = next(word.removeprefix("out=") for word in words if word.startswith("out="))
    average = json.loads((Path(out) / "results.json").read_text())["average"]
    return {
        "abs_rel": average["depth"]["median"]["abs_rel"]["mean"],
        "accuracy": average["points"]["accuracy_mean"]["mean"],
        "completeness": average["points"]["completeness_mean"]["mean"],
        "rotation_deg": average["cameras"]["rotation_median_deg"]["mean"],
        "translation_deg": average["cameras"]["translation_median_deg"]["mean"],
        "fit_scale": average["depth"]["median"]["fit_scale"]["mean"],
    }


def second_scene() -> dict[str, str]:
    """Return the hashes of what does not depend on light."""
    return {name: hashlib.sha256((Path(SECOND) / name).read_bytes()).hexdigest() for name in GEOMETRY}
