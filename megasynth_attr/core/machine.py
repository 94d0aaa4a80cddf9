"""What this machine gives a process: memory and disk. Its cores: threads.py."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, ExitCode
from megasynth_attr.core.pages.words import size_text

_LAUNCHER_S = 30.0
SPARE_BYTES = 100_000_000  # left free for everybody else on the disk
INSTALL_BPY = "`pip install bpy==5.0.1` (Python 3.11) or `pip install bpy==5.2.3` (Python 3.13)"


def refuse_several_processes(program: str, instead: str = "it is one process: start it by itself") -> None:
    """Raise ConfigError if a launcher such as torchrun has started this ``program`` several times in one run.

    Process 0 alone says so: the others wait for the launcher, which ends them when one has ended.
    """
    if "LOCAL_RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    if os.environ.get("RANK") != "0":
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(ExitCode.USAGE))
        time.sleep(_LAUNCHER_S)
    raise ConfigError(f"{program} was started {os.environ['WORLD_SIZE']} times by torchrun or accelerate; {instead}")


def available_memory() -> int:
    """Return bytes of memory that can be used without swapping; 0 if this system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def existing_parent(folder: Path) -> Path:
    """Return the nearest of ``folder`` and its parents that exists; OSError if a name is too long to exist below it."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    for name in folder.relative_to(existing).parts:
        with suppress(FileNotFoundError):
            (existing / name).lstat()
    return existing


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the file system that holds ``folder`` or will hold it."""
    return shutil.disk_usage(existing_parent(folder)).free


def missing_bytes(folder: Path, needed: float) -> float:
    """Return how many bytes the disk of ``folder`` lacks for ``needed`` bytes and a reserve; 0 if it has enough."""
    return max(needed + SPARE_BYTES - free_bytes(folder), 0.0)


def check_disk(folder: Path, needed: float, what: str) -> None:
    """Raise EnvironmentProblem unless ``needed`` bytes and a reserve are free on the disk of ``folder``."""
    free = free_bytes(folder)
    if missing_bytes(folder, needed):
        raise EnvironmentProblem(
            f"the disk of {folder} is too small: {what} need about {size_text(needed)} and {size_text(SPARE_BYTES)} "
            f"must stay free, but only {size_text(free)} are; free some space, choose another out= or fewer scenes="
        )


def check_writable(folder: Path) -> None:
    """Raise EnvironmentProblem unless ``folder`` can be created or written; creates nothing."""
    existing = existing_parent(folder)
    if not existing.is_dir():
        raise EnvironmentProblem(f"out={folder}: {existing} is a file, not a folder; choose another out=")
    stats = os.statvfs(existing) if hasattr(os, "statvfs") else None
    if stats is not None and stats.f_flag & os.ST_RDONLY:
        reason = "is on a read-only file system"
    elif not os.access(existing, os.W_OK | os.X_OK):
        reason = "cannot be written to by this user"
    elif stats is not None and not stats.f_blocks:
        reason = "is on a file system that cannot store files, such as /proc"
    else:
        return
    raise EnvironmentProblem(f"out={folder}: {existing} {reason}; choose another out=")
