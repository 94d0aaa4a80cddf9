"""The learning rate as a pure function of training progress (linear warm-up, then a cosine)."""

from __future__ import annotations

import math

from megasynth_train.training.settings import OptimSettings

_WARMUP_MARGIN = 1e-6  # the released scheduler compares progress + 1e-6 with the end of the warm-up


def learning_rate(progress: float, settings: OptimSettings) -> float:
    """Return the learning rate at ``progress`` (0 = first step, 1 = last step).

    ``lr_start`` rises linearly to ``lr`` over the share ``warmup`` of the steps and falls along half a cosine to
    ``lr_end``. With ``warmup=1`` it only rises. Raises ValueError outside [0, 1].
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress is {progress}, but it runs from 0 to 1")
    if progress + _WARMUP_MARGIN <= settings.warmup:
        return settings.lr_start + (settings.lr - settings.lr_start) * progress / settings.warmup
    if settings.warmup == 1.0:
        return settings.lr
    falling = max(0.0, (progress - settings.warmup) / (1.0 - settings.warmup))  # within the margin it is below 0
    return settings.lr_end + 0.5 * (settings.lr - settings.lr_end) * (1.0 + math.cos(math.pi * falling))
