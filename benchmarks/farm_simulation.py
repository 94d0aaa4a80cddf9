"""A farm played without rendering: hundreds of machines that share a large dataset, on a clock that is simulated.

The code that decides is the real one: ``Tasks``, ``Claims`` and ``Schedule``, one of each per run. Files, locks, the
clock and the workers are played: a scene takes a while, attempts fail, machines crash or are preempted and come back,
some are slow. Efficiency is the share of the machines' time that went into scenes which were kept.
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
import tempfile
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from common import print_table

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ExitCode, run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.dataset.paths import LOOKED_UP
from megasynth_attr.farm import claims, schedule
from megasynth_attr.farm.prepare import Prepared
from megasynth_attr.farm.tasks import Part, Plan, Task, Tasks, select
from megasynth_attr.farm.work import Problem, RenderJob, Report
from megasynth_attr.farm.workers import WorkerCount
from megasynth_attr.scene.config import Experiment, resolve
from megasynth_attr.scene.spec import Assets

HELP = Help(
    usage="python benchmarks/farm_simulation.py [machines=300] [scenes=700000] [mode=claims|shards] [figure=FILE]",
    explanation="Plays a farm, without rendering, and prints how much of its time went into scenes.",
    examples=("python benchmarks/farm_simulation.py machines=30 scenes=20000",),
)
HOUR_S, DAY_S = 3600.0, 86400.0
READ_AHEAD = 1  # scenes that are prepared beyond one per worker, as in farm/generate.py
# file-system calls of a run, from `strace` on a real one; benchmarks/farm_simulation.md says how
CALLS_PER_SCENE, CALLS_PER_FRAME, CALLS_PER_START = 70, 23, 360


@dataclass(frozen=True)
class Options:
    """What is played."""

    machines: int = setting(300, "machines", minimum=1)
    workers: int = setting(2, "scenes that a machine renders at once", minimum=1)
    scenes: int = setting(700_000, "scenes of one dataset", minimum=1, maximum=1_000_000)
    frames: int = setting(100, "frames of a scene, for the number of file-system calls", minimum=1)
    scene_s: float = setting(600.0, "mean time of a scene", minimum=1)
    spread: float = setting(0.5, "standard deviation of the logarithm of that time", minimum=0)
    start_s: float = setting(30.0, "time from the start of a run to its first scene", minimum=0)
    list_s: float = setting(0.02, "time to list a folder of 1,000 scenes", minimum=0)
    lock_s: float = setting(0.001, "time to ask for a lock", minimum=0)
    slow: float = setting(0.05, "share of machines that are three times as slow", minimum=0, maximum=1)
    crash_h: float = setting(120.0, "mean time between two crashes of a machine", minimum=0.1)
    preempt_h: float = setting(12.0, "mean time until a machine is preempted", minimum=0.1)
    away_s: float = setting(1800.0, "mean time until it comes back", minimum=0)
    fails: float = setting(0.005, "share of attempts that fail", minimum=0, maximum=1)
    broken: float = setting(0.0005, "share of scenes that always fail", minimum=0, maximum=1)
    mode: str = setting(
        "claims", "claims: all share one command; shards: a queue of them", options=["claims", "shards"]
    )
    shards: int = setting(7000, "their number", minimum=1)
    seed: int = setting(0, "of what happens", minimum=0)
    figure: str = setting("", "where to write the figure; empty: nowhere")


class Farm:
    """The machines, the shared files, and the clock."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.now = 0.0
        self.delay_s = 0.0  # by which listing folders has delayed a run since ``now``
        self.random = random.Random(options.seed)
        self.exists = np.zeros(options.scenes, bool)
        self.failures: set[int] = set()
        self.locks: dict[str, Run] = {}
        self.calls: Counter[str] = Counter()  # of the scheduling itself, by kind
        self.calls_at: Counter[int] = Counter()  # by the hour, of everything
        self.useful_at: Counter[int] = Counter()  # machine seconds
        self.used_at: Counter[int] = Counter()
        self.useful_s = self.used_s = self.ended_s = 0.0
        self.runs = self.lost = 0
        self.events: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        slow = round(options.slow * options.machines)
        self.speed = [1 / 3] * slow + [1.0] * (options.machines - slow)
        self.queue = deque(f"{i}/{options.shards}" for i in range(1, options.shards + 1))
        words = ["preset=geometry", "downstream=", "dataset_count=1", f"scene_count={options.scenes}"]
        self.experiment = resolve([*words, f"out={tempfile.gettempdir()}/played"])
        spread = options.spread
        self.mu = float(np.log(options.scene_s) - spread**2 / 2)

    def at(self, time_s: float, action: Any, *arguments: Any) -> None:
        heapq.heappush(self.events, (time_s, next(self._numbers), action, arguments))

    def call(self, kind: str, count: int = 1) -> None:
        self.calls[kind] += count
        self.calls_at[int(self.now / HOUR_S)] += count

    def play(self) -> None:
        for machine in range(self.options.machines):
            self.at(machine * 0.1, self.start, machine)
        while self.events:
            self.now, _, action, arguments = heapq.heappop(self.events)
            self.delay_s = 0.0
            action(*arguments)

    @property
    def left(self) -> int:
        return self.options.scenes - int(self.exists.sum()) - len(self.failures)

    def start(self, machine: int) -> None:
        if self.options.mode == "claims":
            if self.left:
                Run(self, machine, "1/1")
        elif self.queue:
            Run(self, machine, self.queue.popleft())

    def missing(self, part: Part) -> array[int]:
        """Return the scenes of ``part`` that do not exist, and count what looking for them costs."""
        if not part.scenes:
            return array("I")
        whole = isinstance(part.scenes, range)
        scenes = (
            np.arange(len(self.exists), dtype=np.uint32)[part.scenes.start :: part.scenes.step]
            if whole
            else np.asarray(part.scenes)
        )
        folders = int(scenes[-1] // 1000 - scenes[0] // 1000) + 1
        looked_up = len(scenes) < LOOKED_UP * folders
        self.delay_s += self.options.list_s * (len(scenes) / 100 if looked_up else folders)
        self.call("look up" if looked_up else "list a folder", len(scenes) if looked_up else folders)
        return array("I", scenes[~self.exists[scenes]].astype(np.uint32).tobytes())


class Run:
    """One start of the pipeline on a machine: its claims, its schedule, and its workers, which are played."""

    def __init__(self, farm: Farm, machine: int, shard: str) -> None:
        self.farm, self.machine, self.shard = farm, machine, shard
        self.alive, self.began, self.steps = True, farm.now, 0
        options, farm.runs = farm.options, farm.runs + 1
        self.rendering: dict[str, tuple[float, float, bool]] = {}  # key → since, seconds, whether it fails
        self.reports: list[Report] = []
        selected = _selected(farm.experiment, shard)
        todo = Tasks(p._replace(scenes=farm.missing(p)) for p in selected.parts)
        farm.calls_at[int(farm.now / HOUR_S)] += CALLS_PER_START
        self.prepared: deque[Task] = deque()
        self.claims = PlayedClaims(self)
        self.claims.share(todo)
        cost: Any = {"geometry": SimpleNamespace(value=1.0, measured=True)}
        plan = Plan(farm.experiment, selected, todo, WorkerCount(options.workers, 1), cost, cost)
        quiet: Any = Quiet()
        self.schedule = schedule.Schedule(plan, self.claims, Pool(self), Preparer(self), quiet, quiet)  # type: ignore[arg-type]
        away_s = (
            farm.random.expovariate(1 / (options.preempt_h * HOUR_S)),
            farm.random.expovariate(1 / (options.crash_h * HOUR_S)),
        )
        farm.at(farm.now + min(away_s), self.interrupt)
        folders = len(todo) / 1000 if shard == "1/1" else 0
        farm.at(farm.now + options.start_s + folders * options.list_s, self.step)

    def wake(self, number: int) -> None:
        """Come back to a schedule that had room for scenes, unless it was looked at meanwhile."""
        if number == self.steps:
            self.step()

    def step(self) -> None:
        """Let the schedule do what it would do now, and come again when it would."""
        if not self.alive:
            return
        self.steps += 1
        if self.schedule.is_open:
            self.schedule.step()
        if not self.schedule.is_open:
            self.end()
            if self.farm.options.mode == "shards":
                self.farm.start(self.machine)
        elif len(self.rendering) < self.farm.options.workers:
            self.farm.at(self.farm.now + self.claims.pause_s, self.wake, self.steps)

    def submit(self, key: str) -> None:
        farm, options = self.farm, self.farm.options
        index = int(key[-6:])
        chance = random.Random(index)  # of a scene, whoever renders it
        seconds = chance.lognormvariate(farm.mu, options.spread) / farm.speed[self.machine]
        broken = chance.random() < options.broken
        fails = broken or farm.random.random() < options.fails
        if fails:
            seconds *= farm.random.random()
        self.rendering[key] = farm.now, seconds, fails
        self.reports.append(Report(key, "started"))
        farm.at(farm.now + seconds, self.rendered, key)

    def rendered(self, key: str) -> None:
        if not self.alive:
            return
        farm, index = self.farm, int(key[-6:])
        _, seconds, fails = self.rendering.pop(key)
        if fails:
            problem = Problem("Played", "played", int(ExitCode.CRASH))
            self.reports.append(Report(key, "failed", problem=problem))
        else:
            assert not farm.exists[index], f"{key} was rendered twice"
            farm.exists[index] = True
            share = seconds / farm.options.workers
            farm.useful_s += share
            farm.useful_at[int(farm.now / HOUR_S)] += share
            farm.calls_at[int(farm.now / HOUR_S)] += CALLS_PER_SCENE + CALLS_PER_FRAME * farm.options.frames
            self.reports.append(Report(key, "done"))
        self.step()

    def interrupt(self) -> None:
        """The machine is taken away: what it was rendering is lost, and the kernel drops its locks."""
        if self.alive:
            self.farm.lost += len(self.rendering)
            self.end()
            if self.farm.options.mode == "shards":
                self.farm.queue.append(self.shard)
            away_s = self.farm.random.expovariate(1 / self.farm.options.away_s) if self.farm.options.away_s else 0.0
            self.farm.at(self.farm.now + away_s, self.farm.start, self.machine)

    def end(self) -> None:
        farm = self.farm
        self.alive = False
        for name in [name for name, run in self.claims.held.items() if run is self]:
            farm.locks.pop(name, None)
        farm.used_s += farm.now - self.began
        farm.ended_s = farm.now
        for hour in range(int(self.began / HOUR_S), int(farm.now / HOUR_S) + 1):
            farm.used_at[hour] += min(farm.now, (hour + 1) * HOUR_S) - max(self.began, hour * HOUR_S)


class PlayedClaims(claims.Claims):
    """Real claims on played files and locks."""

    def __init__(self, run: Run) -> None:
        super().__init__(Path("/nowhere/at/all"))
        self._run = run
        self.held: dict[str, Run] = {}

    def _lockf(self, name: str, command: int) -> None:
        farm = self._run.farm
        farm.call("lock")
        farm.delay_s += farm.options.lock_s
        if command == claims.fcntl.LOCK_UN:
            self.held.pop(name, None)
            if farm.locks.get(name) is self._run:
                del farm.locks[name]
        elif farm.locks.setdefault(name, self._run) is self._run:
            self.held[name] = self._run
        else:
            raise BlockingIOError

    def _has_ended(self, task: Task) -> bool:
        self._run.farm.call("look whether a scene exists", 6)  # two folders opened and closed, two files looked for
        index = task.scene_index
        return bool(self._run.farm.exists[index]) or index in self._run.farm.failures


class Pool:
    """Played workers."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def idle(self) -> int:
        return self._run.farm.options.workers - len(self._run.rendering)

    def submit(self, key: str, job: RenderJob) -> None:
        self._run.submit(key)

    def poll(self, timeout_s: float) -> list[Report]:
        reports, self._run.reports = self._run.reports, []
        return reports


class Preparer:
    """Prepares as many scenes ahead as the real one does, in no time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        render = run.farm.experiment.members[0]
        self._job = RenderJob("", "", Assets(), render.render, render.write, "default", "cpu", 1, ())
        self._again_at = 0.0

    def take(self) -> Prepared | None:
        prepared, farm = self._run.prepared, self._run.farm
        while len(prepared) <= farm.options.workers + READ_AHEAD and farm.now >= self._again_at:
            if (task := self._run.claims.next()) is None:
                self._again_at = farm.now + self._run.claims.pause_s
            else:
                prepared.append(task)
        return Prepared(prepared.popleft(), self._job) if prepared else None


class Quiet:
    """Progress and events, of which nobody hears."""

    others = 0

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


_parts: dict[str, Tasks] = {}


def _selected(experiment: Experiment, shard: str) -> Tasks:
    if shard not in _parts:
        run = replace(experiment.run, shard=shard)
        _parts[shard] = select(replace(experiment, members=tuple(replace(c, run=run) for c in experiment.members)))
    return _parts[shard]


def connect(farm: Farm) -> None:
    """Let the real code see the played files and the played clock."""
    claims.time = SimpleNamespace(monotonic=lambda: farm.now + farm.delay_s)  # type: ignore[assignment]
    claims._random_number = farm.random.randrange  # type: ignore[assignment]
    Part.missing = lambda part: farm.missing(part)  # type: ignore[method-assign]
    schedule.is_finished = lambda dataset, index: bool(farm.exists[index])  # type: ignore[assignment]
    schedule.check_disk = lambda *_: farm.call("free space")  # type: ignore[assignment]
    schedule.remove_failure = lambda task: farm.failures.discard(task.scene_index)  # type: ignore[assignment]
    schedule.write_failure = lambda task, *_: farm.failures.add(task.scene_index)  # type: ignore[assignment]
    schedule.index = SimpleNamespace(note=lambda *_: farm.call("note a scene", 4))  # type: ignore[assignment]


def draw(farm: Farm, file: Path) -> None:
    """Draw efficiency and file-system calls per second over time."""
    from matplotlib.figure import Figure

    hours = range(max(farm.used_at) + 1)
    days = [hour / 24 for hour in hours]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(days, [100 * farm.useful_at[h] / max(farm.used_at[h], 1) for h in hours], color="tab:blue")
    above.axhline(95, color="black", linewidth=0.8, linestyle=":")
    above.set(ylabel="machine time in\nkept scenes, %", ylim=(0, 110))
    below.plot(days, [farm.calls_at[hour] / HOUR_S for hour in hours], color="tab:orange")
    below.set(ylabel="file-system calls\nper second", xlabel="days", ylim=(0, None))
    figure.savefig(file, dpi=120)


def main(words: list[str]) -> None:
    """Play a farm and print what came of it."""
    options = parse(Options, words, HELP)
    started = time.process_time()
    farm = Farm(options)
    connect(farm)
    farm.play()
    own, calls = sum(farm.calls.values()), sum(farm.calls_at.values())
    wall_s = farm.ended_s
    rows = [
        ("scenes rendered, failed for good", f"{farm.exists.sum():,}, {len(farm.failures):,}"),
        ("until the last one ended", f"{farm.ended_s / DAY_S:.2f} days"),
        (
            "machine time in scenes that were kept",
            f"{farm.useful_s / farm.used_s:.2%} of {farm.used_s / DAY_S:,.0f} days",
        ),
        ("starts of a run; scenes lost with a machine", f"{farm.runs:,}; {farm.lost:,}"),
        ("file-system calls per second, mean", f"{calls / wall_s:,.0f}"),
        ("file-system calls per second, busiest hour", f"{max(farm.calls_at.values()) / HOUR_S:,.0f}"),
        ("of them by scheduling", f"{own / calls:.1%} ({own / options.scenes:.0f} a scene)"),
        *((f"  {kind}, a scene", f"{count / options.scenes:.2f}") for kind, count in farm.calls.most_common()),
        ("CPU time of the simulation", f"{time.process_time() - started:.0f} s"),
    ]
    print(f"{options.machines} machines × {options.workers} workers, {options.scenes:,} scenes, mode={options.mode}\n")
    print_table("what", "figure", rows)
    if options.figure:
        draw(farm, Path(options.figure))


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
