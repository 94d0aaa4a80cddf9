"""What the stages of the training half cost before anything is measured: arithmetic of a step at a stated rate.

Free of PyTorch. On a GPU the rates are those assumed in ``megasynth_train.cost`` for one H200: computed, not measured.
On processors it is the rate that training ``vggt-tiny`` reached on two cores (benchmarks/train_step.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megasynth_train.compare.methods import Method
from megasynth_train.cost import expected_s, mean_over_views, step_cost
from megasynth_train.cost_layers import Tuning
from megasynth_train.experiment.settings import (
    CLUSTER,
    COMPARISON,
    PRETRAIN,
    StageSettings,
    TrainingRun,
    stage_settings,
)
from megasynth_train.settings import AdapterSettings, TrainSettings
from megasynth_train.vggt.config import named_config

CPU_TFLOPS = 0.05
DONE = "done.json"  # of a finished run, see run_folder.py
KINDS = {"full": "full", "heads": "heads", "lora_xs": "basis", "subspace": "basis"}  # others: low-rank updates


@dataclass(frozen=True)
class StageCost:
    """One stage: what it does and how long that takes; None: little, not estimated."""

    stage: str
    text: str
    seconds: float | None = None


def stage_costs(run: TrainingRun, stages: Sequence[str]) -> list[StageCost]:
    """Return the cost of each of ``stages``; ConfigError for settings that cannot work."""
    settings = stage_settings(run)
    found = []
    if "pretrain" in stages and settings.pretrain is not None:
        left = 0 if (run.folder(PRETRAIN) / DONE).is_file() else 1
        found.append(_cost("pretrain", "1 model", left, settings.pretrain, step_seconds(settings.pretrain)))
    if "cluster" in stages:
        names = run.cluster_datasets
        left = sum(not (run.folder(CLUSTER) / name / DONE).is_file() for name in names)
        what = f"{len(names)} adapter{'s' * (len(names) != 1)}"
        found.append(_cost("cluster", what, left, settings.cluster, step_seconds(settings.cluster)))
    if "mine" in stages:
        found.append(StageCost("mine", "seconds to minutes on processors"))
    if "compare" in stages and settings.compare is not None:
        found.append(comparison_cost(run, settings))
    return found


def comparison_cost(run: TrainingRun, settings: StageSettings) -> StageCost:
    """Return the cost of all runs of the comparison that are not finished."""
    compare = settings.compare
    assert compare is not None
    attributes = settings.mining.attributes or tuple(run.members)
    dimension = settings.mining.dimension * len(attributes)
    methods = [method for method in compare.resolve(attributes, dimension) if method.adapter is not None]
    seconds, left = 0.0, 0
    for method in methods:
        step_s = step_seconds(compare.training(), method_tuning(method, settings.mining.dimension, len(attributes)))
        unfinished = sum(not _run_folder(run, method, seed, DONE).is_file() for seed in compare.seeds)
        seconds += unfinished * compare.optim.steps * step_s
        left += unfinished
    what = f"{len(methods)} methods × {len(compare.seeds)} seed{'s' * (len(compare.seeds) != 1)}"
    return _text("compare", what, left, len(methods) * len(compare.seeds), compare.training(), seconds)


def _run_folder(run: TrainingRun, method: Method, seed: int, file: str) -> Path:
    return run.folder(COMPARISON) / "runs" / method.name / f"seed_{seed}" / file


def step_seconds(settings: TrainSettings, what: Tuning | None = None) -> float:
    """Return the mean duration of a step, over the numbers of views that are drawn."""
    settings = settings.resolved()
    config = named_config(settings.model.size, point_head=False)
    trained = what or tuning(settings.adapter, settings.adapter.rank)
    data = settings.data

    def seconds(shape: object) -> float:
        cost = step_cost(config, shape, trained, recompute=settings.model.gradient_checkpointing)  # type: ignore[arg-type]
        return expected_s(cost) if on_gpu(settings) else cost.total / (CPU_TFLOPS * 1e12)

    height_px = round(data.width_px * sum(data.aspect) / 2 / 14) * 14
    return mean_over_views(
        seconds, views=data.views, images_per_step=data.images_per_step, height_px=height_px, width_px=data.width_px
    )


def tuning(adapter: AdapterSettings, rank: int) -> Tuning:
    """Return what an adapter costs by, ``rank`` being its rank or the columns of its basis."""
    kind = KINDS.get(adapter.mode, "lora")
    return Tuning("all" if kind == "full" and adapter.train_encoder else kind, rank, adapter.head_rank or 16)


def method_tuning(method: Method, dimension: int, attributes: int) -> Tuning:
    """Return the same for a method of a comparison; ``dimension`` columns for each of ``attributes``."""
    assert method.adapter is not None
    chosen = len(getattr(method.adapter, "attributes", ())) or attributes
    return tuning(method.adapter, dimension * chosen if method.basis else method.adapter.rank)


def on_gpu(settings: TrainSettings) -> bool:
    """Return whether to estimate for a GPU: asked for, or left open with a model that is hopeless without."""
    return settings.run.device == "cuda" or (settings.run.device == "auto" and settings.model.size == "vggt-1b")


def _cost(stage: str, what: str, left: int, settings: TrainSettings, step_s: float) -> StageCost:
    return _text(stage, what, left, int(what.split()[0]), settings, left * settings.optim.steps * step_s)


def _text(stage: str, what: str, left: int, runs: int, settings: TrainSettings, seconds: float) -> StageCost:
    """Return the cost in words: runs × steps, hours, and where the rate comes from."""
    steps = settings.optim.steps
    if not left:
        return StageCost(stage, f"{what} × {steps:,} steps: all are trained", 0.0)
    step_s = seconds / (left * steps)
    machine, source = (
        ("hours of one H200", "computed at assumed rates, not measured")
        if on_gpu(settings)
        else ("hours of 2 cores", f"at {CPU_TFLOPS} TFLOP/s, measured with vggt-tiny")
    )
    share = "" if left == runs else f", {left} of {runs} still to do"
    text = f"{what} × {steps:,} steps of {settings.model.size}{share}: about {_hours(seconds)} {machine} "
    return StageCost(stage, f"{text}({step_s:.2g} s a step, {source}; loading and evaluation not counted)", seconds)


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"
