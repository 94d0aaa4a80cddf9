"""One run on Slurm: which shards are submitted, which have ended and how, and what is done about it.

Slurm says what is alive, the jobs say in small files what they have done (``slurm_job.py``): a shard has ended when
both agree. So a requeued job is alive whatever its last attempt said, and no shard is ever in the queue twice.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from megasynth_attr.core.codec import Part, from_plain
from megasynth_attr.core.errors import EnvironmentProblem, ExitCode, Interrupted
from megasynth_attr.core.files import json_bytes, read_json, storage_errors
from megasynth_attr.core.resources import PACKAGE_DIR
from megasynth_attr.core.selection import as_ranges
from megasynth_attr.core.stop import RESUME, StopRequest
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.farm.events import EventLog
from megasynth_attr.farm.progress import Progress
from megasynth_attr.farm.slurm_job import Status, read_status
from megasynth_attr.farm.slurm_queue import Element, SlurmQueue
from megasynth_attr.farm.work import raise_if_hopeless
from megasynth_attr.scene.settings import RunSettings

RECORD = "run.json"
RECORD_FORMAT = "megasynth-attr slurm run 1"
STEM = "megasynth"
CORES = 4
POLL_S = 2.0  # at first; less often the longer it takes
LONGEST_POLL_S = 30.0
GONE_POLLS = 3  # polls without a word after a job left the queue: files may appear late on a network disk
COMPLETE = (ExitCode.DONE, ExitCode.SCENES_FAILED)  # such a shard has done all it can


@dataclass(frozen=True)
class Record(Part):
    """What a second command needs to find the jobs of the first one."""

    format: str
    name: str  # of the jobs, and of the folder with the status of each shard
    shards: int
    excluded: tuple[str, ...] = ()  # nodes on which no shard can be rendered


@dataclass
class Shard:
    """What is known about a shard that is not complete."""

    job: int = 0  # the array that has it; 0: it is to be submitted
    frames_before: int = 0  # were rendered before this command began
    scenes: int = 0  # were finished when its last job ended
    attempts: int = 0  # jobs that ended since then without another one
    unseen: int = 0  # polls since its job left the queue without a word
    cancelled: bool = False
    excused: bool = False  # an unfit machine has not counted as an attempt once


class End(NamedTuple):
    """How the last job of a shard ended."""

    exit_code: int
    message: str
    node: str
    counts: bool = True  # as an attempt; not if Slurm needed the machine for something else


class SlurmRun:
    """All shards of a plan, rendered by jobs that run ``command`` with another ``shard=``."""

    def __init__(
        self,
        run: RunSettings,
        command: Sequence[str],
        count: int,
        folder: Path,
        progress: Progress,
        events: EventLog,
    ) -> None:
        self._run, self._command, self._folder = run, command, folder
        self._progress, self._events = progress, events
        self._record = Record(RECORD_FORMAT, f"{STEM}-{os.urandom(4).hex()}", count)
        self._excluded: set[str] = set()
        self._told: set[str] = set()  # nodes that waiting jobs avoid already
        self._open: dict[int, Shard] = {}
        self._ends: dict[int, End] = {}  # of shards that are not complete
        self._given_up: set[int] = set()
        self._jobs: set[int] = set()  # all arrays of this run that were ever seen
        self._frames: dict[int, int] = {}  # rendered by each shard since this command began
        self._refusal = ""  # what Slurm said when it did not take some jobs
        self._room = math.inf  # with fewer shards in the queue it may take them
        self._queue = self._open_queue()

    @property
    def name(self) -> str:
        """The jobs in words."""
        ids = sorted(self._jobs)
        if len(ids) > 3:
            return f"jobs {ids[0]} … {ids[-1]}"
        return f"job{'s' * (len(ids) > 1)} {', '.join(map(str, ids))}" if ids else "no job"

    @property
    def _in_queue(self) -> int:
        """How many shards have a job that is not known to have ended."""
        return sum(shard.job > 0 for shard in self._open.values())

    def found(self) -> bool:
        """Return whether an earlier command's run still has jobs in the queue, and take it over then.

        EnvironmentProblem if Slurm does not say.
        """
        file, fresh = self._folder / RECORD, self._record
        if not file.exists():
            return False
        self._record = from_plain(Record, read_json(file, RECORD_FORMAT), str(file))
        self._excluded = set(self._record.excluded)
        self._told = set(self._excluded)
        self._queue = self._open_queue()
        elements = self._queue.look()
        if elements is None:
            raise EnvironmentProblem("Slurm does not say whether the jobs of an earlier command still run; try later")
        if not any(one.alive for one in elements):
            self._record, self._excluded, self._told = fresh, set(), set()
            self._queue = self._open_queue()
            return False
        for number in range(1, self._record.shards + 1):
            status = self._status(number)
            self._open[number] = Shard(status.job, status.frames, status.scenes)
        for one in elements:
            if one.alive and (shard := self._open.get(one.shard)):
                shard.job = max(shard.job, one.job)
        self._jobs = {one.job for one in elements if one.alive}
        self._say(f"waiting for {self.name}, submitted before")
        self._progress.elsewhere(self.name, running=False)
        return True

    def begin(self) -> None:
        """Submit all shards."""
        with storage_errors("the Slurm run", self._folder):
            (self._folder / "logs").mkdir(parents=True, exist_ok=True)
            for old in self._folder.glob(f"{STEM}-*"):
                shutil.rmtree(old, ignore_errors=True)
            self._save()
        self._open = {number: Shard() for number in range(1, self._record.shards + 1)}
        self._submit()
        self._progress.elsewhere(self.name, running=False)

    def wait(self, stop: StopRequest) -> None:
        """Return when all shards are complete; raises what ends the run early, or those that could not be completed."""
        began = time.monotonic()
        while self._open:
            started = time.monotonic()
            self._look()
            now = time.monotonic()
            pause_s = min(max(POLL_S, (now - began) / 60), LONGEST_POLL_S) + min(20 * (now - started), LONGEST_POLL_S)
            while self._open and time.monotonic() < now + pause_s:
                stop.check()
                self._progress.tick()
                time.sleep(0.1)
        for number in sorted(self._given_up):
            raise_if_hopeless(self._ends[number].exit_code, self._said(number))
        if self._given_up:
            raise Interrupted(
                f"{len(self._given_up)} of {self._record.shards} shards were given up, after {self._run.attempts} jobs "
                f"without a new scene, e.g. {self._said(min(self._given_up))} (logs in {self._folder / 'logs'}); "
                "run the same command again to resume, perhaps with a larger slurm_minutes"
            )

    def close(self) -> None:
        """Cancel what is still in the queue."""
        elements = self._queue.look()
        if elements is None:  # the record stays: they may go on, and another command must find them
            self._queue.cancel(self._jobs)
            return
        left = {one.job for one in elements if one.alive and not one.closing}
        self._queue.cancel(left)
        (self._folder / RECORD).unlink(missing_ok=True)
        if left:
            self._say(f"job {as_ranges(sorted(left))} cancelled")

    def _open_queue(self) -> SlurmQueue:
        run = self._run
        cores = (run.workers or 1) * (run.threads or 1) if run.workers or run.threads else CORES
        options = [
            f"--time={run.slurm_minutes}",
            f"--cpus-per-task={cores}",
            "--ntasks=1",
            "--requeue",
            "--open-mode=append",  # what a requeued job said before stays in its log
            f"--output={str(self._folder / 'logs').replace('%', '%%')}/%A_%a.log",
        ]
        if run.partition:
            options.append(f"--partition={run.partition}")
        if run.device != "cpu":
            options.append("--gpus-per-node=1")
        return SlurmQueue(self._record.name, options)

    def _script(self, first: int) -> str:
        status, count = str(self._folder / self._record.name), self._record.shards
        module = [sys.executable, "-m", "megasynth_attr.farm.slurm_job"]
        command = [*module, status, str(first), str(count), *self._command]
        return (
            f"#!/bin/sh\ncd {shlex.quote(str(Path.cwd()))} || exit {int(ExitCode.ENVIRONMENT)}\n"
            f"export PYTHONPATH={shlex.quote(str(PACKAGE_DIR.parent))}${{PYTHONPATH:+:$PYTHONPATH}}\n"
            f"exec {shlex.join(command)}\n"
        )

    def _save(self) -> None:
        replace_atomically(self._folder / RECORD, json_bytes(self._record))

    def _submit(self) -> None:
        """Submit what is to be submitted, in arrays no larger than Slurm takes; what it does not take is left."""
        left, most = [number for number, shard in self._open.items() if not shard.job], self._queue.most
        for block, numbers in groupby(sorted(left), key=lambda number: (number - 1) // most):
            first, array = block * most + 1, list(numbers)
            indices = [number - first for number in array]
            try:
                job = self._queue.submit(self._script(first), first, indices, self._excluded)
            except EnvironmentProblem as error:
                self._room = self._in_queue
                if str(error) != self._refusal:
                    self._refusal = str(error)
                    self._progress.say(self._refusal)
                break
            self._room = math.inf
            self._tell_waiting()
            self._jobs.add(job)
            for number in array:
                self._open[number].job = job
            self._events.write("submitted", job=job, shards=array)
            count = f"{len(array)} shard{'s' * (len(array) > 1)}"
            self._say(f"job {job} submitted ({count} of {self._record.shards})")
        if left and not self._in_queue:  # nothing will make room for more
            for number in self._ends.keys() & set(left):
                raise_if_hopeless(self._ends[number].exit_code, self._said(number))
            raise EnvironmentProblem(self._refusal)

    def _look(self) -> None:
        """Ask Slurm once and draw the conclusions."""
        elements = self._queue.look()
        if elements is None:
            self._progress.elsewhere(f"{self.name}: Slurm does not answer", running=False)
            return
        now: dict[int, Element] = {}
        for one in sorted(elements):
            shard = self._open.get(one.shard)
            if shard is not None and (one.alive or one.job == shard.job):
                shard.job, now[one.shard] = one.job, one  # a new job may come from an sbatch whose answer was lost
        self._jobs.update(one.job for one in now.values())
        for number, shard in list(self._open.items()):
            self._look_at(number, shard, now.get(number))
        self._progress.scene("jobs", sum(self._frames.values()))
        self._decide_about_cancelled([one for one in now.values() if one.alive])
        self._raise_if_most_agree()
        if self._in_queue < min(len(self._open), self._room):
            self._submit()
        self._show(now)

    def _look_at(self, number: int, shard: Shard, element: Element | None) -> None:
        state = element.state if element else "unknown"
        if not shard.job or state == "PENDING":
            return
        status = self._status(number)
        code = status.exit_code if status.job == shard.job else None
        self._frames[number] = status.frames - shard.frames_before
        if code in COMPLETE and state != "RUNNING":
            self._frames[number] = status.todo - shard.frames_before
            self._events.write("shard_end", shard=number, exit_code=code, message=status.message)
            del self._open[number]
            self._ends.pop(number, None)
        elif element is not None and element.alive:
            shard.unseen = 0
        elif state == "CANCELLED":
            shard.cancelled = True
        elif code is None and shard.unseen < GONE_POLLS:
            shard.unseen += 1
        else:
            self._ended(number, shard, status, self._end(shard, status, element))

    def _end(self, shard: Shard, status: Status, element: Element | None) -> End:
        """Return how a job ended that Slurm no longer runs."""
        began = status.job == shard.job
        if began and status.exit_code is not None:
            preempted = element is not None and element.state == "PREEMPTED"
            return End(status.exit_code, status.message, status.node, not preempted)
        if element is None:
            return End(int(ExitCode.CRASH), f"job {shard.job} left the queue without a word", status.node)
        if element.state == "FAILED" and not began:
            message = f"job {shard.job} cannot even start ({element.reason}); see its log"
            return End(int(ExitCode.ENVIRONMENT), message, element.node)
        message = f"job {shard.job} ended as {element.state}"
        return End(int(ExitCode.CRASH), message, element.node, element.state != "PREEMPTED")

    def _ended(self, number: int, shard: Shard, status: Status, end: End) -> None:
        """Note an incomplete shard's end: it is submitted again unless that is hopeless."""
        without, counts = "", end.counts
        if end.exit_code == ExitCode.ENVIRONMENT and end.node:
            without = f", without node {end.node}"
            counts, shard.excused = shard.excused, True
            self._exclude(end.node)
        shard.attempts = 0 if status.scenes > shard.scenes else shard.attempts + counts
        shard.job, shard.scenes, shard.unseen, shard.cancelled = 0, status.scenes, 0, False
        self._ends[number] = end
        self._events.write("shard_end", shard=number, exit_code=end.exit_code, message=end.message, node=end.node)
        if end.exit_code == ExitCode.USAGE or shard.attempts >= self._run.attempts:
            del self._open[number]
            self._given_up.add(number)
            self._progress.say(f"{self._said(number)}; given up")
        else:
            self._progress.say(f"{self._said(number)}; submitted again{without}")

    def _exclude(self, node: str) -> None:
        if node in self._excluded:
            return
        self._excluded.add(node)
        self._record = replace(self._record, excluded=tuple(sorted(self._excluded)))
        self._save()

    def _tell_waiting(self) -> None:
        """Keep waiting jobs away from excluded nodes, too; only after Slurm took a job that cannot run there.

        Without another node they would wait for ever.
        """
        if self._told != self._excluded:
            self._told = set(self._excluded)
            self._queue.exclude({shard.job for shard in self._open.values() if shard.job}, self._told)

    def _decide_about_cancelled(self, alive: list[Element]) -> None:
        """Submit single cancelled jobs again; Interrupted if somebody has cancelled all of them."""
        cancelled = {number: shard for number, shard in self._open.items() if shard.cancelled}
        if not cancelled or (alive and all(one.closing for one in alive)):
            return  # it is not known yet whether others stay
        if not alive and len(cancelled) == self._in_queue:
            raise Interrupted(f"all jobs of this run were cancelled from outside (scancel); {RESUME}")
        for number, shard in cancelled.items():
            end = End(int(ExitCode.INTERRUPTED), f"job {shard.job} was cancelled from outside (scancel)", "")
            self._ended(number, shard, self._status(number), end)

    def _raise_if_most_agree(self) -> None:
        """End the run if most shards say that nothing can be rendered, and it is not one node's fault."""
        for code in (ExitCode.USAGE, ExitCode.ENVIRONMENT):
            said = [number for number, end in self._ends.items() if end.exit_code == code]
            nodes = {self._ends[number].node for number in said}
            if 2 * len(said) > self._record.shards and (code == ExitCode.USAGE or len(nodes) > 1):
                raise_if_hopeless(int(code), f"{self._said(said[0])} (so say {len(said)} of {self._record.shards})")

    def _show(self, now: dict[int, Element]) -> None:
        states = Counter(one.state.lower() for one in now.values() if one.alive)
        if ending := self._in_queue - states.total():
            states["just ended"] = ending
        reasons = Counter(one.reason for one in now.values() if one.state == "PENDING" and one.reason != "None")
        parts = [f"{count:,} {state}" for state, count in states.items()]
        for index, part in enumerate(parts):
            if part.endswith(" pending") and reasons:
                parts[index] = f"{part} ({', '.join(reason for reason, _ in reasons.most_common(2))})"
        if waiting := len(self._open) - self._in_queue:
            parts.append(f"{waiting:,} not taken by Slurm yet")
        if complete := self._record.shards - len(self._open) - len(self._given_up):
            parts.append(f"{complete:,} complete")
        self._progress.elsewhere(f"{self.name}: {', '.join(parts)}", running=states["running"] > 0)

    def _said(self, number: int) -> str:
        end = self._ends[number]
        where = f" on {end.node}" if end.node else ""
        message = end.message.removesuffix(f"; {RESUME}") or f"ended with exit code {end.exit_code}"
        return f"shard {number}/{self._record.shards}{where}: {message}"

    def _say(self, text: str) -> None:
        self._progress.say(f"slurm     {text}; logs in {self._folder / 'logs'}")

    def _status(self, number: int) -> Status:
        return read_status(self._folder / self._record.name, number)
