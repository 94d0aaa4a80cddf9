"""``python -m megasynth_train.cluster``: one adapter per dataset of an experiment, all trained alike.

::

    <out>/cluster.json           the manifest, written before anything is trained: datasets, seeds, settings, base model
    <out>/<dataset>/             one run folder per dataset (finetune.py) with its adapter/

Running the same command again continues: finished adapters are skipped, unfinished ones resume. Every adapter starts
from a seed of its own, derived from the cluster's seed and the dataset's name; drift.py says why.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from accelerate.state import PartialState

from megasynth_attr.dataset.files import json_bytes, read_json, storage_errors
from megasynth_attr.dataset.paths import DATASET_FILE
from megasynth_attr.dataset.reader import Dataset, open_dataset, open_experiment
from megasynth_attr.dataset.temporary import create_exclusively
from megasynth_attr.errors import (
    ConfigError,
    DatasetError,
    EnvironmentProblem,
    ExitCode,
    Interrupted,
    MegaSynthError,
    run_main,
)
from megasynth_attr.farm.stop import StopRequest
from megasynth_attr.scene.codec import to_plain
from megasynth_attr.scene.fields import setting
from megasynth_attr.selection import parse_shard, shard_of
from megasynth_train import drift, finetune
from megasynth_train.checkpoints import check_same_run
from megasynth_train.command import Help, parse
from megasynth_train.processes import make_accelerator, on_main
from megasynth_train.settings import (
    AdapterSettings,
    DataSettings,
    LossSettings,
    ModelSettings,
    OptimSettings,
    RunSettings,
    TrainSettings,
)
from megasynth_train.vggt.checkpoint import weights_hash

MANIFEST = "cluster.json"
FORMAT = "megasynth-attr cluster 1"
SEED_BYTES = 6  # below 2^53, so that every JSON reader returns the number unchanged
OWN_KEYS = ("data.sources", "adapter.seed", "run.out")  # differ from adapter to adapter
# the base model is compared by its weights, see Manifest; the rest may differ as in a resumed run
FREE_KEYS = finetune.FREE_KEYS | set(OWN_KEYS)

HELP = Help(
    usage="python -m megasynth_train.cluster experiment=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Trains one adapter per dataset of an experiment: the cluster from which subspaces are mined. Running the\n"
        "same command again continues. A farm of GPUs: the same command everywhere, each with its own shard=i/n, in\n"
        "any order. A dataset that fails does not stop the others: it is named at the end, with exit code 3."
    ),
    examples=(
        "python -m megasynth_train.cluster experiment=runs/full out=runs/loras checkpoint=facebook/VGGT-1B rank=16",
        "python -m megasynth_train.cluster experiment=runs/demo out=runs/demo_loras model=vggt-tiny steps=100 lr=1e-3",
        "CUDA_VISIBLE_DEVICES=2 python -m megasynth_train.cluster experiment=runs/full out=runs/loras shard=3/8",
    ),
)


@dataclass(frozen=True)
class ClusterSettings:
    """All keys of ``python -m megasynth_train.cluster``."""

    experiment: str = setting("", "folder with datasets, as the generator writes it")
    datasets: tuple[str, ...] = setting((), "names of the datasets to train on; empty: all")
    shard: str = setting("1/1", "this process's share of the datasets, i/n, counted from 1")
    seed: int = setting(0, "each adapter's seed is derived from this one and the dataset's name", minimum=0)
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def training(self) -> TrainSettings:
        """Return what is common to all runs."""
        return TrainSettings(**{f.name: getattr(self, f.name) for f in fields(TrainSettings)}).resolved()


@dataclass(frozen=True)
class Outcome:
    """What became of one dataset: "trained", "done before", or "failed" with a message."""

    name: str
    status: str
    message: str = ""
    objective: float | None = None
    seconds: float = 0.0


class AdaptersFailed(MegaSynthError):
    """Some adapters could not be trained; the others are complete."""

    exit_code = ExitCode.SCENES_FAILED


def run_cluster(settings: ClusterSettings) -> list[Outcome]:
    """Train this shard's adapters and return what became of each; ConfigError if ``out`` holds another cluster.

    A failing dataset is an outcome. What would fail all of them is raised: EnvironmentProblem (no GPU, full disk) and
    Interrupted (signal or max_runtime_s), after which the same command continues.
    """
    _check(settings)
    share = parse_shard(settings.shard)
    out = Path(settings.run.out).expanduser().resolve()
    with StopRequest(settings.run.max_runtime_s) as stop:
        deadline = time.monotonic() + settings.run.max_runtime_s
        accelerator = make_accelerator(settings.run.device)
        manifest: dict[str, Any] = on_main(accelerator, lambda: open_manifest(out, settings))
        outcomes = []
        for name in shard_of(sorted(manifest["adapters"]), *share):
            stop.check()
            remaining = max(deadline - time.monotonic(), 1e-3) if settings.run.max_runtime_s else 0.0
            outcomes.append(_train_one(out, name, manifest, settings, remaining))
    return outcomes


def open_manifest(out: Path, settings: ClusterSettings) -> dict[str, Any]:
    """Return cluster.json, written if there is none yet; ConfigError naming the first difference to the one there."""
    fresh = new_manifest(settings)
    with storage_errors("the cluster's manifest", out):
        out.mkdir(parents=True, exist_ok=True)
        if create_exclusively(out / MANIFEST, json_bytes(fresh)):
            return fresh
    existing = read_json(out / MANIFEST, FORMAT)
    check_same_run(existing["identity"], json.loads(json_bytes(fresh["identity"])), out)
    return existing


def new_manifest(settings: ClusterSettings) -> dict[str, Any]:
    """Return the manifest of ``settings``: one entry per dataset, and everything that decides the result.

    The base model is loaded once, for the hash of its weights: all adapters of a cluster must belong to one model.
    """
    datasets = _chosen(settings)
    training = settings.training()
    model = finetune.base_model(training, [])
    identity: dict[str, Any] = {
        f"{section.name}.{key}": value
        for section in fields(TrainSettings)
        for key, value in to_plain(getattr(training, section.name)).items()
        if f"{section.name}.{key}" not in FREE_KEYS
    }
    identity |= {"seed": settings.seed, "datasets": sorted(_name(dataset) for dataset in datasets)}
    identity["the base model of model.checkpoint and model.seed (SHA-256)"] = weights_hash(model)
    identity |= {f"the content of {_name(dataset)} (SHA-256)": content_sha256(dataset) for dataset in datasets}
    return {
        "format": FORMAT,
        "experiment": str(Path(settings.experiment).expanduser().resolve()),
        "adapters": {_name(dataset): _entry(dataset, settings.seed) for dataset in datasets},
        "settings": to_plain(training),
        "identity": identity,
    }


def adapter_seed(cluster_seed: int, dataset: str) -> int:
    """Return the seed of one adapter's initial values: 48 bits of a hash, so that no two are alike by construction."""
    text = f"{FORMAT}|seed={cluster_seed}|dataset={dataset}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:SEED_BYTES], "big")


