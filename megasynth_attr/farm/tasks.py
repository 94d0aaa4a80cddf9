"""What a run has to do: the selected scenes minus those that exist, and what that will cost."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, overload

from megasynth_attr.core.machine import available_memory, free_bytes, missing_bytes
from megasynth_attr.core.pages.words import duration_text, hours_text, size_text
from megasynth_attr.core.selection import parse_shard, select_indices
from megasynth_attr.core.stages import CostLine
from megasynth_attr.core.threads import available_cores
from megasynth_attr.dataset.paths import dataset_dir, has_all, missing_among, scene_name
from megasynth_attr.farm.estimate import Cost, bytes_per_frame, worker_seconds_per_frame
from megasynth_attr.farm.workers import WorkerCount, choose_workers
from megasynth_attr.scene.config import Config, Experiment

START_S = 4.0  # starting Blender


@dataclass(frozen=True, slots=True)
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


class Part(NamedTuple):
    """Scenes of one dataset, in order."""

    config: Config
    dataset_index: int
    dataset: Path
    scenes: Sequence[int]

    @property
    def first(self) -> Task:
        return self.task(self.scenes[0])

    @property
    def frames(self) -> int:
        return len(self.scenes) * self.config.content.frames

    def missing(self) -> Iterator[int]:
        """Yield the scenes that do not exist."""
        return missing_among(self.dataset, self.scenes)

    def is_finished(self) -> bool:
        return has_all(self.dataset, self.scenes)

    def task(self, scene_index: int) -> Task:
        return Task(self.config, self.dataset_index, scene_index, self.dataset)


class Tasks(Sequence[Task]):
    """Scenes in order, dataset after dataset; each ``Task`` is made when it is asked for, so a million take no room."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = [part for part in parts if part.scenes]
        self._ends = list(accumulate(len(part.scenes) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Task]:
        return (part.task(index) for part in self.parts for index in part.scenes)

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> Tasks: ...
    def __getitem__(self, place: int | slice) -> Task | Tasks:
        if isinstance(place, slice):
            begin, end, _ = place.indices(len(self))
            starts = zip(self.parts, [0, *self._ends], strict=False)
            return Tasks(part._replace(scenes=part.scenes[max(0, begin - s) : max(0, end - s)]) for part, s in starts)
        place = range(len(self))[place]
        number = bisect_right(self._ends, place)
        part = self.parts[number]
        return part.task(part.scenes[place - self._ends[number]])  # counted from the end

    def __add__(self, other: Tasks) -> Tasks:
        return Tasks([*self.parts, *other.parts])

    @property
    def frames(self) -> int:
        return sum(part.frames for part in self.parts)


@dataclass(frozen=True)
class Plan:
    """The selected scenes in order, those still to do, and what they cost."""

    experiment: Experiment
    selected: Tasks
    todo: Tasks
    pool: WorkerCount
    bytes_per_frame: dict[str, Cost]  # by attribute
    seconds_per_frame: dict[str, Cost]  # of one worker, by attribute

    @property
    def frames_selected(self) -> int:
        return self.selected.frames

    @property
    def frames_todo(self) -> int:
        return self.todo.frames

    @property
    def bytes_needed(self) -> float:
        return self._of_frames_todo(self.bytes_per_frame)

    @property
    def worker_seconds(self) -> float:
        """Of all workers together."""
        return self._of_frames_todo(self.seconds_per_frame)

    @property
    def seconds_needed(self) -> float:
        return START_S + self.worker_seconds / min(self.pool.workers, len(self.todo)) if self.todo else 0.0

    @cached_property
    def datasets(self) -> dict[Path, Task]:
        """The folders of the selected datasets, each with one of its scenes."""
        return {part.dataset: part.first for part in self.selected.parts}

    def _of_frames_todo(self, cost: Mapping[str, Cost]) -> float:
        return sum((part.frames * cost[part.config.attribute].value for part in self.todo.parts), 0.0)


def select(experiment: Experiment) -> Tasks:
    """Return the scenes chosen by ``datasets=``, ``scenes=`` and ``shard=``; ConfigError for an index out of range."""
    index, count = parse_shard(experiment.run.shard)
    parts, before = [], 0
    for part in select_all_shards(experiment).parts:
        parts.append(part._replace(scenes=part.scenes[(index - before) % count :: count]))  # as if counted through
        before += len(part.scenes)
    return Tasks(parts)


def select_all_shards(experiment: Experiment) -> Tasks:
    """Return the scenes chosen by ``datasets=`` and ``scenes=``: those of all shards together."""
    parts = []
    for config in experiment.configs:
        content, run = config.content, config.run
        scenes = select_indices(run.scenes, content.scene_count, "scenes")
        for dataset_index in select_indices(run.datasets, content.dataset_count, "datasets"):
            folder = dataset_dir(experiment.out, config.attribute, dataset_index)
            parts.append(Part(config, dataset_index, folder, scenes))
    return Tasks(parts)


def make_plan(experiment: Experiment) -> Plan:
    """Return the Plan of a run; looks at the output folder, changes nothing. Costs as much as the run's share."""
    selected = select(experiment)
    todo = Tasks(part._replace(scenes=array("I", part.missing())) for part in selected.parts)
    pool = choose_workers(experiment.run, len(todo), available_cores(), available_memory())
    firsts = {part.config.attribute: part for part in reversed(selected.parts)}
    return Plan(
        experiment,
        selected,
        todo,
        pool,
        {name: bytes_per_frame(part.config, part.dataset) for name, part in firsts.items()},
        {name: worker_seconds_per_frame(part.config, experiment.out, pool.threads) for name, part in firsts.items()},
    )


def describe(plan: Plan) -> list[CostLine]:
    """Return the plan in words, one line per fact; only the line ``rendering`` has a duration."""
    run, content = plan.experiment.run, plan.experiment.members[0].content
    render, todo = plan.experiment.members[0].render, len(plan.todo)
    names = [folder.name for folder in plan.datasets]
    share = f", shard {run.shard}" if run.shard != "1/1" else ""
    lines = [
        CostLine("datasets", f"{len(names)} ({_shortened(sorted(names))}){share}"),
        CostLine("scenes", f"{len(plan.selected)} selected, {len(plan.selected) - todo} complete, {todo} to render"),
    ]
    if not plan.todo:
        return [*lines, CostLine("rendering", "nothing to render")]
    frames: Counter[str] = Counter()
    for part in plan.todo.parts:
        frames[part.config.attribute] += part.frames
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
