"""A folder for the temporary files of one run, removed at its end or, after a kill -9, by the next run."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "megasynth-attr-"
LOCK = "lock"
MEMORY_DISK = Path("/dev/shm")
MEMORY_DISK_FREE = 1_000_000_000  # below that a worker's pictures could fill it


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder, in memory where there is room; folders of runs that no longer live are removed first.

    A living run holds a lock on a file in its folder. The kernel drops it when the process ends, however it ends.
    """
    parent = _parent()
    for folder in parent.glob(f"{PREFIX}*"):
        _remove_if_dead(folder)
    unlocked = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))  # not found by the line above until it is locked
    with (unlocked / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = unlocked.rename(parent / unlocked.name[1:])
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # what stays goes with the next run


def _parent() -> Path:
    if MEMORY_DISK.is_dir() and os.access(MEMORY_DISK, os.W_OK) and "TMPDIR" not in os.environ:
        usage = shutil.disk_usage(MEMORY_DISK)
        if usage.free > MEMORY_DISK_FREE:
            return MEMORY_DISK
    return Path(tempfile.gettempdir())


def _remove_if_dead(folder: Path) -> None:
    with suppress(OSError), (folder / LOCK).open("r+") as lock:  # gone meanwhile, or another user's
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
