"""Runs that work in one output folder at the same time, on any number of machines, share its scenes: by claims."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import time
from array import array
from collections import defaultdict, deque
from collections.abc import MutableSequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.temporary import NO_LOCKS
from megasynth_attr.dataset.paths import FAILURES, failure_file, is_finished, scene_dir
from megasynth_attr.farm.tasks import Part, Task, Tasks

POLL_S = 1.0  # between two looks at scenes that other runs have claimed; longer where looking takes long
LOOK_S = 10.0  # between two looks at what other runs have completed; longer where looking takes long
WAIT_SHARE, MOST_PAUSE_S = 0.05, 120.0  # of the time waited so far: hundreds of runs may wait for the last scenes
BLOCK = 1000  # scenes, as many as in a folder
FEW = 100  # scenes of a block of which not all are looked at before one is tried


class Claims:
    """Context manager: what this run has claimed, and the scenes that are left for it to claim.

    A claim is a lock on one byte of ``<out>/events/claims``. Such locks (``lockf``) hold between machines, and the
    kernel or the file server drops them when the process ends, however it ends: nothing needs cleaning up, and no clock
    matters. They belong to the process, and it would lose them by opening and closing the file a second time.

    ``next`` is for the thread that prepares scenes, the rest for the one that hands them out.
    """

    def __init__(self, out: Path) -> None:
        # what other runs have done since this one began:
        self.completed: deque[Part] = deque()  # was found by looking around
        self.ended: deque[Task] = deque()  # completed or given up; was found when this run wanted to render it
        self.waiting = False  # other runs have claimed all scenes that are left
        self.pause_s = POLL_S  # how long to wait then
        self._waiting_since = 0.0
        self._left: list[Part] = []  # blocks of at most BLOCK scenes
        self._block = self._place = 0  # where the next scene is
        self._met = False  # another run, just now
        self._theirs: deque[Task] = deque()  # were claimed by others when last tried
        self._failures: set[Path] = set()  # of earlier runs: these scenes are tried again
        self._look_at = time.monotonic() + LOOK_S
        self._looked = 0  # number of the block that was looked at last
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

    def share(self, tasks: Tasks) -> None:
        """Set the scenes to be shared with other runs."""
        self._left = [
            Part(part.config, part.dataset_index, part.dataset, array("I", part.scenes[first : first + BLOCK]))
            for part in tasks.parts
            for first in range(0, len(part.scenes), BLOCK)
        ]
        self._block = self._place = 0
        for dataset in {part.dataset for part in tasks.parts}:
            self._failures.update((dataset / FAILURES).glob("*.json"))

    def next(self) -> Task | None:
        """Return a scene that nobody has claimed just now; None if there is none, to ask again after ``pause_s``.

        Scenes come in order until one belongs to another run: from then on from a place chosen at random, so that many
        runs do not all try the same ones.
        """
        self._look_around()
        started = time.monotonic()
        while self._go_on():
            block = self._left[self._block]
            task = block.task(cast(MutableSequence[int], block.scenes).pop(self._place))
            if self.take(task):
                self.unlock(task.key)
                self.waiting = False
                return task
        self._try_theirs_again()
        if not self.waiting:
            self.waiting, self._waiting_since = bool(self._left), started
        now = time.monotonic()
        waited_s = now - self._waiting_since
        self.pause_s = max(POLL_S, 10 * (now - started), min(WAIT_SHARE * waited_s, MOST_PAUSE_S))
        return None

    def _go_on(self) -> bool:
        """Go to the next place with a scene; False if none is left."""
        while self._left:
            if self._met:
                self._block = _random_number(len(self._left))
                if len(self._left[self._block].scenes) > FEW:
                    self._forget_ended(self._block)
                self._place = _random_number(len(self._left[self._block].scenes) or 1)
                self._met = not self._left[self._block].scenes  # it is dropped below, and another chosen
            self._block %= len(self._left)
            scenes = self._left[self._block].scenes
            if self._place < len(scenes):
                return True
            self._place = 0
            if scenes:
                self._block += 1
            else:
                del self._left[self._block]
        return False

    def take(self, task: Task) -> bool:
        """Claim ``task``; False if another run has it, or had and ended it."""
        if not self.lock(task.key):
            self._theirs.append(task)
        elif self._has_ended(task):
            self.unlock(task.key)
            self.ended.append(task)
        else:
            return True
        self._met = True
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
        scenes: dict[Path, list[Task]] = defaultdict(list)
        while self._theirs:
            scenes[(task := self._theirs.popleft()).dataset].append(task)
        for first, *others in scenes.values():
            indices = sorted(task.scene_index for task in (first, *others))
            self._left.append(Part(first.config, first.dataset_index, first.dataset, array("I", indices)))

    def _look_around(self) -> None:
        """Find what other runs have completed, a few blocks at a time: else it is found only where this run wants to
        render it, too."""
        started = time.monotonic()
        if not self._left or started < self._look_at:
            return
        self._try_theirs_again()
        for _ in range(len(self._left)):
            self._looked = (self._looked + 1) % len(self._left)
            self._forget_ended(self._looked)
            if time.monotonic() - started > LOOK_S / 200:
                break
        now = time.monotonic()
        self._look_at = now + max(LOOK_S, 50 * (now - started))

    def _forget_ended(self, number: int) -> None:
        """Take out of a block what other runs have completed."""
        block = self._left[number]
        missing = array("I", block.missing())
        if len(missing) < len(block.scenes):
            self.completed.append(block._replace(scenes=sorted(set(block.scenes) - set(missing))))
            self._left[number] = block._replace(scenes=missing)


def _random_number(count: int) -> int:
    return int.from_bytes(os.urandom(4), "big") % count  # the order of scenes changes nothing in them
