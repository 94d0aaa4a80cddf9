"""The numbers of the steps, which the host reads one step late, so that it never waits for the device.

They are copied to pinned memory after the step that made them. When the host reads those of step k, it has already
queued step k + 1, and the device is busy.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from megasynth_attr.core.errors import ConfigError
from megasynth_train.data.batch import RawBatch
from megasynth_train.training.held_out import HeldOut
from megasynth_train.training.metrics import Interval, null_if_not_finite


class Diverged(ConfigError):
    """Training led to losses or gradients that are not finite: the learning rate is too high, or the data are bad."""


@dataclass
class Position:
    """Where a run is, as every checkpoint records it; equal on all processes."""

    step: int = 0  # steps done
    skipped_steps: int = 0
    bad_in_a_row: int = 0  # non-finite steps since the last finite one
    bad_files: int = 0
    objective: float | None = None  # of the last line of metrics
    best_step: int | None = None
    best_objective: float | None = None  # of validation
    base_losses: HeldOut | None = None  # of the base model; None: nothing is held out, or an older version began
    last_losses: HeldOut | None = None  # of the last validation


def refuse_diverged(position: Position, out: Path) -> None:
    """Raise Diverged if a run of ``position.step`` steps ended in several skipped ones or skipped more than half.

    Its weights are those of the last step that was not skipped, not the result of all these steps.
    """
    if position.bad_in_a_row <= 1 and 2 * position.skipped_steps <= position.step:
        return
    raise Diverged(
        f"the run diverged: {position.skipped_steps} of {position.step} steps were not finite and were skipped, the "
        f"last {position.bad_in_a_row} in a row. No result is saved; the checkpoints in {out} are kept. Lower "
        f"optim.lr or try model.precision=fp32, with another out="
    )


@dataclass(frozen=True)
class _Report:
    step: int  # steps done, this one included
    numbers: Tensor  # on the host: stop flag, bad flag, then one number per name
    arrived: torch.cuda.Event | None
    names: tuple[str, ...]
    scenes: tuple[str, ...]
    rate: float
    images: int
    bad_files: int


class Reports:
    """Queue of the steps' numbers; reading them updates ``interval`` and ``position``."""

    def __init__(self, position: Position, interval: Interval, accelerator: Accelerator, max_bad_steps: int) -> None:
        self.position, self.interval = position, interval
        self.stop = False  # some process was asked to stop
        self._accelerator, self._max_bad_steps = accelerator, max_bad_steps
        self._queue: deque[_Report] = deque()
        self._images, self._since = 0, time.monotonic()

    def send(self, raw: RawBatch, rate: float, stop: Tensor, bad: Tensor, values: Mapping[str, Tensor]) -> None:
        """Queue the numbers of the step just taken, on the device: ``stop`` and ``bad`` (0 or 1), scalars by name."""
        on_device = torch.stack([stop, bad, *(value.detach().float() for value in values.values())])
        on_host = on_device.to("cpu", non_blocking=True)  # from CUDA: pinned, and complete when the event has passed
        arrived = None
        if on_device.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        step, images, bad_files = self.position.step, sum(map(len, raw.images_u8)), len(raw.skipped)
        self._queue.append(_Report(step, on_host, arrived, tuple(values), raw.names, rate, images, bad_files))

    def read(self, keep: int = 0) -> None:
        """Count all queued steps but the last ``keep``.

        Raises Diverged, on all processes at the same step, if more than max_bad_steps in a row were not finite.
        """
        while len(self._queue) > keep:
            report = self._queue.popleft()
            if report.arrived is not None:
                report.arrived.synchronize()
            stop, bad, *numbers = report.numbers.tolist()
            values = dict(zip(report.names, numbers, strict=True))
            self.stop |= bool(stop)
            self.interval.bad_files += report.bad_files
            self._images += report.images
            if bad:
                self._count_bad(report, values)
            else:
                self.position.bad_in_a_row = 0
                self.interval.add({"lr": report.rate, **values})

    def _count_bad(self, report: _Report, values: Mapping[str, float]) -> None:
        self.position.skipped_steps += 1
        self.position.bad_in_a_row += 1
        if self.position.bad_in_a_row <= self._max_bad_steps:
            return
        odd = [name for name, value in values.items() if null_if_not_finite(value) is None]
        mine = f"{', '.join(odd)} with scenes {', '.join(report.scenes)}" if odd else ""
        seen = [text for text in gather_object([mine]) if text]  # the flag was agreed on: all processes are here
        raise Diverged(
            f"{self.position.bad_in_a_row} steps in a row were not finite and were skipped; at step {report.step}: "
            f"{'; '.join(seen)}. What was saved is kept. Lower optim.lr, try model.precision=fp32, check these "
            f"scenes, or raise optim.max_bad_steps"
        )

    def line(self) -> dict[str, float | int | None]:
        """Return the means over the interval and all processes, and begin the next interval. Waits for the device."""
        device = self._accelerator.device
        names = sorted(self.interval.sums, key=lambda name: (name != "objective", name))
        mine = [*(self.interval.sums[name] for name in names), self.interval.bad_files, self._images]
        total = self._accelerator.reduce(torch.tensor(mine, dtype=torch.float64, device=device), "sum").tolist()
        count = self.interval.steps * self._accelerator.num_processes
        seconds = time.monotonic() - self._since
        values: dict[str, float | int | None] = {n: v / count for n, v in zip(names, total, strict=False)}
        self.position.bad_files += int(total[-2])
        self.position.objective = values.get("objective")
        values |= {
            "skipped_steps": self.position.skipped_steps,
            "bad_files": self.position.bad_files,
            "images_per_s": total[-1] / seconds,
            "seconds": seconds,
        }
        if device.type == "cuda":
            values["memory_peak_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
            torch.cuda.reset_peak_memory_stats(device)
        self.interval, self._images, self._since = Interval(), 0, time.monotonic()
        return values

    def exclude(self, seconds: float) -> None:
        """Subtract time that was not training from the interval."""
        self._since += seconds
