"""With which words today's program refuses an old folder: the contents of refusals.json.

Each case is a program, words that come after those the folder was made with, and files to remove before.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import old_folders
import old_words

GENERATE = (*old_words.DATA, "stages=generate")
RECORD = ("data/experiment.json",)  # without it the datasets themselves are compared

Case = tuple[str, tuple[str, ...], tuple[str, ...]]

CASES: dict[str, Case] = {
    "experiment: another seed": ("pipeline", (*GENERATE, "seed=7"), ()),
    "experiment: another size": ("pipeline", (*GENERATE, "render.width_px=42"), ()),
    "experiment: another range": ("pipeline", (*GENERATE, "camera.fov_x_deg=[30,50]"), ()),
    "experiment: another attribute": ("pipeline", (*GENERATE, "attribute=look"), ()),
    "experiment: another preset": ("pipeline", (*GENERATE, "preset=geometry", "attribute=texture"), ()),
    "dataset: another seed": ("pipeline", (*GENERATE, "seed=7"), RECORD),
    "dataset: other frames": ("pipeline", (*GENERATE, "frames=3"), RECORD),
    "dataset: another quality": ("pipeline", (*GENERATE, "quality=default"), RECORD),
    "dataset: another scope": ("pipeline", (*GENERATE, "lighting.scope=scene"), RECORD),
    "dataset: other variants": ("pipeline", (*GENERATE, "geometry.variants=2"), RECORD),
    "dataset: another range": ("pipeline", (*GENERATE, "camera.fov_x_deg=[30,50]"), RECORD),
    "dataset: other layers": ("pipeline", (*GENERATE, "write.normal=false", "write.depth=float16"), RECORD),
    "dataset: another preset": ("pipeline", (*GENERATE, "preset=geometry", "attribute=texture"), RECORD),
    "dataset: no dataset": ("pipeline", GENERATE, (*RECORD, "data/texture_00/dataset.json")),
    "verify: not generated": ("pipeline", (*old_words.DATA, "dataset_count=3", "stages=verify"), ()),
    "finetune: another learning rate": ("finetune", (*old_words.UNFINISHED, "lr=2e-2"), ()),
    "finetune: other steps": ("finetune", (*old_words.UNFINISHED, "steps=13"), ()),
    "finetune: another rank": ("finetune", (*old_words.UNFINISHED, "rank=2"), ()),
    "finetune: another mode": ("finetune", (*old_words.UNFINISHED, "mode=dora"), ()),
    "finetune: other targets": ("finetune", (*old_words.UNFINISHED, r"adapter.targets=.*\.qkv"), ()),
    "finetune: another seed": ("finetune", (*old_words.UNFINISHED, "run.seed=1"), ()),
    "finetune: another adapter seed": ("finetune", (*old_words.UNFINISHED, "adapter.seed=1"), ()),
    "finetune: another loss": ("finetune", (*old_words.UNFINISHED, "loss.camera=1"), ()),
    "finetune: other views": ("finetune", (*old_words.UNFINISHED, "data.views=[1,2]"), ()),
    "finetune: another precision": ("finetune", (*old_words.UNFINISHED, "model.precision=bf16"), ()),
    "finetune: another size": ("finetune", (*old_words.UNFINISHED, "model=vggt-small", "checkpoint="), ()),
    "finetune: another base model": ("finetune", (*old_words.UNFINISHED, "checkpoint="), ()),
    "finetune: other data": (
        "finetune",
        (*old_words.UNFINISHED, "data=", "data=data/texture_01", "data.validation_share=0.55"),
        (),
    ),
    "finetune: finished, another learning rate": ("finetune", (*old_words.FINISHED, "lr=2e-2"), ()),
    "finetune: finished, other steps": ("finetune", (*old_words.FINISHED, "steps=13"), ()),
    "finetune: another basis": (
        "finetune",
        (*old_words.mode("subspace"), "basis=basis/random.safetensors"),
        (),
    ),
    "finetune: no run": ("finetune", (*old_words.FINISHED, "out=data"), ()),
    "finetune: the result is gone": ("finetune", old_words.FINISHED, ("runs/finished/adapter/adapter.json",)),
    "finetune: a damaged checkpoint": (
        "finetune",
        old_words.UNFINISHED,
        ("runs/unfinished/checkpoints/step_00000003/weights.safetensors",),
    ),
    "cluster: another learning rate": ("cluster", (*old_words.CLUSTER, "lr=2e-2"), ()),
    "cluster: another seed": ("cluster", (*old_words.CLUSTER, "seed=1"), ()),
    "cluster: another rank": ("cluster", (*old_words.CLUSTER, "rank=2"), ()),
    "cluster: another mode": ("cluster", (*old_words.CLUSTER, "mode=rslora"), ()),
    "cluster: other datasets": ("cluster", (*old_words.CLUSTER, "datasets=[texture_00]"), ()),
    "cluster: another base model": ("cluster", (*old_words.CLUSTER, "checkpoint="), ()),
    "cluster: no cluster": ("cluster", (*old_words.CLUSTER, "out=data"), ()),
    "mine: another dimension": ("mine", (*old_words.SUBSPACES, "dimension=2"), ()),
    "mine: another extractor": ("mine", (*old_words.SUBSPACES, "extractor=svd"), ()),
    "mine: other modules": ("mine", (*old_words.SUBSPACES, "modules=.*qkv"), ()),
    "mine: another seed": ("mine", (*old_words.SUBSPACES, "seed=1"), ()),
    "mine: an unknown attribute": ("mine", (*old_words.SUBSPACES, "attributes=[geometry]"), ()),
    "mine: an adapter is gone": (
        "mine",
        old_words.SUBSPACES,
        ("cluster/texture_01/adapter/adapter_model.safetensors",),
    ),
    "mine: a basis is gone": ("mine", old_words.SUBSPACES, ("subspaces/all.safetensors",)),
    "mine: no subspaces": ("mine", (*old_words.SUBSPACES, "out=data"), ()),
    "compare: other steps": ("compare", (*old_words.COMPARE, "steps=3"), ()),
    "compare: another learning rate": ("compare", (*old_words.COMPARE, "lr=2e-2"), ()),
    "compare: another head rank": ("compare", (*old_words.COMPARE, "adapter.head_rank=2"), ()),
    "compare: another method of the same name": (
        "compare",
        (*old_words.COMPARE, "define.lora-1.adapter.alpha=3"),
        (),
    ),
    "compare: other data": ("compare", (*old_words.COMPARE, "data=", "data=data/texture_01"), ()),
    "compare: another test": ("compare", (*old_words.COMPARE, "test=", "test=data/texture_00"), ()),
    "compare: other test views": ("compare", (*old_words.COMPARE, "test.views=1"), ()),
    "compare: another basis": ("compare", (*old_words.COMPARE, "basis=basis/random.safetensors"), ()),
    "compare: another base model": ("compare", (*old_words.COMPARE, "checkpoint="), ()),
    "compare: no comparison": ("compare", (*old_words.COMPARE, "out=data"), ()),
    "evaluate: another base model": ("evaluate", (*old_words.evaluate("runs/finished/adapter"), "checkpoint="), ()),
    "evaluate: another size": (
        "evaluate",
        (*old_words.evaluate("runs/finished/adapter"), "model=vggt-small", "checkpoint="),
        (),
    ),
    "evaluate: no adapter": ("evaluate", old_words.evaluate("runs/finished/checkpoints"), ()),
    "evaluate: the basis was moved": ("evaluate", (*old_words.evaluate("runs/subspace/adapter"), "basis="), ()),
    "export_lora: the basis was moved": ("export_lora", ("adapter=runs/subspace/adapter", "out=exported"), ()),
    "basis: the file exists": ("basis", old_words.RANDOM_BASIS, ()),
}


def record() -> dict[str, Any]:
    """Return what today's program says to each case."""
    with tempfile.TemporaryDirectory() as folder, old_folders.copied(Path(folder)):
        return {name: refusal(case) for name, case in CASES.items()}


def refusal(case: Case) -> dict[str, Any]:
    """Return the exit code and message of a case, run in the current folder, and which folders it changed."""
    program, words, removed = case
    kept = {name: Path(name).read_bytes() for name in removed}
    for name in removed:
        Path(name).unlink()
    folders = sorted(path.name for path in Path().iterdir() if path.is_dir())
    before = old_folders.files(*folders)
    said = old_folders.call(program, words)
    after = old_folders.files(*sorted(path.name for path in Path().iterdir() if path.is_dir()))
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    for name in changed:  # the next case finds what this one found
        if name in before:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(before[name])
        else:
            Path(name).unlink()
    for name, content in kept.items():
        Path(name).write_bytes(content)
    return {"exit": said.error, "changed": changed}
