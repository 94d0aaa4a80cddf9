"""A pool of spawned, recycled Blender processes on this machine."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections import deque
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import EnvironmentProblem, ExitCode
from megasynth_attr.farm.launch import Launcher
from megasynth_attr.farm.process import WorkerProcess
from megasynth_attr.farm.work import Problem, RenderJob, Report
from megasynth_attr.farm.workers import WorkerCount
from megasynth_attr.scene.settings import RunSettings

START_LIMIT_S = 300.0  # a cold Blender on a slow network disk takes a minute
START_TRIES = 5  # workers that may be killed by a signal while starting, in a row
LINGER_S = 10.0  # for a worker to exit after closing its socket


class LocalPool:
    """Context manager: Blender processes, ``count`` of them, that render scenes.

    A worker is replaced after ``run.scenes_per_worker`` scenes, and after any failure: nothing of a broken scene can
    reach the next one. Every failed attempt is reported; trying again is up to the caller. ``on_death`` is called after
    a worker was killed or died, to remove what it left.
    """

    def __init__(
        self, launcher: Launcher, scratch: Path, count: WorkerCount, run: RunSettings, on_death: Callable[[], object]
    ) -> None:
        self._launcher = launcher
        self._scratch = scratch
        self._count = count
        self._run = run
        self._on_death = on_death
        self._numbers = itertools.count()
        self._failed_starts = 0
        self._waiting: deque[tuple[str, RenderJob]] = deque()  # scenes for workers that are still starting
        self._reports: list[Report] = []
        self._workers: list[WorkerProcess] = []
        for _ in range(count.workers):  # Blender starts while the first scenes are prepared
            self._start()

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *exception: object) -> None:
        """Kill all workers; unfinished scenes are dropped."""
        for worker in list(self._workers):
            self._discard(worker)

    @property
    def idle(self) -> int:
        """How many more scenes the pool could start now."""
        return self._count.workers - len(self._waiting) - sum(worker.scene is not None for worker in self._workers)

    def submit(self, key: str, job: RenderJob) -> None:
        """Hand out a scene, called ``key`` in reports; only while the pool is ``idle``."""
        self._waiting.append((key, job))
        self._hand_out()

    def poll(self, timeout_s: float) -> list[Report]:
        """Return what happened, waiting at most ``timeout_s``; EnvironmentProblem if workers cannot even start."""
        ready = connection.wait([worker.connection for worker in self._workers], timeout_s)
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                messages = worker.receive()
            except EOFError:
                self._died(worker)
                continue
            for message in messages:
                self._handle(worker, message)
        self._check_time()
        reports, self._reports = self._reports, []
        return reports

    def _start(self) -> None:
        name = f"w{next(self._numbers)}"
        try:
            self._workers.append(WorkerProcess(name, self._launcher, self._scratch, self._count.threads))
        except OSError as error:
            raise EnvironmentProblem(f"{self._launcher.description} cannot be started: {error}") from None

    def _hand_out(self) -> None:
        """Give waiting scenes to the workers that are free, and start workers for those that are left."""
        free = [worker for worker in self._workers if worker.is_ready and worker.scene is None]
        for worker in free[: len(self._waiting)]:
            key, job = self._waiting.popleft()
            worker.begin(key)
            self._reports.append(Report(key, "started", worker=worker.name))
            worker.send({"do": "scene", "job": to_plain(job)})
        starting = sum(not worker.is_ready for worker in self._workers)
        for _ in range(min(len(self._waiting) - starting, self._count.workers - len(self._workers))):
            self._start()

    def _handle(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        event, text = message.pop("event"), message.pop("message", "")
        if event == "hello":
            self._failed_starts = 0
            worker.is_ready = True
        elif event == "error" and not worker.is_ready:
            self._discard(worker)
            raise EnvironmentProblem(text)
        elif event == "error":
            self._lose(worker, message["kind"], text, message["exit_code"])
        elif worker.scene is not None:
            self._reports.append(Report(worker.scene, event, message, worker=worker.name, message=text))
        if event == "done":
            worker.scene = None
            worker.scenes += 1
            if worker.scenes >= self._run.scenes_per_worker:  # it ends by itself
                self._workers.remove(worker)
                worker.send({"do": "stop"})
                worker.reap(LINGER_S)
        self._hand_out()

    def _died(self, worker: WorkerProcess) -> None:
        """Handle a worker that closed its socket without being asked to."""
        code = worker.reap(LINGER_S)
        ending = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        if worker.is_ready:
            self._lose(worker, "WorkerDied", f"the worker {ending} during the scene", ExitCode.CRASH)
            return
        said = _said(worker)
        self._discard(worker)
        self._failed_starts += 1
        if code >= 0 or self._failed_starts >= START_TRIES:
            raise EnvironmentProblem(
                f"{self._launcher.description} does not start as a worker: it {ending}; it said: {said}"
            )
        self._start()

    def _check_time(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.scene is not None and now - worker.since > self._run.timeout_s:
                message = f"the scene took longer than timeout_s={self._run.timeout_s:g}; its worker was killed"
                self._lose(worker, "SceneTimeout", message, ExitCode.SCENES_FAILED)
            elif not worker.is_ready and now - worker.since > START_LIMIT_S:
                said = _said(worker)
                self._discard(worker)
                raise EnvironmentProblem(
                    f"{self._launcher.description} did not start within {START_LIMIT_S:g} s; it said: {said}"
                )

    def _lose(self, worker: WorkerProcess, error: str, message: str, exit_code: int) -> None:
        """Discard a worker and report that its scene, if it had one, failed."""
        problem = Problem(error, message, int(exit_code), worker.log_tail())
        self._discard(worker)
        if worker.scene is not None:
            self._reports.append(Report(worker.scene, "failed", problem=problem))

    def _discard(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        worker.kill()
        self._on_death()


def _signal_name(number: int) -> str:
    if number == signal.SIGKILL:
        return "SIGKILL (sent by a user, or by the system for lack of memory; then use fewer workers)"
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _said(worker: WorkerProcess) -> str:
    return " | ".join(worker.log_tail()[-3:]) or "nothing"
