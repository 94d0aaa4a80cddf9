"""A cluster's settings, and the manifest that all its adapters must agree with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.fields import identity_of, setting
from megasynth_attr.core.files import json_bytes, read_json
from megasynth_attr.core.run_folder import Kind, check, flat, is_free, read_record, require_same, share
from megasynth_attr.dataset.paths import DATASET_FILE, in_order
from megasynth_attr.dataset.reader import Dataset, downstream_attributes, open_dataset, open_experiment
from megasynth_train.adapters import drift, trainable_counts
from megasynth_train.adapters.subspace.opening import identity as basis_identity
from megasynth_train.adapters.subspace.opening import open_for_model
from megasynth_train.data.sizes import check_settings
from megasynth_train.training.base_model import base_model
from megasynth_train.training.run_folder import ADAPTER, BASE_MODEL, DEFAULTS
from megasynth_train.training.settings import SeveralSettings
from megasynth_train.vggt.checkpoint import weights_hash
from megasynth_train.vggt.config import named_config

MANIFEST = "cluster.json"
FORMAT = "megasynth-attr cluster 1"
SEED_BYTES = 6  # below 2^53, so that every JSON reader returns the number unchanged
CLUSTER = Kind("cluster", MANIFEST, FORMAT, tables=("identity", "adapters"), paths=("adapters",), defaults=DEFAULTS)


@dataclass(frozen=True)
class ClusterSettings(SeveralSettings):
    """All keys of ``python -m megasynth_train.cluster``."""

    experiment: str = setting("", "folder with datasets, as the generator writes it")
    datasets: tuple[str, ...] = setting((), "names of the datasets to train on; empty: all but the downstream data")
    shard: str = setting("1/1", "this process's share of the datasets, i/n, counted from 1")
    seed: int = setting(0, "each adapter's seed is derived from this one and the dataset's name", minimum=0)


def open_manifest(out: Path, settings: ClusterSettings) -> dict[str, Any]:
    """Return cluster.json, written if there is none yet; ConfigError, naming the differences, if it is another one.

    It is replaced while no adapter has begun. Settings that fit no dataset, and a folder that is something else, are
    refused before anything is written.
    """
    if not (out / MANIFEST).exists():
        check(out, CLUSTER)
    fresh = new_manifest(settings)

    def continued(existing: dict[str, Any]) -> dict[str, Any]:
        if all(is_free(out / name) for name in existing["adapters"]):
            return fresh
        require_same(out, CLUSTER, existing["identity"], fresh["identity"])
        return existing

    return share(out, CLUSTER, fresh, continued)


def read_manifest(out: Path) -> dict[str, Any]:
    """Return cluster.json; DatasetError if it is missing or damaged."""
    return read_record(out, CLUSTER)


def drift_summary(run: Path) -> dict[str, Any]:
    """Return how far ``lora_A`` of the adapter in a run folder moved; empty if it has none, or is not trained yet."""
    file = run / ADAPTER / drift.FILE
    moved: dict[str, Any] = read_json(file, drift.FORMAT)["summary"].get("default", {}) if file.is_file() else {}
    return moved


def check_unchanged(out: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ConfigError if a command with other settings, started at the same time, has replaced ``manifest``."""
    if read_manifest(out)["identity"] != json.loads(json_bytes(manifest["identity"])):
        raise ConfigError(
            f"{out / MANIFEST} was replaced by a command with other settings while this one ran; what this one "
            "trained does not belong to it: start again with one command and another out="
        )


def new_manifest(settings: ClusterSettings) -> dict[str, Any]:
    """Return the manifest of ``settings``: one entry per dataset, and everything that decides the result.

    The base model is loaded once, for the hash of its weights: all adapters of a cluster must belong to one model.
    ConfigError for settings that no dataset can be trained with.
    """
    adapters = {dataset.path.name: _entry(dataset, settings.seed) for dataset in _chosen(settings)}
    training = settings.training()
    check_settings(training.data)
    # takes a second, without weights; refuses settings that no adapter can be made with
    trainable_counts(named_config(training.model.size, point_head=False), training.adapter, training.optim.steps)
    model = base_model(training.model, [])
    identity = flat(identity_of(training))
    del identity["adapter.seed"]  # each adapter has its own, see _entry
    identity |= {"seed": settings.seed, "datasets": sorted(adapters)}
    weights = weights_hash(model)
    open_for_model(training.adapter, model, weights)  # what would stop every run is refused here
    identity[BASE_MODEL] = weights
    identity |= basis_identity(training.adapter)
    identity |= {f"the content of {name} (SHA-256)": entry["content_sha256"] for name, entry in adapters.items()}
    return {
        "format": FORMAT,
        "experiment": str(Path(settings.experiment).resolve()),
        "adapters": adapters,
        "settings": to_plain(training),
        "identity": identity,
    }


def adapter_seed(cluster_seed: int, dataset: str) -> int:
    """Return the seed of one adapter's initial values: 48 bits of a hash, so that no two start alike."""
    text = f"{FORMAT}|seed={cluster_seed}|dataset={dataset}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:SEED_BYTES], "big")


def content_sha256(dataset: Dataset) -> str:
    """Return the hash of the dataset's configuration and of every scene in it, wherever it is stored.

    DatasetError if dataset.json was not finished.
    """
    scenes = dataset.listed()
    if "fingerprint" not in dataset.record or scenes is None:
        lacking = "scenes" if "fingerprint" in dataset.record else "fingerprint"
        raise DatasetError(f"{dataset.path / DATASET_FILE} lacks {lacking}: the dataset was not finished; generate it")
    content = {"fingerprint": dataset.record["fingerprint"], "scenes": dict(scenes)}
    return hashlib.sha256(json_bytes(content)).hexdigest()


def _entry(dataset: Dataset, cluster_seed: int) -> dict[str, Any]:
    return {
        "attribute": dataset.attribute,
        "dataset_index": dataset.dataset_index,
        "fingerprint": str(dataset.record["fingerprint"]),
        "content_sha256": content_sha256(dataset),
        "scenes": len(dataset.scenes),
        "seed": adapter_seed(cluster_seed, dataset.path.name),
    }


def _chosen(settings: ClusterSettings) -> list[Dataset]:
    experiment = Path(settings.experiment)
    if not settings.datasets:
        reserved = downstream_attributes(experiment)
        return [dataset for dataset in open_experiment(experiment) if dataset.attribute not in reserved]
    known = sorted(file.parent.name for file in experiment.glob(f"*/{DATASET_FILE}"))
    if unknown := [name for name in settings.datasets if name not in known]:
        raise ConfigError(f"datasets={unknown[0]}: not in {experiment}; it holds {', '.join(known) or 'no dataset'}")
    return [open_dataset(folder) for folder in in_order(experiment / name for name in set(settings.datasets))]
