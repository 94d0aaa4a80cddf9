"""What a run has to do: the selected scenes minus those that exist, and what that will cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from megasynth_attr.core.machine import available_cores, available_memory, free_bytes, missing_bytes
from megasynth_attr.core.pages.words import duration_text, hours_text, size_text
from megasynth_attr.core.selection import parse_indices, parse_shard, shard_of
from megasynth_attr.core.stages import CostLine
from megasynth_attr.dataset.paths import dataset_dir, dataset_name, finished_scenes, scene_name
from megasynth_attr.farm.estimate import Cost, bytes_per_frame, worker_seconds_per_frame
from megasynth_attr.farm.workers import WorkerCount, choose_workers
from megasynth_attr.scene.config import Config, Experiment

START_S = 4.0  # starting Blender


@dataclass(frozen=True)
class Task:
    """One scene to be rendered."""

    config: Config
    dataset_index: int
    scene_index: int
    dataset: Path

    @property
    def key(self) -> str:
        return f"{self.dataset.name}/{scene_name(self.scene_index)}"

    @property
    def frames(self) -> int:
        return self.config.content.frames


@dataclass(frozen=True)
class Plan:
    """The selected scenes in order, those still to do, and what they cost."""

    experiment: Experiment
    selected: tuple[Task, ...]
    todo: tuple[Task, ...]
    pool: WorkerCount
    bytes_per_frame: dict[str, Cost]  # by attribute
    seconds_per_frame: dict[str, Cost]  # of one worker, by attribute

    @cached_property
    def frames_selected(self) -> int:
        return sum(task.frames for task in self.selected)

    @cached_property
    def frames_todo(self) -> int:
        return sum(task.frames for task in self.todo)

    @cached_property
    def bytes_needed(self) -> float:
        return sum(task.frames * self.bytes_per_frame[task.config.attribute].value for task in self.todo)

    @cached_property
    def worker_seconds(self) -> float:
        """Of all workers together."""
        return sum(task.frames * self.seconds_per_frame[task.config.attribute].value for task in self.todo)

    @cached_property
    def seconds_needed(self) -> float:
        return START_S + self.worker_seconds / min(self.pool.workers, len(self.todo)) if self.todo else 0.0

    @property
    def datasets(self) -> dict[Path, Task]:
        """The folders of the selected datasets, each with one of its scenes."""
        return {task.dataset: task for task in self.selected}


def select(experiment: Experiment) -> tuple[Task, ...]:
    """Return the scenes chosen by ``datasets=``, ``scenes=`` and ``shard=``; ConfigError for an index out of range."""
    return tuple(shard_of(select_all_shards(experiment), *parse_shard(experiment.run.shard)))


def select_all_shards(experiment: Experiment) -> list[Task]:
    """Return the scenes chosen by ``datasets=`` and ``scenes=``: those of all shards together."""
    tasks = []
    for config in experiment.configs:
        content, run = config.content, config.run
        for dataset_index in parse_indices(run.datasets, content.dataset_count, "datasets"):
            folder = dataset_dir(experiment.out, config.attribute, dataset_index)
            for scene_index in parse_indices(run.scenes, content.scene_count, "scenes"):
                tasks.append(Task(config, dataset_index, scene_index, folder))
    return tasks


def make_plan(experiment: Experiment) -> Plan:
    """Return the Plan of a run; looks at the output folder, changes nothing."""
    selected = select(experiment)
    done = {folder: set(finished_scenes(folder)) for folder in {task.dataset for task in selected}}
    todo = tuple(task for task in selected if task.scene_index not in done[task.dataset])
    pool = choose_workers(experiment.run, len(todo), available_cores(), available_memory())
    firsts = {task.config.attribute: task for task in reversed(selected)}
    return Plan(
        experiment,
        selected,
        todo,
        pool,
        {name: bytes_per_frame(task.config, task.dataset) for name, task in firsts.items()},
        {name: worker_seconds_per_frame(task.config, experiment.out, pool.threads) for name, task in firsts.items()},
    )


def describe(plan: Plan) -> list[CostLine]:
    """Return the plan in words, one line per fact; only the line ``rendering`` has a duration."""
    run, content = plan.experiment.run, plan.experiment.members[0].content
    render, todo = plan.experiment.members[0].render, len(plan.todo)
    names = [dataset_name(task.config.attribute, task.dataset_index) for task in plan.datasets.values()]
    share = f", shard {run.shard}" if run.shard != "1/1" else ""
    lines = [
        CostLine("datasets", f"{len(names)} ({_shortened(sorted(names))}){share}"),
        CostLine("scenes", f"{len(plan.selected)} selected, {len(plan.selected) - todo} complete, {todo} to render"),
    ]
    if not plan.todo:
        return [*lines, CostLine("rendering", "nothing to render")]
    frames: Counter[str] = Counter()
    for task in plan.todo:
        frames[task.config.attribute] += task.frames
    by_attribute = ", ".join(f"{name} {count:,}" for name, count in frames.items())
    size = f"{render.width_px}×{render.height_px} px, quality {content.quality}"
    hours = hours_text(plan.worker_seconds * (plan.pool.threads if run.device == "cpu" else 1) / 3600)
    measured = all(plan.seconds_per_frame[name].measured for name in frames)
    source = "measured here" if measured else "at assumed rates, not measured on this machine"
    free, missing = free_bytes(plan.experiment.out), missing_bytes(plan.experiment.out, plan.bytes_needed)
    advice = "generate will not start; free some space, choose another out=, or render in parts (scenes=)"
    return [
        *lines,
        CostLine("frames", f"{plan.frames_todo:,} of {size} ({by_attribute})"),
        CostLine("disk", f"about {size_text(plan.bytes_needed)}; {size_text(free)} are free"),
        *([CostLine("WARNING", f"THE DISK IS TOO SMALL by {size_text(missing)}: {advice}")] if missing else []),
        CostLine(
            "rendering",
            f"about {hours} {'core' if run.device == 'cpu' else 'GPU'} hours ({source}); "
            f"{duration_text(plan.seconds_needed)} with {plan.pool} on this machine",
            plan.seconds_needed,
        ),
    ]


def _shortened(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]}"
