"""dataset.json: what a dataset is. Created once, compared by every later run, completed from the scenes that exist."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from megasynth_attr import __version__
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import json_bytes, read_json, storage_errors
from megasynth_attr.core.temporary import create_exclusively, remove_leftovers, replace_atomically
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.conventions import CONVENTIONS, DATASET_FORMAT
from megasynth_attr.scene.config import NOT_IDENTITY, Config

SHOWN_DIFFERENCES = 3


def open_for_writing(config: Config, out: Path, dataset_index: int) -> Path:
    """Return the folder of dataset ``dataset_index``, created if it does not exist yet.

    Any number of processes may call this at once. Temporary folders of dead processes are removed. Raises ConfigError,
    with everything left as it was, if the folder holds another dataset (naming the settings that differ) or files that
    are no dataset; EnvironmentProblem if it cannot be written.
    """
    folder = paths.dataset_dir(out, config.attribute, dataset_index)
    file = folder / paths.DATASET_FILE
    fresh = _initial_record(config, dataset_index)
    if not file.is_file():
        _refuse_foreign_files(folder)
        with storage_errors("the dataset", folder):
            folder.mkdir(parents=True, exist_ok=True)
            if create_exclusively(file, json_bytes(fresh)):
                return folder
    existing = _existing_record(folder)
    _refuse_other_dataset(existing, fresh, folder)
    if existing["scene_count"] < fresh["scene_count"]:  # the same dataset, continued to more scenes
        with storage_errors("dataset.json", file):
            replace_atomically(file, json_bytes(existing | fresh))
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
        record = _existing_record(dataset)
        indices = paths.finished_scenes(dataset)
        scenes, used = {}, set()
        for index in indices:
            scene = read_json(paths.scene_dir(dataset, index) / paths.SCENE_FILE)
            scenes[paths.scene_name(index)] = {"hashes": scene["hashes"]}
            used |= set(scene["factors"].get("texture", {}).get("identities", {}))
        # materials known from an earlier call stay known, so that a call without records loses no licence
        known = {str(m["name"]): m for m in record.get("materials", [])} | materials
        record["scenes"] = scenes
        record["materials"] = [known[name] for name in sorted(used & known.keys())]
        if isolation is not None:
            record["isolation"] = dict(isolation)
        file = dataset / paths.DATASET_FILE
        with storage_errors("dataset.json", file):
            replace_atomically(file, json_bytes(record))
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
    plain: dict[str, Any] = json.loads(json_bytes(record))
    return plain


def _existing_record(folder: Path) -> dict[str, Any]:
    """Return dataset.json; DatasetError if it is damaged or incomplete."""
    file = folder / paths.DATASET_FILE
    record = read_json(file, DATASET_FORMAT)
    if missing := [k for k in ("attribute", "dataset_index", "fingerprint", "config") if k not in record]:
        raise DatasetError(f"{file} is damaged: {missing[0]} is missing; choose another out= or restore the file")
    return record


def _refuse_foreign_files(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file, but the dataset's folder would have this name; choose another out=")
    with storage_errors("the dataset", folder):
        foreign = sorted(entry.name for entry in folder.iterdir() if entry.name != paths.TMP)
    if foreign and not (folder / paths.DATASET_FILE).is_file():  # it may have been created since
        raise ConfigError(
            f"{folder} holds {foreign[0]} but no {paths.DATASET_FILE}, so it is no dataset; nothing was changed there, "
            "choose another out= or move these files away"
        )


def _refuse_other_dataset(existing: Mapping[str, Any], fresh: Mapping[str, Any], folder: Path) -> None:
    keys = ("fingerprint", "attribute", "dataset_index")
    if all(existing[key] == fresh[key] for key in keys):
        return
    before = _flat(_identity(existing)) | {k: existing[k] for k in keys[1:]}
    now = _flat(_identity(fresh)) | {k: fresh[k] for k in keys[1:]}
    different = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    shown = [
        f"{key.removeprefix('content.').removeprefix('factors.')} is {_shown(before, key)} there and "
        f"{_shown(now, key)} now"
        for key in different[:SHOWN_DIFFERENCES]
    ]
    more = f" (and {len(different) - len(shown)} more)" if len(different) > len(shown) else ""
    raise ConfigError(
        f"{folder} holds another dataset: {'; '.join(shown)}{more}. Nothing was changed there; "
        "choose another out=, or use the settings it was made with"
    )


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in dataset.json that the fingerprint covers."""
    settings = {key: value for key, value in record["config"].items() if key != "isolation"}
    settings["content"] = {k: v for k, v in settings.get("content", {}).items() if k not in NOT_IDENTITY}
    return settings


def _flat(record: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, keys joined by dots."""
    if not isinstance(record, Mapping):
        return {prefix.rstrip("."): record}
    return {k: v for key, value in record.items() for k, v in _flat(value, f"{prefix}{key}.").items()}


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "absent"
