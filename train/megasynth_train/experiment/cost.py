"""The estimated cost of the training stages: the arithmetic of a step at a stated rate. Free of PyTorch.

On a GPU the rates are those assumed in ``cost/step.py`` for one H200, not measured. On CPUs it is the rate measured
when training ``vggt-tiny`` on two cores (benchmarks/train_step.md).
"""

from __future__ import annotations

from pathlib import Path

from megasynth_attr.core.pages.words import hours_text, in_words
from megasynth_attr.core.stages import CostLine, StageRun
from megasynth_train.compare.settings import CompareSettings, trial_folder
from megasynth_train.cost.layers import Tuning
from megasynth_train.cost.step import StepCost, expected_s, mean_step, tuning_of
from megasynth_train.evaluate.protocols import NONE
from megasynth_train.experiment.settings import CLUSTER, COMPARISON, PRETRAIN, stage_settings
from megasynth_train.training.settings import TrainSettings

CPU_TFLOPS = 0.05
DONE = "done.json"  # of a finished run, see run_folder.py


def pretrain_cost(run: StageRun) -> list[CostLine]:
    """Return the cost of training the base model, unless it is finished or taken as it is."""
    settings = stage_settings(run).pretrain
    if settings is None:
        return []
    left = int(not (run.folder(PRETRAIN) / DONE).is_file())
    return [_line("pretrain", "1 model", left, 1, settings, left * settings.optim.steps * step_seconds(settings))]


def cluster_cost(run: StageRun) -> list[CostLine]:
    """Return the cost of the adapters that are not trained yet."""
    settings, count = stage_settings(run).cluster, len(run.datasets)
    left = sum(not (run.folder(CLUSTER) / name / DONE).is_file() for name in run.datasets)
    what = f"{count} adapter{'s' * (count != 1)}"
    return [_line("cluster", what, left, count, settings, left * settings.optim.steps * step_seconds(settings))]


def mine_cost(run: StageRun) -> list[CostLine]:
    """Return a rough figure: mining is cheap."""
    return [CostLine("mine", "seconds to minutes on CPUs")]


def compare_cost(run: StageRun) -> list[CostLine]:
    """Return the cost of the comparison's unfinished runs."""
    settings = stage_settings(run)
    compare = settings.compare
    if compare is None:
        return []
    attributes = settings.mining.attributes or tuple(run.members)
    dimension = settings.mining.dimension * len(attributes)
    methods = [method for method in compare.resolve(attributes, dimension) if method.adapter is not None]
    seconds, left = 0.0, 0
    for method in methods:
        assert method.adapter is not None
        columns = settings.mining.dimension * len(method.adapter.attributes or attributes)
        step_s = step_seconds(compare.training(), tuning_of(method.adapter, columns))
        runs = run.folder(COMPARISON) / "runs" / method.name
        trials = [trial_folder(run.folder(COMPARISON), method.name, lr) for lr in compare.tune.lr]
        folders = [*(runs / f"seed_{seed}" for seed in compare.seeds), *trials]
        unfinished = sum(not (folder / DONE).is_file() for folder in folders)
        seconds += unfinished * compare.optim.steps * step_s
        left += unfinished
    what = f"{len(methods)} methods × {len(compare.seeds)} seed{'s' * (len(compare.seeds) != 1)}"
    if compare.tune.lr:
        what = f"{len(methods)} methods × ({what.partition(' × ')[2]} + {len(compare.tune.lr)} learning rates)"
    runs_each = len(compare.seeds) + len(compare.tune.lr)
    cost = _line("compare", what, left, len(methods) * runs_each, compare.training(), seconds)
    return [cost._replace(text=f"{cost.text}; {_task(compare)}")]


def _task(compare: CompareSettings) -> str:
    """Return on which data the methods are compared, in words."""
    tests = [(compare.test.data, compare.test.protocol, "")]
    if compare.across.data:
        tests.append((compare.across.data, compare.across.protocol, ", across domains"))
    named = []
    for data, protocol, domain in tests:
        by = f" by protocol {protocol}" if protocol != NONE else ""
        named.append(f"{', '.join(Path(folder).name for folder in data)}{by}{domain}")
    return f"tested on {in_words(named)}"


def step_seconds(settings: TrainSettings, tuning: Tuning | None = None) -> float:
    """Return the mean seconds of a step over the numbers of views that may be drawn."""
    gpu = on_gpu(settings)

    def seconds(cost: StepCost) -> float:
        return expected_s(cost) if gpu else cost.total / (CPU_TFLOPS * 1e12)

    return mean_step(settings, tuning or tuning_of(settings.adapter), seconds)


def on_gpu(settings: TrainSettings) -> bool:
    """Return whether to estimate for a GPU: it is asked for, or device=auto and the model is too large for CPUs."""
    return settings.run.device == "cuda" or (settings.run.device == "auto" and settings.model.size == "vggt-1b")


def _line(stage: str, what: str, left: int, runs: int, settings: TrainSettings, seconds: float) -> CostLine:
    """Return the cost in words: runs × steps, hours, and where the rate comes from."""
    steps = settings.optim.steps
    if not left:
        return CostLine(stage, f"{what} × {steps:,} steps: already trained", 0.0)
    step_s = seconds / (left * steps)
    machine, source = (
        ("hours of one H200", "computed at assumed rates, not measured")
        if on_gpu(settings)
        else ("hours of 2 cores", f"at {CPU_TFLOPS} TFLOP/s, measured with vggt-tiny")
    )
    share = "" if left == runs else f", {left} of {runs} still to do"
    text = f"{what} × {steps:,} steps of {settings.model.size}{share}: about {hours_text(seconds / 3600)} {machine} "
    return CostLine(stage, f"{text}({step_s:.2g} s per step, {source}; loading and evaluation not counted)", seconds)
