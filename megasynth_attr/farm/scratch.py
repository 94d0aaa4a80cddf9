"""A folder for the temporary files of one run, removed at its end or, after a kill -9, by the next run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megasynth_attr.core.temporary import new_temporary_folder, remove_leftovers, remove_temporary_folder

STEM = "megasynth-attr"
MEMORY_DISK = Path("/dev/shm")
MEMORY_DISK_FREE = 1_000_000_000  # below that a worker's pictures could fill it


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder, in memory where there is room; folders of runs that no longer live are removed first."""
    parent = _parent()
    remove_leftovers(parent, STEM)
    folder = new_temporary_folder(parent, STEM)
    try:
        folder.chmod(0o700)  # other users work there, too
        yield folder
    finally:
        remove_temporary_folder(folder)


def _parent() -> Path:
    if MEMORY_DISK.is_dir() and os.access(MEMORY_DISK, os.W_OK) and "TMPDIR" not in os.environ:
        usage = shutil.disk_usage(MEMORY_DISK)
        if usage.free > MEMORY_DISK_FREE:
            return MEMORY_DISK
    return Path(tempfile.gettempdir())
