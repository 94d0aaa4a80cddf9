"""dataset.json: what a dataset is. Created once, compared by every later run, completed from the scenes that exist."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from megasynth_attr import __version__
from megasynth_attr.core.files import json_bytes, storage_errors
from megasynth_attr.core.run_folder import Kind, check, read_record, require_same, share
from megasynth_attr.core.temporary import remove_leftovers
from megasynth_attr.dataset import index, paths
from megasynth_attr.dataset.conventions import CONVENTIONS, DATASET_FORMAT
from megasynth_attr.dataset.record_file import listed_names, listed_scenes, read_record_file, sealed, write_record_file
from megasynth_attr.dataset.recorded import read_recorded
from megasynth_attr.scene.config import Config, dataset_identity


def _rewrite(file: Path, record: Mapping[str, Any]) -> None:
    """Replace what dataset.json says except its list of scenes."""
    write_record_file(file, record, listed_scenes(file))


DATASET = Kind(
    "dataset",
    paths.DATASET_FILE,
    DATASET_FORMAT,
    keys=("attribute", "dataset_index", "fingerprint", "scene_count"),
    tables=("config",),
    read=read_record_file,
    write=_rewrite,
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
        return existing | fresh if more_scenes else existing

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
    file = dataset / paths.DATASET_FILE
    while True:
        record = _read(dataset)
        with storage_errors(paths.DATASET_FILE, file):
            used, names = index.bring_up_to_date(dataset)
            # materials known from an earlier call stay known, so that a call without records loses no licence
            known = {str(m["name"]): m for m in record.get("materials", [])} | materials
            record["materials"] = [known[name] for name in sorted(used & known.keys())]
            if isolation is not None:
                record["isolation"] = dict(isolation)
            write_record_file(file, record, ((line.name, {"hashes": line.hashes}) for line in index.lines(dataset)))
        if names == index.names_digest(listed_names(file)) == _names_that_exist(dataset):
            return


def lists_all(dataset: Path) -> bool:
    """Return whether dataset.json lists exactly the scenes that exist."""
    return index.names_digest(listed_names(dataset / paths.DATASET_FILE)) == _names_that_exist(dataset)


def _names_that_exist(dataset: Path) -> str:
    names = (paths.scene_name(i) for indices in paths.finished_by_thousand(dataset) for i in indices)
    return index.names_digest(names)


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
