"""Scenes that were damaged since they were written: kept elsewhere, so that the scenes are rendered anew."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import sha256_of
from megasynth_attr.dataset.paths import CHECKSUMS_FILE, DAMAGED, SCENE_FILE, finished_scenes, scene_path
from megasynth_attr.dataset.scene_files import scene_file
from megasynth_attr.farm.tasks import Plan


def set_aside_damaged(plan: Plan) -> bool:
    """Move damaged scenes to ``damaged/`` in their dataset, say so, and return whether there were any.

    A scene is damaged if its scene.json is not the file that its checksums.json describes: pictures are left to the
    stage verify. A shard looks at its own scenes only.
    """
    found = False
    mine = {(task.dataset, task.scene_index) for task in plan.selected}
    for dataset in plan.datasets:
        for index in finished_scenes(dataset):
            path = scene_path(dataset, index)
            whole_dataset = plan.experiment.run.shard == "1/1"  # its dataset.json needs them all
            if (whole_dataset or (dataset, index) in mine) and (damage := _damage(path)):
                with suppress(FileNotFoundError):  # another run has just done the same
                    kept = _set_aside(path, dataset / DAMAGED)
                    print(f"damaged   {dataset.name}/{path.name}: {damage}; kept as {kept}, to be rendered anew")
                    found = True
    return found


def _damage(scene: Path) -> str:
    """Return what is wrong with a scene; "" if nothing is."""
    try:
        described = scene_file(scene, CHECKSUMS_FILE).read_bytes().decode()
        if sha256_of(scene_file(scene, SCENE_FILE)) in described:
            return ""
        return f"{SCENE_FILE} is not the file that {CHECKSUMS_FILE} describes"
    except DatasetError as error:
        return str(error).partition(";")[0]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError):
        return f"{SCENE_FILE} or {CHECKSUMS_FILE} is missing or unreadable"


def _set_aside(scene: Path, where: Path) -> Path:
    where.mkdir(exist_ok=True)
    kept, number = where / scene.name, 0
    while kept.exists():
        number += 1
        kept = where / f"{scene.name}.{number}"
    return scene.rename(kept)
