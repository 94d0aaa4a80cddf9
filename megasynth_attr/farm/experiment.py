"""experiment.json: what an output folder holds. Written before anything runs, compared by every later run."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy
import scipy

from megasynth_attr import __version__
from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_attr.core.files import json_bytes, read_json, storage_errors
from megasynth_attr.core.machine import check_writable
from megasynth_attr.core.temporary import create_exclusively, remove_leftovers, replace_atomically
from megasynth_attr.dataset.paths import DATASET_FILE, EXPERIMENT_FILE, TMP, dataset_dir, dataset_name
from megasynth_attr.scene.config import NOT_IDENTITY, Config, Experiment

EXPERIMENT_FORMAT = "megasynth-attr experiment 1"


def open_experiment_for_writing(experiment: Experiment) -> None:
    """Create or extend ``<out>/experiment.json``.

    A folder may be continued with more scenes or datasets, or with another member of the same experiment. Raises
    ConfigError, with everything left as it was, if an attribute in it was made with other settings or if it has no
    attribute in common with this experiment; EnvironmentProblem if it cannot be written.
    """
    file = experiment.out / EXPERIMENT_FILE
    fresh = _record(experiment)
    if not file.is_file():
        check_writable(experiment.out)
        try:
            experiment.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"this folder cannot be created ({error.strerror})"
            raise EnvironmentProblem(f"out={experiment.out}: {reason}; choose another out=") from None
        with storage_errors("the experiment", experiment.out):
            if create_exclusively(file, json_bytes(fresh)):
                return
    remove_leftovers(experiment.out / TMP)
    existing = read_json(file, EXPERIMENT_FORMAT)
    _refuse_another(existing["attributes"], fresh["attributes"], experiment)
    attributes = dict(existing["attributes"])
    for name, entry in fresh["attributes"].items():
        if name not in attributes or len(entry["datasets"]) > len(attributes[name]["datasets"]) or (
            entry["scene_count"] > attributes[name]["scene_count"]
        ):  # fmt: skip
            attributes[name] = entry
    downstream = sorted({*existing.get("downstream", []), *fresh["downstream"]})
    if attributes != existing["attributes"] or downstream != existing.get("downstream", []):
        with storage_errors("the experiment", file):
            replace_atomically(file, json_bytes(existing | {"attributes": attributes, "downstream": downstream}))


def require_experiment(experiment: Experiment) -> None:
    """Raise DatasetError unless ``out`` holds an experiment, or at least one of this experiment's datasets."""
    if (experiment.out / EXPERIMENT_FILE).is_file():
        return
    for config in experiment.configs:
        for index in range(config.content.dataset_count):
            if (dataset_dir(experiment.out, config.attribute, index) / DATASET_FILE).is_file():
                return
    raise DatasetError(f"out={experiment.out}: there is no experiment here; run the stage generate first")


def _record(experiment: Experiment) -> dict[str, Any]:
    versions = {
        "megasynth-attr": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }
    return {
        "format": EXPERIMENT_FORMAT,
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


def _refuse_another(existing: Mapping[str, Any], fresh: Mapping[str, Any], experiment: Experiment) -> None:
    advice = "Nothing was changed there; choose another out=, or use the settings it was made with"
    common = sorted(existing.keys() & fresh.keys())
    if not common:
        raise ConfigError(
            f"{experiment.out} holds another experiment: it varies {', '.join(sorted(existing))}, this one "
            f"{', '.join(sorted(fresh))}. {advice}"
        )
    for name in common:
        if existing[name]["fingerprint"] != fresh[name]["fingerprint"]:
            before, now = existing[name]["config"], fresh[name]["config"]
            raise ConfigError(
                f"{experiment.out} holds another experiment: {name} was made with {differences(before, now)}. {advice}"
            )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], shown: int = 3) -> str:
    """Return the settings in which two records differ, as ``key=there (here: value)``."""
    flat_before, flat_now = _flat(before), _flat(now)
    keys = sorted(k for k in flat_before.keys() | flat_now.keys() if flat_before.get(k) != flat_now.get(k))
    texts = [
        f"{key.removeprefix('content.').removeprefix('factors.')}={flat_before.get(key)} (now {flat_now.get(key)})"
        for key in keys
        if not key.startswith("isolation.") and key.rpartition(".")[2] not in NOT_IDENTITY
    ]
    return ", ".join(texts[:shown]) + (f" and {len(texts) - shown} more" if len(texts) > shown else "")


def _flat(record: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(record, Mapping):
        return {prefix.rstrip("."): record}
    return {k: v for key, value in record.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
