"""Batches in the order of their steps, made by processes that only decode files.

A worker makes the whole batch of a step from the step's number alone, so the batches do not depend on the number of
workers, and a loader that begins at step k continues one that was stopped there.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem, MegaSynthError, first_line
from megasynth_train.data.batch import RawBatch, load_step
from megasynth_train.data.cache import PIXEL_BYTES, SHARED_MEMORY, FrameCache, open_cache
from megasynth_train.data.plan import Sampling

_GRACE_READS = (
    200  # max_bad_share is applied to at least this many reads: one bad scene in the first step proves nothing
)


class StepDataset(Dataset[RawBatch | MegaSynthError]):
    """Item = step. Expected errors are returned: raised in a worker, they would arrive as a traceback."""

    def __init__(self, sampling: Sampling, cache: FrameCache | None) -> None:
        self.sampling, self.cache = sampling, cache

    def __getitem__(self, step: int) -> RawBatch | MegaSynthError:
        try:
            return load_step(self.sampling, step, self.cache)
        except MegaSynthError as error:
            return error


class StepLoader:
    """An iterable of one RawBatch per step; iterating again starts over, with the same worker processes.

    ``pin``: put batches into page-locked memory (pass True when the device is CUDA). ``start_method``: how workers
    start, default "fork" on Linux (they begin at once and never touch the device), "spawn" elsewhere. ``reads`` and
    ``bad_reads`` count the scenes tried and not readable in this iteration.
    """

    def __init__(self, sampling: Sampling, steps: range, *, pin: bool = False, start_method: str | None = None) -> None:
        settings = sampling.settings
        self.steps, self.max_bad_share = steps, settings.max_bad_share
        self.reads = self.bad_reads = 0
        if not sampling.scenes:
            raise DatasetError(f"there is no {'training' if sampling.training else 'validation'} scene to load")
        cache = open_cache(settings)
        workers = min(settings.workers, len(steps))
        options: dict[str, Any] = {}
        if workers:
            _check_shared_memory(sampling, workers * settings.prefetch + 1, cache)
            options = {
                "prefetch_factor": settings.prefetch,
                "persistent_workers": True,
                "multiprocessing_context": start_method or ("fork" if sys.platform == "linux" else "spawn"),
                "worker_init_fn": _leave_signals_to_the_main_process,
            }
        self._loader: DataLoader[RawBatch | MegaSynthError] | None = DataLoader(
            StepDataset(sampling, cache),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            pin_memory=pin,
            generator=torch.Generator(),  # else torch's global generator is advanced, and a resumed run differs
            **options,
        )

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[RawBatch]:
        """Yield the batches; raises the DatasetError of a worker as it is, EnvironmentProblem if a worker dies."""
        if self._loader is None:
            raise ValueError("the loader is closed")
        self.reads = self.bad_reads = 0
        try:
            with dead_workers_named():
                for item in self._loader:
                    if isinstance(item, MegaSynthError):
                        raise item
                    self._refuse_too_many_bad(item)
                    yield item
        except MegaSynthError:
            self.close()
            raise

    def close(self) -> None:
        """Stop the worker processes."""
        self._loader = None

    def _refuse_too_many_bad(self, batch: RawBatch) -> None:
        self.reads += batch.reads
        self.bad_reads += len(batch.skipped)
        if self.bad_reads > self.max_bad_share * max(self.reads, _GRACE_READS):
            raise DatasetError(
                f"{self.bad_reads} of {self.reads} scenes could not be read, more than data.max_bad_share="
                f"{self.max_bad_share:g} allows; the last: {batch.skipped[-1].reason}"
            )


@contextmanager
def dead_workers_named() -> Iterator[None]:
    """Raise EnvironmentProblem if a loader process dies inside: torch's signal handler may interrupt any statement."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise EnvironmentProblem(
            f"a loader process died ({first_line(error)}): most likely memory or shared memory "
            f"({SHARED_MEMORY}) ran out; lower data.workers or data.prefetch, or use data.workers=0"
        ) from error


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Make this worker end only when its parent tells it to.

    Ctrl-C and a farm's SIGTERM reach the whole process group; the main process must finish its step and save first.
    torch ends workers by SIGTERM, too, so what counts is who sent it. After kill -9 of the parent, torch's watchdog
    ends them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _check_shared_memory(sampling: Sampling, batches: int, cache: FrameCache | None) -> None:
    """Raise EnvironmentProblem, instead of a later bus error, if ``batches`` batches do not fit into shared memory,
    beside what may be added to a ``cache`` there.
    """
    if not SHARED_MEMORY.is_dir():
        return
    pixels = max(scene.image_size_hw[0] * scene.image_size_hw[1] for scene in sampling.scenes)
    needed = batches * sampling.settings.images_per_step * pixels * PIXEL_BYTES
    key = ""
    if cache is not None and sampling.training and cache.folder.is_relative_to(SHARED_MEMORY):
        needed, key = needed + cache.room_bytes(), "data.cache_gib, "
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise EnvironmentProblem(
            f"{needed / 1e6:.0f} MB of shared memory are needed and {SHARED_MEMORY} has {free / 1e6:.0f} MB free: "
            f"lower {key}data.workers or data.prefetch, use data.workers=0, or give the container more "
            "(docker --shm-size)"
        )
