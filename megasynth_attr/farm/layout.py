"""How many Blender processes, and how many threads in each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.scene.settings import RunSettings

BEST_THREADS = 2
WORKER_BYTES = 1_500_000_000  # a worker with the largest preset at 518 px, rounded up


@dataclass(frozen=True)
class Layout:
    """``workers`` processes with ``threads`` threads each."""

    workers: int
    threads: int

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
        return f"{workers} × {self.threads} thread{'s' * (self.threads > 1)}"


def available_cores() -> int:
    """Return the cores this process may use: its affinity and, on Linux, its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, max(1, int(limit) // int(period)))
    return cores


def available_memory() -> int:
    """Return bytes of memory that can be used without swapping; 0 if this system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def choose_layout(run: RunSettings, scenes: int, cores: int, memory_bytes: int) -> Layout:
    """Return workers × threads for ``scenes`` scenes; values given in the settings are kept.

    On the CPU: two threads per worker while there are scenes for all of them; with fewer scenes, or little memory, the
    cores are shared out. One thread each would leave no core idle in the parts of a frame that use only one, but with
    one thread Blender's task scheduler keeps a second one spinning: it costs more than it saves, see docs/overhead.md.
    More threads per worker idle more. A GPU gets one worker, which has all the threads.
    """
    if run.device != "cpu":
        workers = run.workers or 1
        return Layout(workers, run.threads or max(1, cores // workers))
    most = max(1, min(scenes, memory_bytes // WORKER_BYTES if memory_bytes else scenes))
    if run.workers:
        return Layout(run.workers, run.threads or max(1, cores // run.workers))
    if run.threads:
        return Layout(min(most, max(1, cores // run.threads)), run.threads)
    workers = min(most, max(1, cores // BEST_THREADS))
    return Layout(workers, max(1, cores // workers))
