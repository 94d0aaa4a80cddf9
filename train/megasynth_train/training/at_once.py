"""The trainings of one program, one after another or several at once, each in a process of its own.

What a training computes depends on its number of threads, so this does not depend on how many run at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from accelerate import Accelerator
from tqdm import tqdm

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.machine import available_memory
from megasynth_attr.core.parallel import for_each
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.threads import available_cores
from megasynth_train.cost.cards import run_tuning
from megasynth_train.cost.memory import largest_step
from megasynth_train.training.loop import OnStep, say, step_bar
from megasynth_train.training.processes import check_stop
from megasynth_train.training.settings import SeveralSettings

Settings = TypeVar("Settings", bound=SeveralSettings)
Item = TypeVar("Item")
Item_in = TypeVar("Item_in", contravariant=True)
Result = TypeVar("Result")
Result_out = TypeVar("Result_out", covariant=True)

LARGE = "vggt-1b"  # a step of it fills all cores
START_STEPS = 20  # of vggt-tiny: about the time that a process needs to start
PROCESS_BYTES = 0.6e9  # of a process beside its step: most of it are libraries (measured, benchmarks/threads.md)


class Work(Protocol[Item_in, Result_out]):
    """Does a training. ``left_s`` is what is left of max_runtime_s, 0 if that sets no limit."""

    def __call__(self, item: Item_in, left_s: float, on_step: OnStep) -> Result_out: ...


@dataclass(frozen=True)
class Plan(Generic[Settings]):
    """How many trainings run at once, the settings of each, and whether a bar shows them all."""

    at_once: int
    each: Settings
    progress: bool


def plan(settings: Settings, accelerator: Accelerator, unfinished: int) -> Plan[Settings]:
    """Return how ``unfinished`` trainings and those that are finished before are done.

    ConfigError if several at once are asked for in processes that a launcher has started.
    """
    run, at_once = settings.run, settings.parallel
    if accelerator.num_processes > 1 or "LOCAL_RANK" in os.environ:
        if at_once > 1:
            raise ConfigError(
                f"parallel={at_once} does not go with torchrun or accelerate launch, whose processes train together: "
                "leave it out, or start the program by itself"
            )
        return Plan(1, settings, run.progress)
    alone = accelerator.device.type != "cpu" or settings.model.size == LARGE
    threads = run.threads or (0 if alone else 1)
    if not at_once:
        at_once = 1 if alone else min(_most(settings, threads), unfinished * settings.optim.steps // START_STEPS)
    at_once = max(1, min(at_once, unfinished))
    each = replace(settings, run=replace(run, threads=threads, progress=run.progress and at_once == 1))
    return Plan(at_once, each, run.progress)


def run_all(
    work: Work[Item, Result],
    items: Mapping[str, Item],
    planned: Plan[Any],
    stop: StopRequest,
    on_result: Callable[[str, Result], None],
) -> None:
    """Call ``on_result(name, result)`` with what ``work`` returns for every item; all have the same number of steps.

    Raises what ``work`` raises and Interrupted if ``stop`` asks for it, EnvironmentProblem naming the item if its
    process was killed; trainings in other processes have then saved what they did.
    """
    at_once, settings = planned.at_once, planned.each
    if at_once == 1:
        for name, item in items.items():
            check_stop(stop)
            on_result(name, work(item, stop.remaining_s(), lambda steps: None))
        return
    steps, done = settings.optim.steps, dict[str, int]()
    say(f"{len(items)} runs, {at_once} at once (parallel=)")
    with step_bar(f"train, {at_once} at once", steps * len(items), shown=planned.progress) as bar:

        def heard(name: str, news: Any) -> None:
            if isinstance(news, str):
                say(f"{name}: {news}")
                return
            if name in done:
                bar.update(news - done[name])
            else:  # it begins, or goes on
                if not done:  # the time that processes take to start is no step's
                    bar.unpause()
                _skip(bar, news)
            done[name] = news

        def finished(name: str, result: Result) -> None:
            _skip(bar, steps - done.get(name, 0))
            on_result(name, result)

        for_each(
            _Served(work, items),
            list(items),
            at_once,
            stop,
            finished,
            on_news=heard,
            threads=settings.run.threads,
            fewer="parallel=1",
        )


@dataclass(frozen=True)
class _Served(Generic[Item, Result]):
    """The work as a process does it: it tells its steps, and is told when to stop."""

    work: Work[Item, Result]
    items: Mapping[str, Item]

    def __call__(self, name: str, tell: OnStep) -> Result:
        return self.work(self.items[name], 0.0, tell)


def _most(settings: SeveralSettings, threads: int) -> int:
    """Return how many trainings on CPUs fill the cores and fit into the free memory."""
    largest = replace(
        settings,
        model=replace(settings.model, precision="fp32"),
        adapter=replace(settings.adapter, mode="full"),
    )
    each = PROCESS_BYTES + largest_step(largest, run_tuning(largest))[0]
    memory = available_memory()
    cores = available_cores() // threads
    return min(cores, int(memory / each)) if memory else cores


def _skip(bar: tqdm[Any], steps: int) -> None:
    """Move the bar by steps that nobody had to wait for, so that they do not count for its speed."""
    if not bar.disable:
        bar.initial += steps
        bar.last_print_n += steps
        bar.n += steps
