"""The scheduler's loop: hands prepared scenes to the pool, counts frames, tries failed scenes again."""

from __future__ import annotations

from collections import Counter, deque

from megasynth_attr.core.errors import ExitCode
from megasynth_attr.core.files import json_bytes, storage_errors
from megasynth_attr.core.machine import check_disk
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.temporary import remove_if_empty, replace_atomically
from megasynth_attr.dataset.paths import failure_file, is_finished, scene_name
from megasynth_attr.farm.claims import Claims
from megasynth_attr.farm.estimate import cost_class
from megasynth_attr.farm.events import EventLog
from megasynth_attr.farm.local import LocalPool
from megasynth_attr.farm.prepare import Prepared, Preparer
from megasynth_attr.farm.progress import Progress
from megasynth_attr.farm.tasks import Plan, Task
from megasynth_attr.farm.work import Problem, Report, raise_if_hopeless

FAILURE_FORMAT = "megasynth-attr failure 1"
POLL_S = 0.25  # how long a signal may wait
IDLE_POLL_S = 0.02  # while a worker waits for a scene that is being prepared


class Schedule:
    """Renders the plan's scenes on a local pool; single-threaded, all waiting happens in ``LocalPool.poll``."""

    def __init__(
        self, plan: Plan, claims: Claims, pool: LocalPool, preparer: Preparer, progress: Progress, events: EventLog
    ) -> None:
        self._plan = plan
        self._claims = claims
        self._pool = pool
        self._preparer = preparer
        self._progress = progress
        self._events = events
        self._untaken = len(plan.todo)  # by this run, and not known to have ended in another
        self._waiting = False
        self._open: dict[str, Prepared] = {}  # handed out or waiting for another attempt
        self._again: deque[str] = deque()
        self._attempts: Counter[str] = Counter()
        self._warned: set[str] = set()

    def run(self, stop: StopRequest) -> None:
        """Return when every scene exists or has a failure record; raises what ends the run early."""
        while self._untaken or self._open:
            stop.check()
            self._hand_out()
            self._count_others()
            hungry = self._pool.idle and self._untaken and not self._waiting
            for report in self._pool.poll(IDLE_POLL_S if hungry else POLL_S):
                self._handle(report)
            self._progress.tick()

    def _count_others(self) -> None:
        while self._claims.ended:
            task = self._claims.ended.popleft()
            self._untaken -= 1
            if is_finished(task.dataset, task.scene_index):
                self._progress.others += 1
                self._progress.scene(task.key, task.frames)
            else:
                self._progress.take_back(task.key, task.frames)
        before, self._waiting = self._waiting, self._claims.waiting and self._untaken > 0 and not self._open
        if self._waiting and not before:
            self._progress.say(f"other runs are rendering the last scenes ({self._untaken}); waiting for them")

    def _hand_out(self) -> None:
        while self._pool.idle and (item := self._next()) is not None:
            task, job = item.task, item.job
            if isinstance(job, Problem):
                self._give_up(item, job, attempts=1)
                self._events.write("scene_failed", scene=task.key, attempt=1, error=job.error)
                continue
            size = self._plan.bytes_per_frame[task.config.attribute].value * task.frames
            check_disk(self._plan.experiment.out, size * (1 + len(self._open)), "the scenes being rendered")
            self._open[task.key] = item
            self._pool.submit(task.key, job)

    def _next(self) -> Prepared | None:
        if self._again:
            return self._open[self._again.popleft()]
        while self._untaken and (item := self._preparer.take()) is not None:
            if self._claims.take(item.task):
                self._untaken -= 1
                return item
        return None

    def _handle(self, report: Report) -> None:
        item = self._open[report.key]
        if report.kind == "started":
            self._attempts[report.key] += 1
            attempt = self._attempts[report.key]
            self._events.write("scene_start", scene=report.key, attempt=attempt, worker=report.worker)
        elif report.kind == "frame":
            self._progress.frame(report.key)
        elif report.kind == "warning":
            if report.message not in self._warned:  # every worker says the same
                self._warned.add(report.message)
                self._progress.say(f"warning: {report.message}")
        elif report.kind == "done":
            self._done(item, report)
        else:
            assert report.problem is not None
            self._failed(item, report.problem)

    def _done(self, item: Prepared, report: Report) -> None:
        task = item.task
        if not is_finished(task.dataset, task.scene_index):  # the files are the truth, not the message
            message = "the worker reported the scene as done, but its folder does not exist"
            self._failed(item, Problem("SceneMissing", message, int(ExitCode.CRASH)))
            return
        del self._open[task.key]
        remove_failure(task)
        self._claims.unlock(task.key)
        self._events.write(
            "scene_done",
            scene=task.key,
            frames=task.frames,
            cost_class=cost_class(task.config, self._plan.pool.threads),
            worker=report.worker,
            seconds=report.seconds,
        )

    def _failed(self, item: Prepared, problem: Problem) -> None:
        key, attempt = item.task.key, self._attempts[item.task.key]
        raise_if_hopeless(problem.exit_code, problem.message)
        allowed = item.task.config.run.attempts
        self._events.write("scene_failed", scene=key, attempt=attempt, error=problem.error, message=problem.message)
        if attempt < allowed:
            self._progress.take_back(key)
            self._progress.say(f"{key}: attempt {attempt} of {allowed} failed: {problem.message}; trying again")
            self._again.append(key)
        else:
            self._give_up(item, problem, attempt)

    def _give_up(self, item: Prepared, problem: Problem, attempts: int) -> None:
        self._open.pop(item.task.key, None)
        self._progress.take_back(item.task.key, item.task.frames)
        self._progress.say(f"{item.task.key}: failed for good: {problem.message}")
        write_failure(item.task, problem, attempts, item.scene_hash)
        self._claims.unlock(item.task.key)


def write_failure(task: Task, problem: Problem, attempts: int, scene_hash: str) -> None:
    """Write ``failures/<tttsss>.json``: why ``task`` failed for good.

    ``scene_hash`` is empty if no scene could be drawn. A scene that succeeds later loses its record.
    """
    record = {
        "format": FAILURE_FORMAT,
        "scene": scene_name(task.scene_index),
        "stage": problem.stage,
        "error": problem.error,
        "message": problem.message,
        "attempts": attempts,
        "scene_hash": scene_hash,
        "log": list(problem.log),
    }
    file = failure_file(task.dataset, task.scene_index)
    with storage_errors("a failure record", file):
        replace_atomically(file, json_bytes(record))


def remove_failure(task: Task) -> None:
    """Forget an earlier failure of a scene that now exists; the folder goes with its last record."""
    file = failure_file(task.dataset, task.scene_index)
    if file.is_file():
        file.unlink(missing_ok=True)
        remove_if_empty(file.parent)
