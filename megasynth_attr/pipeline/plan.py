"""What a run will cost, said before it starts: frames, disk and core hours of rendering, and what stages say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megasynth_attr.core.machine import free_bytes, missing_bytes
from megasynth_attr.core.pages.words import duration_text, hours_text, size_text
from megasynth_attr.core.stages import CostLine, Stage
from megasynth_attr.farm.tasks import make_plan
from megasynth_attr.scene.config import Experiment

SAID_FROM_S = 600.0  # a shorter run starts without a table


def plan_text(steps: Sequence[tuple[Stage[Any], Any]], wanted: bool) -> str:
    """Return a table of what the chosen stages cost; empty for a short run of which no plan is ``wanted``."""
    lines = [line for stage, run in steps for line in stage.cost(run)]
    if not wanted and sum(line.seconds or 0.0 for line in lines) < SAID_FROM_S:
        return ""
    width = max((len(line.name) for line in lines), default=0)
    rows = [f"  {line.name:{width}}  {line.text}" for line in lines]
    end = ["nothing is written (plan=true)"] if wanted else []
    names = ", ".join(stage.name for stage, _ in steps)
    return "\n".join([f"stages {names}", *(rows or ["  these stages take little"]), *end])


def rendering_cost(experiment: Experiment) -> list[CostLine]:
    """Return frames, disk and time of what is still to be rendered, at measured rates where there are any."""
    plan = make_plan(experiment)
    if not plan.todo:
        return [CostLine("rendering", "nothing: all selected scenes are complete")]
    frames: dict[str, int] = {}
    for task in plan.todo:
        frames[task.config.attribute] = frames.get(task.config.attribute, 0) + task.frames
    worker_s = sum(count * plan.seconds_per_frame[name].value for name, count in frames.items())
    measured = all(plan.seconds_per_frame[name].measured for name in frames)
    source = "measured here" if measured else "at rates measured on another machine, docs/overhead.md"
    render, run = experiment.members[0].render, experiment.run
    machine = "core hours" if run.device == "cpu" else "GPU hours"
    hours = worker_s * (plan.pool.threads if run.device == "cpu" else 1) / 3600
    by_attribute = ", ".join(f"{name} {count:,}" for name, count in frames.items())
    return [
        CostLine("frames", f"{plan.frames_todo:,} of {render.width_px}×{render.height_px} px ({by_attribute})"),
        CostLine("disk", f"about {size_text(plan.bytes_needed)}; {size_text(free_bytes(experiment.out))} are free"),
        *_disk_warning(experiment, plan.bytes_needed),
        CostLine(
            "rendering",
            f"about {hours_text(hours)} {machine} ({source}); "
            f"{duration_text(plan.seconds_needed)} with {plan.pool} on this machine",
            plan.seconds_needed,
        ),
    ]


def _disk_warning(experiment: Experiment, needed: float) -> list[CostLine]:
    """Return a line if the disk is too small: rendering will then refuse to start."""
    missing = missing_bytes(experiment.out, needed)
    if not missing:
        return []
    advice = "free some space, choose another out=, or render in parts (scenes=)"
    return [CostLine("WARNING", f"THE DISK IS TOO SMALL by {size_text(missing)}: generate will not start; {advice}")]
