"""dataset.json: what a dataset is. Created once, compared by every later run, completed from the scenes that exist."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from megasynth_attr import __version__
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, read_json, storage_errors
from megasynth_attr.core.run_folder import Kind, check, read_record, require_same, share
from megasynth_attr.core.temporary import remove_leftovers, replace_atomically
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.conventions import CONVENTIONS, DATASET_FORMAT
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.recorded import read_recorded, sealed
from megasynth_attr.dataset.scene_files import scene_file
from megasynth_attr.scene.config import Config, dataset_identity

DATASET = Kind(
    "dataset",
    paths.DATASET_FILE,
    DATASET_FORMAT,
    keys=("attribute", "dataset_index", "fingerprint", "scene_count"),
    tables=("config",),
)


def check_dataset(config: Config, out: Path, dataset_index: int) -> None:
    """Raise, and change nothing, if ``open_for_writing`` would refuse the folder for what it holds."""
    folder = paths.dataset_dir(out, config.attribute, dataset_index)
    check(folder, DATASET)
    if (folder / DATASET.record).is_file():
        fresh = _initial_record(config, dataset_index)
        require_same(folder, DATASET, _identity(_read(folder)), _identity(fresh))


def open_for_writing(config: Config, out: Path, dataset_index: int) -> Path:
    """Return the folder of dataset ``dataset_index``, created if it does not exist yet.

    Any number of processes may call this at once. Temporary folders of dead processes are removed. Raises ConfigError,
    with everything left as it was, if the folder holds another dataset (naming the settings that differ) or files that
    are no dataset; EnvironmentProblem if it cannot be written.
    """
    folder = paths.dataset_dir(out, config.attribute, dataset_index)
    fresh = _initial_record(config, dataset_index)

    def continued(existing: dict[str, Any]) -> dict[str, Any]:
        require_same(folder, DATASET, _identity(existing), _identity(fresh))
        more_scenes = existing["scene_count"] < fresh["scene_count"]
        return sealed(existing | fresh) if more_scenes else existing

    share(folder, DATASET, fresh, continued)
    remove_leftovers(folder / paths.TMP)
    return folder


def finalise(
    dataset: Path, material_records: Iterable[Mapping[str, Any]], isolation: Mapping[str, Any] | None = None
) -> None:
    """Complete dataset.json from the scene folders that exist: hashes per scene, and the materials they use.

    ``material_records`` are mappings with at least name and identity; those no scene uses are left out. ``isolation``
    None keeps what the file has. The result depends on the scenes alone, so several processes may call this: each
    looks again after writing and starts over if a scene has appeared meanwhile.
    """
    materials = {str(m["name"]): dict(m) for m in material_records}
    while True:
        record = _read(dataset)
        indices = paths.finished_scenes(dataset)
        scenes, used = {}, set()
        for index in indices:
            scene = read_json(file := scene_file(paths.scene_path(dataset, index), paths.SCENE_FILE))
            try:
                scenes[paths.scene_name(index)] = {"hashes": scene["hashes"]}
                used |= set(scene["factors"].get("texture", {}).get("identities", {}))
            except (AttributeError, KeyError, TypeError) as error:
                raise DatasetError(f"{file} is damaged ({error}); {RENDER_ANEW}") from None
        # materials known from an earlier call stay known, so that a call without records loses no licence
        known = {str(m["name"]): m for m in record.get("materials", [])} | materials
        record["scenes"] = scenes
        record["materials"] = [known[name] for name in sorted(used & known.keys())]
        if isolation is not None:
            record["isolation"] = dict(isolation)
        target = dataset / paths.DATASET_FILE
        with storage_errors("dataset.json", target):
            replace_atomically(target, json_bytes(sealed(record)))
        if paths.finished_scenes(dataset) == indices:
            return


def _initial_record(config: Config, dataset_index: int) -> dict[str, Any]:
    settings = {key: value for key, value in config.to_record().items() if key != "run"}
    record = {
        "format": DATASET_FORMAT,
        "version": __version__,
        "attribute": config.attribute,
        "dataset_index": dataset_index,
        "fingerprint": config.fingerprint(),
        "config": settings,
        "conventions": CONVENTIONS,
        "scene_count": config.content.scene_count,
    }
    return sealed(json.loads(json_bytes(record)))


def _read(folder: Path) -> dict[str, Any]:
    """Return dataset.json; DatasetError if it is missing or damaged."""
    record = read_record(folder, DATASET)
    read_recorded(record, f"{folder / DATASET.record} is damaged")
    return record


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**dataset_identity(record["config"]), **{key: record[key] for key in ("attribute", "dataset_index")}}
