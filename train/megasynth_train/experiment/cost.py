"""What the stages of the training half cost before anything is measured: arithmetic of a step at a stated rate.

Free of PyTorch. On a GPU the rates are those assumed in ``cost/step.py`` for one H200: computed, not measured.
On processors it is the rate that training ``vggt-tiny`` reached on two cores (benchmarks/train_step.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.pages.words import hours_text
from megasynth_train.compare.methods import Method
from megasynth_train.cost.layers import Tuning
from megasynth_train.cost.run import mean_step, tuning_of
from megasynth_train.cost.step import StepCost, expected_s
from megasynth_train.experiment.checks import check_stages
from megasynth_train.experiment.settings import (
    CLUSTER,
    COMPARISON,
    PRETRAIN,
    StageSettings,
    TrainingRun,
    stage_settings,
)
from megasynth_train.training.settings import TrainSettings

CPU_TFLOPS = 0.05
DONE = "done.json"  # of a finished run, see run_folder.py


@dataclass(frozen=True)
class StageCost:
    """One stage: what it does and how long that takes; None: little, not estimated."""

    stage: str
    text: str
    seconds: float | None = None


def stage_costs(run: TrainingRun, stages: Sequence[str]) -> list[StageCost]:
    """Return the cost of each of ``stages``; ConfigError for settings that cannot work."""
    settings = stage_settings(run)
    check_stages(run, settings, stages)
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
        assert method.adapter is not None
        columns = settings.mining.dimension * len(method.adapter.attributes or attributes)
        step_s = step_seconds(compare.training(), tuning_of(method.adapter, columns))
        unfinished = sum(not _run_folder(run, method, seed, DONE).is_file() for seed in compare.seeds)
        seconds += unfinished * compare.optim.steps * step_s
        left += unfinished
    what = f"{len(methods)} methods × {len(compare.seeds)} seed{'s' * (len(compare.seeds) != 1)}"
    return _text("compare", what, left, len(methods) * len(compare.seeds), compare.training(), seconds)


def _run_folder(run: TrainingRun, method: Method, seed: int, file: str) -> Path:
    return run.folder(COMPARISON) / "runs" / method.name / f"seed_{seed}" / file


def step_seconds(settings: TrainSettings, tuning: Tuning | None = None) -> float:
    """Return the mean duration of a step, over the numbers of views that are drawn."""
    gpu = on_gpu(settings)

    def seconds(cost: StepCost) -> float:
        return expected_s(cost) if gpu else cost.total / (CPU_TFLOPS * 1e12)

    return mean_step(settings, tuning or tuning_of(settings.adapter), seconds)


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
    text = f"{what} × {steps:,} steps of {settings.model.size}{share}: about {hours_text(seconds / 3600)} {machine} "
    return StageCost(stage, f"{text}({step_s:.2g} s a step, {source}; loading and evaluation not counted)", seconds)