def content_sha256(dataset: Dataset) -> str:
    """Return the hash of what the dataset was asked to be and of every scene it has, wherever it lies.

    DatasetError if dataset.json was not finished.
    """
    if missing := [key for key in ("fingerprint", "scenes") if key not in dataset.record]:
        raise DatasetError(
            f"{dataset.path / DATASET_FILE} lacks {missing[0]}: the dataset was not finished; generate it"
        )
    content = {key: dataset.record[key] for key in ("fingerprint", "scenes")}
    return hashlib.sha256(json_bytes(content)).hexdigest()


def summary(manifest: Mapping[str, Any], outcomes: Sequence[Outcome], out: Path) -> str:
    """Return a table with one line per dataset: status, last objective and how far lora_A went."""
    rows = [("dataset", "status", "objective", "change of A", "angle", "seconds")]
    known = {outcome.name: outcome for outcome in outcomes}
    for name in sorted(manifest["adapters"]):
        outcome = known.get(name, Outcome(name, "not in this shard"))
        file = out / name / finetune.ADAPTER / drift.FILE
        moved = read_json(file, drift.FORMAT)["summary"].get("default", {}) if file.is_file() else {}
        rows.append(
            (
                name,
                outcome.status,
                "" if outcome.objective is None else f"{outcome.objective:.5g}",
                f"{moved['median_relative_change']:.3g}" if moved else "",
                f"{moved['median_largest_angle_deg']:.3g}°" if moved else "",
                f"{outcome.seconds:.0f}" if outcome.seconds else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)


def _train_one(
    out: Path, name: str, manifest: Mapping[str, Any], settings: ClusterSettings, remaining_s: float
) -> Outcome:
    entry, common, started = manifest["adapters"][name], settings.training(), time.monotonic()
    run_settings = replace(
        common,
        data=replace(common.data, sources=(str(Path(settings.experiment).expanduser() / name),)),
        adapter=replace(common.adapter, seed=entry["seed"]),
        run=replace(common.run, out=str(out / name), max_runtime_s=remaining_s),
    )
    record = {"dataset": name, **entry, "cluster_seed": settings.seed}
    try:
        result = finetune.run(run_settings, record=record)
    except (EnvironmentProblem, Interrupted):
        raise
    except MegaSynthError as error:
        return Outcome(name, "failed", f"{type(error).__name__}: {error}", seconds=time.monotonic() - started)
    except Exception as error:  # a defect on one dataset must not cost the nights of the others; it is named at the end
        traceback.print_exc()
        return Outcome(name, "failed", f"{type(error).__name__}: {error}", seconds=time.monotonic() - started)
    status = "done before" if result.already_done else "trained"
    return Outcome(name, status, objective=result.objective, seconds=time.monotonic() - started)


def _entry(dataset: Dataset, cluster_seed: int) -> dict[str, Any]:
    return {
        "attribute": dataset.attribute,
        "dataset_index": dataset.dataset_index,
        "fingerprint": str(dataset.record["fingerprint"]),
        "content_sha256": content_sha256(dataset),
        "scenes": len(dataset.scenes),
        "seed": adapter_seed(cluster_seed, _name(dataset)),
    }


def _name(dataset: Dataset) -> str:
    return dataset.path.name


def _chosen(settings: ClusterSettings) -> list[Dataset]:
    experiment = Path(settings.experiment).expanduser()
    if not settings.datasets:
        return open_experiment(experiment)
    known = sorted(file.parent.name for file in experiment.glob(f"*/{DATASET_FILE}"))
    if unknown := [name for name in settings.datasets if name not in known]:
        raise ConfigError(f"datasets={unknown[0]}: not in {experiment}; it holds {', '.join(known) or 'no dataset'}")
    return [open_dataset(experiment / name) for name in sorted(set(settings.datasets))]


def _check(settings: ClusterSettings) -> None:
    if not settings.experiment or not settings.run.out:
        key = "out" if settings.experiment else "experiment"
        raise ConfigError(f"{key}= is missing, e.g. experiment=runs/demo out=runs/demo_loras")
    if settings.data.sources:
        raise ConfigError("data= names the data of a single run; a cluster takes experiment= and, to choose, datasets=")
    if settings.adapter.seed:
        raise ConfigError("adapter.seed= is derived for each adapter of a cluster; give the cluster's own, seed=")


def main(words: list[str]) -> None:
    """Train as the words say and print the table; AdaptersFailed at the end if some failed."""
    settings = parse(ClusterSettings, words, HELP)
    outcomes = run_cluster(settings)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if PartialState().is_main_process:
        out = Path(settings.run.out).expanduser().resolve()
        print(summary(read_json(out / MANIFEST, FORMAT), outcomes, out))
    PartialState().destroy_process_group()
    if failed:
        texts = "; ".join(f"{outcome.name}: {outcome.message}" for outcome in failed)
        raise AdaptersFailed(f"{len(failed)} of {len(outcomes)} adapters failed: {texts}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
