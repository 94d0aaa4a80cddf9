"""A learning-rate range test: the loss while the learning rate rises exponentially, and the rate that it suggests.

::

    <out>/lr_find.json    rates, losses, the suggestion and what it was read from
    <out>/lr_find.png     the curve

Its steps start from the base model and are thrown away: nothing else in ``out`` is read or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError, Interrupted
from megasynth_attr.core.files import json_bytes, storage_errors
from megasynth_attr.core.pages.figures import COLOURS, MUTED, figure_style, log_axis, new_figure, place, save_png
from megasynth_attr.core.pages.words import short
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.temporary import replace_atomically, written_beside
from megasynth_train.training.loop import Run
from megasynth_train.training.processes import asked_to_stop
from megasynth_train.training.run_folder import LR_TEST
from megasynth_train.training.settings import TrainSettings

PICTURE = "lr_find.png"
LOWEST_RATE, HIGHEST_RATE = 1e-7, 1.0
RELEASED = "The default 1e-5 is the released learning rate, for 24,000 steps; a run of fewer steps needs a higher one."
_START_SHARE = 1 / 20  # of the steps: their mean is the level from which the loss falls or rises
_SMOOTH_SHARE = 1 / 40  # of the steps: standard deviation of the smoothing, in steps
_MEMORY = 0.9  # of the running mean that says when to stop


@dataclass(frozen=True)
class Curve:
    """``losses[k]`` is the loss in the step after the one with ``rates[k]``; ``level`` that before all of them."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    level: float
    diverged: bool  # it ended because the loss had risen far above the level, or was not finite

    @property
    def smooth(self) -> np.ndarray:
        """Return the losses smoothed over neighbours on both sides, which shifts nothing along the rates."""
        return np.asarray(gaussian_filter1d(self.losses, max(1.0, _SMOOTH_SHARE * len(self.losses)), mode="nearest"))


@dataclass(frozen=True)
class Suggestion:
    """``rate`` is the smaller of ``steepest``, where the loss falls fastest, and a tenth of ``rising``, from where it
    rises; None if the loss falls by no more than it fluctuates."""

    rate: float | None
    steepest: float
    rising: float

    def text(self, curve: Curve) -> str:
        """Return the suggestion with its reason."""
        if self.rate is None:
            return (
                f"no suggestion: up to {short(curve.rates[-1])} the loss falls by no more than it fluctuates from step "
                "to step; give more lr_find_steps or a larger data.images_per_step"
            )
        end = f"rises from {short(self.rising)} on" if curve.diverged else "had not risen at the highest rate"
        if self.rate == self.steepest:
            return f"suggested: optim.lr={self.rate:.1e}, where the loss falls fastest; it {end}"
        return f"suggested: optim.lr={self.rate:.1e}, a tenth of the rate from which the loss rises"


def range_test(step: Callable[[float], float | None], rates: Iterable[float]) -> Curve:
    """Return the curve of ``step(rate)``, which takes one step and returns the loss before it, None if not finite.

    It ends where a running mean of the loss has risen above the level of the start by as much as it had fallen below
    it, or by half the level or three times the fluctuation, if these are more. ConfigError if the loss is not finite so
    early that the learning rate cannot be the reason.
    """
    rates = list(rates)
    start = max(3, round(_START_SHARE * len(rates)))
    losses: list[float] = []
    running = lowest = level = room = 0.0
    diverged = False
    for count, rate in enumerate(rates):
        loss = step(rate)
        if loss is None and count <= start:
            raise ConfigError(
                f"lr_find: the loss or a gradient is not finite in step {count}, at a learning rate of {rate:.1e}: "
                "too low to be the reason; check the data, and try model.precision=fp32"
            )
        if loss is None:
            diverged = True
            break
        losses.append(loss)
        if len(losses) <= start:
            running = lowest = level = float(np.mean(losses))
            room = max(abs(level) / 2, 3 * float(np.std(losses)))
            continue
        running = _MEMORY * running + (1 - _MEMORY) * loss
        lowest = min(lowest, running)
        if running > level + max(room, level - lowest):
            diverged = True
            break
    return Curve(tuple(rates[: len(losses) - 1]), tuple(losses[1:]), level, diverged)


def suggest(curve: Curve) -> Suggestion:
    """Return what the smoothed curve says."""
    smooth, rates = curve.smooth, curve.rates
    low = int(np.argmin(smooth))
    slope = np.gradient(smooth)  # the logarithms of the rates are evenly spaced
    steepest, rising = rates[int(np.argmin(slope[: low + 1]))], rates[low]
    noise = float(np.std(np.asarray(curve.losses[: low + 1]) - smooth[: low + 1]))
    if curve.level - smooth[low] <= noise:
        return Suggestion(None, steepest, rising)
    return Suggestion(min(steepest, rising / 10) if curve.diverged else steepest, steepest, rising)


def measure(run: Run, steps: int, stop: StopRequest) -> Curve:
    """Return the curve of a run that has not begun, in at most ``steps`` steps; its model is then of no more use."""
    batches = iter(run.batches(0, steps, training=True))
    rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, steps).tolist()
    shown = run.settings.run.progress and run.accelerator.is_main_process
    with tqdm(total=steps, desc="lr_find", unit="step", dynamic_ncols=True, disable=not shown) as bar:

        def step(rate: float) -> float | None:
            run.step(next(batches), wanted := asked_to_stop(stop), rate=rate)
            run.reports.read()
            if run.reports.stop:
                raise Interrupted(f"{wanted or 'another process was asked to stop'}; nothing was written")
            bar.update()
            loss: float | None = run.reports.line().get("objective")
            return loss

        return range_test(step, rates)


def write(out: Path, curve: Curve, found: Suggestion, settings: TrainSettings) -> None:
    """Write the numbers and the picture into ``out``, each whole or not at all."""
    record = {
        "format": LR_TEST.format,
        "suggested": found.rate,
        "steepest": found.steepest,
        "rising": found.rising if curve.diverged else None,
        "level": curve.level,
        "rates": curve.rates,
        "losses": curve.losses,
        "settings": to_plain(settings),
    }
    with storage_errors("the learning-rate test", out):
        out.mkdir(parents=True, exist_ok=True)
        with written_beside(out / PICTURE, "new") as temporary:
            save_curve(temporary, curve, found)
        replace_atomically(out / LR_TEST.record, json_bytes(record))


@figure_style()
def save_curve(path: Path, curve: Curve, found: Suggestion) -> None:
    """Draw losses, their smoothed curve and the suggestion."""
    figure = new_figure(4.8, 2.7)
    axes: Any = place(figure, 0.6, 0.3, 4.05, 1.85)
    axes.plot(curve.rates, curve.losses, ".", color=MUTED, markersize=2.5)
    axes.plot(curve.rates, curve.smooth, color=COLOURS[0])
    axes.axhline(curve.level, color=MUTED, linewidth=0.8, linestyle=":")
    low = min(*curve.losses, curve.level)
    room = curve.level - low or 1.0
    axes.set_ylim(low - 0.1 * room, curve.level + 0.6 * room)  # what rises without end is cut off
    log_axis(axes, "x")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss in the next step")
    if found.rate is None:
        axes.set_title("no suggestion: the loss falls by no more than it fluctuates", loc="left")
    else:
        axes.axvline(found.rate, color=COLOURS[1])
        axes.set_title(f"suggested: {found.rate:.1e}", loc="left", color=COLOURS[1])
    save_png(figure, path)
