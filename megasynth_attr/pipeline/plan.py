"""What a run will cost, said before it starts: frames, disk and core hours of rendering, and hours of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megasynth_attr.core.pages.words import duration_text, hours_text, size_text
from megasynth_attr.farm.tasks import free_bytes, make_plan, missing_bytes
from megasynth_attr.pipeline.stages import Stage, check_training_half, training_half_is_here, training_run
from megasynth_attr.scene.config import Experiment

SAID_FROM_S = 600.0  # a shorter run starts without a table


@dataclass(frozen=True)
class Line:
    """One thing a run does: how long it takes (None: not estimated, it is little) and how that is known."""

    name: str
    text: str
    seconds: float | None = None


def cost_text(experiment: Experiment, stages: Sequence[Stage]) -> str:
    """Return a table of what the chosen stages cost, empty for a short run unless ``plan=true``.

    Checks the settings of the training half on the way: raises ConfigError or DatasetError for those that cannot work,
    EnvironmentProblem if it is not installed.
    """
    lines = rendering_lines(experiment) if any(stage.name == "generate" for stage in stages) else []
    lines += training_lines(experiment, stages)
    total_s = sum(line.seconds or 0.0 for line in lines)
    if not experiment.run.plan and total_s < SAID_FROM_S:
        return ""
    width = max((len(line.name) for line in lines), default=0)
    head = f"cost      preset {experiment.preset}, stages {', '.join(stage.name for stage in stages)}"
    rows = [f"  {line.name:{width}}  {line.text}" for line in lines]
    end = ["nothing is written (plan=true)"] if experiment.run.plan else []
    return "\n".join([head, *(rows or ["  these stages take little"]), *end])


def rendering_lines(experiment: Experiment) -> list[Line]:
    """Return frames, disk and time of what is still to be rendered, from measured rates where there are any."""
    plan = make_plan(experiment)
    if not plan.todo:
        return [Line("rendering", "nothing: all selected scenes are complete")]
    frames: dict[str, int] = {}
    for task in plan.todo:
        frames[task.config.attribute] = frames.get(task.config.attribute, 0) + task.frames
    worker_s = sum(count * plan.seconds_per_frame[name].value for name, count in frames.items())
    measured = all(plan.seconds_per_frame[name].measured for name in frames)
    source = "measured here" if measured else "at rates measured on another machine, docs/overhead.md"
    render, run = experiment.members[0].render, experiment.run
    machine = "core hours" if run.device == "cpu" else "GPU hours"
    hours = worker_s * (plan.layout.threads if run.device == "cpu" else 1) / 3600
    by_attribute = ", ".join(f"{name} {count:,}" for name, count in frames.items())
    return [
        Line("frames", f"{plan.frames_todo:,} of {render.width_px}×{render.height_px} px ({by_attribute})"),
        Line("disk", f"about {size_text(plan.bytes_needed)}; {size_text(free_bytes(experiment.out))} are free"),
        *_disk_warning(experiment, plan.bytes_needed),
        Line(
            "rendering",
            f"about {hours_text(hours)} {machine} ({source}); "
            f"{duration_text(plan.seconds_needed)} with {plan.layout} on this machine",
            plan.seconds_needed,
        ),
    ]


def _disk_warning(experiment: Experiment, needed: float) -> list[Line]:
    """Return a line if the disk is too small: rendering will then refuse to start."""
    missing = missing_bytes(experiment.out, needed)
    if not missing:
        return []
    advice = "free some space, choose another out=, or render in parts (scenes=)"
    return [Line("WARNING", f"THE DISK IS TOO SMALL by {size_text(missing)}: generate will not start; {advice}")]


def training_lines(experiment: Experiment, stages: Sequence[Stage]) -> list[Line]:
    """Return what the chosen stages of the training half cost; checks their settings.

    Without such a stage, keys that the user gives are checked all the same: a word misspelt here is wrong later.
    """
    names = [stage.name for stage in stages if stage.training]
    if not names:
        if experiment.training_given and training_half_is_here():
            from megasynth_train.experiment.settings import check_keys

            check_keys(experiment.training)
        return []
    check_training_half(names[0])
    from megasynth_train.experiment.cost import stage_costs

    return [Line(cost.stage, cost.text, cost.seconds) for cost in stage_costs(training_run(experiment), names)]
