"""A pool of spawned, recycled Blender processes on this machine."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import EnvironmentProblem, ExitCode
from megasynth_attr.farm.launch import Launcher
from megasynth_attr.farm.process import WorkerProcess
from megasynth_attr.farm.work import Problem, RenderJob, Report, Work

START_LIMIT_S = 300.0  # a cold Blender on a slow network disk takes a minute
START_TRIES = 5  # workers that may be killed by a signal while starting, in a row
LINGER_S = 10.0  # for a worker to exit after closing its socket


@dataclass
class Slot:
    """One place in the pool: its worker, if one runs, and the scene it works on."""

    worker: WorkerProcess | None = None
    work: Work[RenderJob] | None = None
    since: float | None = None  # monotonic time of the hand-out; None while the worker still starts


class LocalExecutor:
    """Renders scenes in ``workers`` Blender processes of ``threads`` threads each.

    A worker is replaced after ``scenes_per_worker`` scenes, and after any failure: nothing of a broken scene can reach
    the next one. Every failed attempt is reported; trying again is up to the caller. ``on_death`` is called after a
    worker was killed or died, to remove what it left.
    """

    def __init__(
        self,
        launcher: Launcher,
        scratch: Path,
        *,
        workers: int,
        threads: int,
        scenes_per_worker: int,
        timeout_s: float,
        on_death: Callable[[], object] = lambda: None,
    ) -> None:
        self._launcher = launcher
        self._scratch = scratch
        self._threads = threads
        self._scenes_per_worker = scenes_per_worker
        self._timeout_s = timeout_s
        self._on_death = on_death
        self._numbers = itertools.count()
        self._failed_starts = 0
        self._reports: deque[Report] = deque()
        self._slots = [Slot() for _ in range(workers)]
        for slot in self._slots:  # Blender starts while the first scenes are prepared
            self._start(slot)

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel()

    @property
    def idle(self) -> int:
        """How many scenes the pool would start on at once."""
        return sum(slot.work is None for slot in self._slots)

    def submit(self, work: Sequence[Work[RenderJob]]) -> None:
        """Hand out scenes; no more than ``idle`` of them."""
        for item in work:
            slot = min((s for s in self._slots if s.work is None), key=lambda s: s.worker is None)
            slot.work = item
            if slot.worker is None:
                self._start(slot)
            elif slot.worker.hello is not None:
                self._hand_out(slot)

    def poll(self, timeout_s: float) -> list[Report]:
        """Return what happened, waiting at most ``timeout_s``; EnvironmentProblem if workers cannot even start."""
        by_connection = {slot.worker.connection: slot for slot in self._slots if slot.worker}
        for ready in connection.wait(list(by_connection), timeout_s):
            slot = by_connection[ready]  # type: ignore[index]
            assert slot.worker is not None
            try:
                messages = slot.worker.receive()
            except EOFError:
                self._died(slot)
                continue
            for message in messages:
                self._handle(slot, message)
        self._check_time()
        reports = list(self._reports)
        self._reports.clear()
        return reports

    def cancel(self) -> None:
        """Kill all workers; unfinished scenes are dropped."""
        for slot in self._slots:
            if slot.worker is not None:
                self._discard(slot)
            slot.work = slot.since = None

    def _start(self, slot: Slot) -> None:
        try:
            slot.worker = WorkerProcess(f"w{next(self._numbers)}", self._launcher, self._scratch, self._threads)
        except OSError as error:
            raise EnvironmentProblem(f"{self._launcher.description} cannot be started: {error}") from None

    def _hand_out(self, slot: Slot) -> None:
        assert slot.worker is not None and slot.work is not None
        slot.since = time.monotonic()
        slot.worker.forget_log()
        self._reports.append(Report(slot.work.key, "started", worker=slot.worker.name))
        slot.worker.send({"do": "scene", "job": to_plain(slot.work.payload)})

    def _handle(self, slot: Slot, message: dict[str, Any]) -> None:
        worker = slot.worker
        if worker is None:  # a message that followed an error
            return
        event = message.pop("event")
        if event == "hello":
            self._failed_starts = 0
            worker.hello = message
            if slot.work is not None:
                self._hand_out(slot)
        elif event == "error":
            tail, starting = worker.log_tail(), worker.hello is None
            self._discard(slot)
            if starting:
                raise EnvironmentProblem(message["message"])
            self._fail(slot, Problem(message["kind"], message["message"], int(message["exit_code"]), tail))
        elif slot.work is not None:
            text = message.pop("message", "")
            seconds = {key: value for key, value in message.items() if key.endswith("_s")}
            self._reports.append(Report(slot.work.key, event, seconds, worker=worker.name, message=text))
            if event == "done":
                slot.work = slot.since = None
                worker.scenes += 1
                if worker.scenes >= self._scenes_per_worker:
                    self._retire(slot)

    def _retire(self, slot: Slot) -> None:
        """Let a worker end by itself; the slot starts a new one with its next scene."""
        assert slot.worker is not None
        slot.worker.send({"do": "stop"})
        slot.worker.reap(LINGER_S)
        slot.worker = None

    def _died(self, slot: Slot) -> None:
        """A worker closed its socket without being asked to."""
        assert slot.worker is not None
        worker, started = slot.worker, slot.worker.hello is not None
        code = worker.reap(LINGER_S)
        tail = worker.log_tail()
        self._discard(slot)
        ending = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        if started:
            message = f"the worker {ending} during the scene"
            self._fail(slot, Problem("WorkerDied", message, int(ExitCode.CRASH), tail))
            return
        self._failed_starts += 1
        if code >= 0 or self._failed_starts >= START_TRIES:
            raise EnvironmentProblem(
                f"{self._launcher.description} does not start as a worker: it {ending}; it said: {_said(tail)}"
            )
        self._start(slot)

    def _check_time(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.worker is None:
                continue
            if slot.since is not None and now - slot.since > self._timeout_s:
                tail = slot.worker.log_tail()
                self._discard(slot)
                message = f"the scene took longer than timeout_s={self._timeout_s:g}; its worker was killed"
                self._fail(slot, Problem("SceneTimeout", message, int(ExitCode.SCENES_FAILED), tail))
            elif slot.worker.hello is None and now - slot.worker.started > START_LIMIT_S:
                tail = slot.worker.log_tail()
                self._discard(slot)
                raise EnvironmentProblem(
                    f"{self._launcher.description} did not start within {START_LIMIT_S:g} s; it said: {_said(tail)}"
                )

    def _fail(self, slot: Slot, problem: Problem) -> None:
        work, slot.work, slot.since = slot.work, None, None
        if work is not None:
            self._reports.append(Report(work.key, "failed", problem=problem))

    def _discard(self, slot: Slot) -> None:
        assert slot.worker is not None
        worker, slot.worker = slot.worker, None
        worker.kill()
        self._on_death()


def _signal_name(number: int) -> str:
    if number == signal.SIGKILL:
        return "SIGKILL (by somebody, or by the system for lack of memory; then use fewer workers)"
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _said(lines: Sequence[str]) -> str:
    return " | ".join(lines[-3:]) or "nothing"
