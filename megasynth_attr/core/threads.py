"""How many threads a process computes with, and whether they sleep while they wait: decided here, for all processes.

Libraries read these variables when they are loaded. A program of ours sets what is missing before it loads any
(``settle``, called by core/early.py), processes that it starts are given their share (``counts``), and a key
``threads=`` goes to PyTorch or Blender itself. What the user has set stays as it is. Imports nothing that takes time.
"""

from __future__ import annotations

import os
from pathlib import Path

BLAS_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "<microseconds or max> <period>"
# threads of GNU, LLVM and Intel OpenMP that have nothing to do, see benchmarks/threads.md
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def available_cores() -> int:
    """Return the cores this process may use: its affinity and, on Linux, its control group's quota."""
    return min(_affinity(), _quota() or _affinity())


def threads_each(processes: int, cores: int, wanted: int = 0) -> int:
    """Return the threads of each of ``processes`` that share ``cores``: those wanted, or an equal part, at least 1."""
    return wanted or max(1, cores // processes)


def counts(threads: int) -> dict[str, str]:
    """Return the variables that give a process, before it is started, this many threads."""
    return dict.fromkeys(BLAS_THREADS, str(threads))


def settle() -> None:
    """Set, for libraries that this process loads from now on, what the user has not: how threads wait, and a quota.

    Without a quota the libraries count for themselves, some of them without the second thread of a core.
    """
    wanted = {} if any(name in os.environ for name in WAITING) else dict(WAITING)
    if available_cores() < _affinity() and not any(name in os.environ for name in BLAS_THREADS):
        wanted |= counts(available_cores())
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> int:
    """Return the whole cores of the control group's quota, 0 without one, or if the file says none that we know."""
    try:
        words = QUOTA.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return 0
    if len(words) != 2 or not all(word.isdigit() and int(word) for word in words):
        return 0
    limit, period = map(int, words)
    return max(1, limit // period)
