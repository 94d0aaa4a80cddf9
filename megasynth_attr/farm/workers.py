"""How many Blender processes, and how many threads in each."""

from __future__ import annotations

from dataclasses import dataclass

from megasynth_attr.core.threads import threads_each
from megasynth_attr.scene.settings import RunSettings

BEST_THREADS = 2
WORKER_BYTES = 1_500_000_000  # a worker with the largest preset at 518 px, rounded up


@dataclass(frozen=True)
class WorkerCount:
    """``workers`` processes with ``threads`` threads each."""

    workers: int
    threads: int

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
        return f"{workers} × {self.threads} thread{'s' * (self.threads > 1)}"


def choose_workers(run: RunSettings, scenes: int, cores: int, memory_bytes: int) -> WorkerCount:
    """Return workers × threads for ``scenes`` scenes; values given in the settings are kept.

    On the CPU: two threads per worker while there are scenes for all of them; with fewer scenes, or little memory, the
    cores are shared out. One thread each would leave no core idle in the parts of a frame that use only one, but with
    one thread Blender's task scheduler keeps a second one spinning: it costs more than it saves, see docs/overhead.md.
    The more threads a worker has, the more of them idle. A GPU gets one worker, which has all the threads.
    """
    if run.device != "cpu":
        workers = run.workers or 1
        return WorkerCount(workers, threads_each(workers, cores, run.threads))
    most = max(1, min(scenes, memory_bytes // WORKER_BYTES if memory_bytes else scenes))
    if run.workers:
        return WorkerCount(run.workers, threads_each(run.workers, cores, run.threads))
    if run.threads:
        return WorkerCount(min(most, max(1, cores // run.threads)), run.threads)
    workers = min(most, max(1, cores // BEST_THREADS))
    return WorkerCount(workers, threads_each(workers, cores))
