"""The stages pretrain, cluster, mine and compare: each runs its own program inside the experiment's folder.

::

    <out>/training/pretrain/       a run folder (finetune.py), if training.pretrain.optim.steps is given
    <out>/training/cluster/        the adapters (cluster.py), chapter.json
    <out>/training/subspaces/      the bases and their analysis (mine.py), report/, chapter.json
    <out>/training/comparison/     runs, evaluations, tables (compare/), index.html, chapter.json

Running again continues: what is finished is skipped. Each stage raises what its program raises.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.stages import StageRun
from megasynth_attr.dataset.paths import DATASET_FILE
from megasynth_train import finetune
from megasynth_train import mine as miner
from megasynth_train.cluster import require_all, run_cluster, summary
from megasynth_train.compare.run import run as run_comparison
from megasynth_train.evaluate.protocols import clearpose_faults
from megasynth_train.experiment.cluster_chapter import write_cluster_chapter
from megasynth_train.experiment.settings import CLUSTER, PRETRAIN, SUBSPACES, StageSettings, stage_settings
from megasynth_train.training.cluster_manifest import MANIFEST, ClusterSettings
from megasynth_train.training.run_folder import DONE
from megasynth_train.training.settings import ModelSettings


def pretrain(run: StageRun) -> None:
    """Train the base model on the members' datasets, if training.pretrain.optim.steps is given."""
    settings = stage_settings(run)
    if settings.pretrain is None:
        model = settings.cluster.model
        base = model.checkpoint or f"{model.size} with random weights (seed {model.seed})"
        print(f"pretrain  none: the base model is {base}", flush=True)
        return
    _require(run, run.datasets)
    result = finetune.run(settings.pretrain)
    print(f"pretrain  {result.steps} steps, objective {result.objective}: {result.result}", flush=True)


def cluster(run: StageRun) -> None:
    """Train one adapter per dataset of the members; AdaptersFailed if some could not be trained."""
    settings = _with_base(run)
    _require(run, run.datasets)
    outcomes = run_cluster(
        ClusterSettings(
            **vars(settings.cluster),
            experiment=str(run.out),
            datasets=run.datasets,
            shard=run.shard,
            seed=settings.seed,
            parallel=settings.parallel,
        )
    )
    folder = run.folder(CLUSTER)
    print(summary(outcomes, folder), flush=True)
    require_all(outcomes)
    write_cluster_chapter(folder)


def mine(run: StageRun) -> None:
    """Mine the subspaces of the members' attributes from the cluster."""
    settings = _with_base(run)
    if not (run.folder(CLUSTER) / MANIFEST).is_file():
        raise DatasetError(f"{run.folder(CLUSTER)} holds no adapters yet; run the stage cluster first")
    # loading the base model takes long, and other adapters can be mined without it
    needs_base = settings.cluster.adapter.mode == "dora" or settings.mining.allocate_from == "base"
    result = miner.run(
        miner.MineSettings(
            cluster=(str(run.folder(CLUSTER)),),
            out=str(run.folder(SUBSPACES)),
            model=settings.cluster.model if needs_base else ModelSettings(),
            mining=settings.mining,
            run=settings.mine,
        )
    )
    print(f"mine      {result.out}", flush=True)


def compare(run: StageRun) -> None:
    """Train and evaluate the methods on the downstream data; ``check_compare`` has made sure that there is some."""
    settings = _with_base(run)
    assert settings.compare is not None
    _require(run, (*run.downstream, *(name for names in run.across.values() for name in names)))
    if run.photographs:
        for fault in clearpose_faults([Path(source) for source in settings.compare.data.sources]):
            print(f"{fault}; training uses it all the same", file=sys.stderr, flush=True)
    run_comparison(replace(settings.compare, shard=run.shard))


def _with_base(run: StageRun) -> StageSettings:
    """Return the settings; DatasetError if the base model they name has still to be trained."""
    settings = stage_settings(run)
    if settings.pretrain is not None and not (run.folder(PRETRAIN) / DONE).is_file():
        raise DatasetError(f"{run.folder(PRETRAIN)} holds no finished base model yet; run the stage pretrain first")
    return settings


def _require(run: StageRun, names: tuple[str, ...]) -> None:
    """Raise DatasetError if a dataset has not been generated."""
    for name in names:
        if not (folder := Path(run.out) / name / DATASET_FILE).is_file():
            raise DatasetError(f"{folder.parent} does not exist yet; run the stage generate first")
