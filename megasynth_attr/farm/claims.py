"""Runs that work in one output folder at the same time, on any number of machines, share its scenes: by claims."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.temporary import NO_LOCKS
from megasynth_attr.dataset.paths import FAILURES, failure_file, finished_scenes, is_finished, scene_dir
from megasynth_attr.farm.tasks import Task

POLL_S = 1.0  # between two looks at scenes that other runs have claimed; longer where looking takes long
COUNT_S = 10.0  # between two counts of the scenes that other runs have completed; longer where counting takes long


class Claims:
    """Context manager: what this run has claimed, and the scenes that are left for it to claim.

    A claim is a lock on one byte of ``<out>/events/claims``. Such locks (``lockf``) hold between machines, and the
    kernel or the file server drops them when the process ends, however it ends: nothing needs cleaning up, and no clock
    matters. They belong to the process, and it would lose them by opening and closing the file a second time.

    ``next`` is for the thread that prepares scenes, the rest for the one that hands them out.
    """

    def __init__(self, out: Path) -> None:
        self.ended: deque[Task] = deque()  # that other runs completed or gave up since this one began
        self.waiting = False  # other runs have claimed all scenes that are left
        self.pause_s = POLL_S  # how long to wait then
        self._left: list[Task] = []
        self._theirs: deque[Task] = deque()  # were claimed by others when last tried
        self._failures: set[Path] = set()  # of earlier runs: these scenes are tried again
        self._place = 0
        self._count_at = time.monotonic() + COUNT_S
        self._path = out / "events" / "claims"
        self._file: BinaryIO | None = None  # None: where nothing can be written or locked, every claim succeeds
        if os.access(out, os.W_OK):
            with storage_errors("the claims", self._path):
                self._path.parent.mkdir(exist_ok=True)
                self._file = self._path.open("ab")

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def share(self, tasks: Iterable[Task]) -> None:
        """Set the scenes to be shared with other runs."""
        self._left = list(tasks)
        for dataset in {task.dataset for task in self._left}:
            self._failures.update((dataset / FAILURES).glob("*.json"))

    def next(self) -> Task | None:
        """Return a scene that nobody has claimed just now; None if there is none, to ask again after ``pause_s``.

        Scenes come in order until one belongs to another run: from then on from a place chosen at random, so that many
        runs do not all try the same ones.
        """
        self._count()
        started = time.monotonic()
        while self._left:
            place = self._place % len(self._left)
            task = self._left.pop(place)
            if self.take(task):
                self.unlock(task.key)
                self._place, self.waiting = place, False
                return task
        self._try_theirs_again()
        self.waiting = bool(self._left)
        self.pause_s = max(POLL_S, 10 * (time.monotonic() - started))
        return None

    def take(self, task: Task) -> bool:
        """Claim ``task``; False if another run has it, or had and ended it."""
        if not self.lock(task.key):
            self._theirs.append(task)
        elif self._has_ended(task):
            self.unlock(task.key)
            self.ended.append(task)
        else:
            return True
        self._place = int.from_bytes(os.urandom(4), "big")  # the order of scenes changes nothing in them
        return False

    def lock(self, name: str) -> bool:
        """Claim anything by name; False if another run has it."""
        try:
            self._lockf(name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            self._file = None
            print(
                f"warning: {self._path} is on a file system without locks ({error.strerror}): runs that work here at "
                "the same time all render the same scenes; give each its own shard=",
                file=sys.stderr,
            )
        return True

    def unlock(self, name: str) -> None:
        """Give up what ``lock`` or ``take`` claimed."""
        self._lockf(name, fcntl.LOCK_UN)

    def _lockf(self, name: str, command: int) -> None:
        if self._file is not None:
            byte = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
            fcntl.lockf(self._file, command, 1, byte)

    def _has_ended(self, task: Task) -> bool:
        folder, failure = scene_dir(task.dataset, task.scene_index), failure_file(task.dataset, task.scene_index)
        for parent in (folder.parent.parent, folder.parent):
            with suppress(FileNotFoundError):  # opening makes a network file system ask its server what is new
                os.close(os.open(parent, os.O_RDONLY))
        return is_finished(task.dataset, task.scene_index) or (failure not in self._failures and failure.is_file())

    def _try_theirs_again(self) -> None:
        self._left += [self._theirs.popleft() for _ in range(len(self._theirs))]

    def _count(self) -> None:
        """Find what other runs have completed: else it is found only where this run wants to render it, too."""
        started = time.monotonic()
        if not self._left or started < self._count_at:
            return
        self._try_theirs_again()
        done = {folder: set(finished_scenes(folder)) for folder in {task.dataset for task in self._left}}
        self.ended.extend(task for task in self._left if task.scene_index in done[task.dataset])
        self._left = [task for task in self._left if task.scene_index not in done[task.dataset]]
        now = time.monotonic()
        self._count_at = now + max(COUNT_S, 50 * (now - started))
