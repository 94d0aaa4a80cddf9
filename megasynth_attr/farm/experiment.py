"""experiment.json: what an output folder holds. Written before anything runs, compared by every later run."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import scipy

from megasynth_attr import __version__
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.machine import check_writable
from megasynth_attr.core.run_folder import Kind, differences, refusal, share
from megasynth_attr.core.selection import parse_indices
from megasynth_attr.core.temporary import remove_leftovers
from megasynth_attr.dataset.paths import DATASET_FILE, EXPERIMENT_FILE, TMP, dataset_dir, dataset_name
from megasynth_attr.dataset.record import check_dataset
from megasynth_attr.scene.config import Config, Experiment, dataset_identity

EXPERIMENT = Kind(
    "experiment", EXPERIMENT_FILE, "megasynth-attr experiment 1", tables=("attributes",), alone=False
)  # other things may lie beside its datasets


def open_experiment_for_writing(experiment: Experiment) -> None:
    """Create or extend ``<out>/experiment.json``.

    A folder may be continued with more scenes or datasets, or with another member of the same experiment. Raises
    ConfigError, with everything left as it was, if an attribute or one of its datasets was made with other settings or
    if the folder has no attribute in common with this experiment; EnvironmentProblem if it cannot be written.
    """
    if not (experiment.out / EXPERIMENT_FILE).is_file():
        check_writable(experiment.out)
        _check_datasets(experiment)
    fresh = _record(experiment)

    def continued(existing: dict[str, Any]) -> dict[str, Any]:
        record = _extended(existing, fresh, experiment.out)
        if record != existing:
            _check_datasets(experiment)
        return record

    share(experiment.out, EXPERIMENT, fresh, continued)
    remove_leftovers(experiment.out / TMP)


def _check_datasets(experiment: Experiment) -> None:
    for config in experiment.configs:
        for index in range(config.content.dataset_count):
            check_dataset(config, experiment.out, index)


def _extended(existing: dict[str, Any], fresh: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Return ``existing`` extended by what ``fresh`` adds; ConfigError if they have different settings."""
    attributes = dict(existing["attributes"])
    common = attributes.keys() & fresh["attributes"].keys()
    if not common:
        varied, now = (", ".join(sorted(record["attributes"])) for record in (existing, fresh))
        raise refusal(out, EXPERIMENT, f"it varies {varied}, this one {now}")
    for name, entry in fresh["attributes"].items():
        before = attributes.get(name, entry)
        if found := differences(dataset_identity(before["config"]), dataset_identity(entry["config"])):
            raise refusal(out, EXPERIMENT, f"in {name}, {found}")
        more = len(entry["datasets"]) > len(before["datasets"]) or entry["scene_count"] > before["scene_count"]
        if name not in common or more:
            attributes[name] = entry
    downstream = sorted({*existing.get("downstream", []), *fresh["downstream"]})
    if attributes == existing["attributes"] and downstream == existing.get("downstream", []):
        return existing
    return existing | {"attributes": attributes, "downstream": downstream}


def require_experiment(experiment: Experiment) -> None:
    """Raise DatasetError unless ``out`` holds an experiment, or at least one of this experiment's datasets."""
    if (experiment.out / EXPERIMENT_FILE).is_file():
        return
    for config in experiment.configs:
        for index in range(config.content.dataset_count):
            if (dataset_dir(experiment.out, config.attribute, index) / DATASET_FILE).is_file():
                return
    raise DatasetError(f"out={experiment.out}: there is no experiment here; run the stage generate first")


def require_datasets(experiment: Experiment) -> None:
    """Raise DatasetError unless every selected dataset has been begun."""
    for config in experiment.configs:
        for index in parse_indices(config.run.datasets, config.content.dataset_count, "datasets"):
            folder = dataset_dir(experiment.out, config.attribute, index)
            if not (folder / DATASET_FILE).is_file():
                raise DatasetError(f"{folder} does not exist yet; run the stage generate first")


def _record(experiment: Experiment) -> dict[str, Any]:
    versions = {
        "megasynth-attr": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }
    return {
        "format": EXPERIMENT.format,
        "preset": experiment.preset,
        "versions": versions,
        "attributes": {config.attribute: _attribute_record(config) for config in experiment.configs},
        "downstream": [experiment.downstream.attribute] if experiment.downstream else [],
    }


def _attribute_record(config: Config) -> dict[str, Any]:
    return {
        "fingerprint": config.fingerprint(),
        "datasets": [dataset_name(config.attribute, index) for index in range(config.content.dataset_count)],
        "scene_count": config.content.scene_count,
        "config": {key: value for key, value in config.to_record().items() if key != "run"},
    }
