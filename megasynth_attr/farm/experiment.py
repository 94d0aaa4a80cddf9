"""experiment.json: what an output folder holds. Written by the stage generate, compared by every other run."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import scipy

from megasynth_attr import __version__
from megasynth_attr.core.codec import Part
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.fields import REQUIRED, read_part, setting
from megasynth_attr.core.run_folder import Kind, differences, read_record, refusal, share
from megasynth_attr.core.temporary import remove_leftovers
from megasynth_attr.dataset.paths import DATASET_FILE, EXPERIMENT_FILE, TMP, dataset_dir, dataset_name
from megasynth_attr.dataset.record import check_dataset
from megasynth_attr.dataset.recorded import RecordedConfig
from megasynth_attr.scene.config import Config, Experiment, dataset_identity

EXPERIMENT = Kind(
    "experiment", EXPERIMENT_FILE, "megasynth-attr experiment 1", tables=("attributes",), alone=False
)  # other things may lie beside its datasets


@dataclass(frozen=True)
class RecordedMember(Part):
    """What experiment.json says of an attribute, as far as it is read here."""

    config: RecordedConfig = setting(REQUIRED, "")
    datasets: tuple[str, ...] = setting(REQUIRED, "")
    scene_count: int = setting(REQUIRED, "")


@dataclass(frozen=True)
class RecordedExperiment(Part):
    """experiment.json, as far as it is read here."""

    attributes: dict[str, RecordedMember] = setting(REQUIRED, "")
    downstream: tuple[str, ...] = ()


def open_experiment(experiment: Experiment) -> None:
    """Create or extend ``<out>/experiment.json``; raises what ``check_experiment`` raises.

    A folder may be continued with more scenes or datasets, or with another member of the same experiment.
    """
    fresh = check_experiment(experiment)
    share(experiment.out, EXPERIMENT, fresh, lambda existing: _extended(existing, fresh, experiment.out))
    remove_leftovers(experiment.out / TMP)


def check_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return the record of an experiment that ``out`` can hold, and change nothing.

    Raises ConfigError if an attribute or one of its datasets was made with other settings, or if the folder has no
    attribute in common with this experiment.
    """
    fresh = _record(experiment)
    if (experiment.out / EXPERIMENT_FILE).is_file():
        existing = read_record(experiment.out, EXPERIMENT)
        if _extended(existing, fresh, experiment.out) == existing:
            return fresh
    for config in experiment.configs:
        for index in range(config.content.dataset_count):
            check_dataset(config, experiment.out, index)
    return fresh


def _extended(existing: dict[str, Any], fresh: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Return ``existing`` extended by what ``fresh`` adds; ConfigError if they have different settings,
    DatasetError if ``existing`` is damaged."""
    read_part(RecordedExperiment, existing, f"{out / EXPERIMENT_FILE} is damaged")
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
    """Raise DatasetError unless ``out`` holds this experiment or one of its datasets.

    Raises what ``check_experiment`` raises, too.
    """
    held = (
        dataset_dir(experiment.out, config.attribute, index) / DATASET_FILE
        for config in experiment.configs
        for index in range(config.content.dataset_count)
    )
    if not any(file.is_file() for file in (experiment.out / EXPERIMENT_FILE, *held)):
        raise DatasetError(f"out={experiment.out}: there is no experiment here; run the stage generate first")
    check_experiment(experiment)


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
        "downstream": [c.attribute for c in experiment.configs[len(experiment.members) :]],
    }


def _attribute_record(config: Config) -> dict[str, Any]:
    return {
        "fingerprint": config.fingerprint(),
        "datasets": [dataset_name(config.attribute, index) for index in range(config.content.dataset_count)],
        "scene_count": config.content.scene_count,
        "config": {key: value for key, value in config.to_record().items() if key != "run"},
    }
