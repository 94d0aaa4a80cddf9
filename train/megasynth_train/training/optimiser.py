"""AdamW over the trained parameters: its learning rate as a pure function of training progress (linear warm-up, then a
cosine), clipping by group, and a step that a flag on the device can cancel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.training.settings import OptimSettings

_WARMUP_MARGIN = 1e-6  # the released scheduler compares progress + 1e-6 with the end of the warm-up
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps per parameter


def build_optimiser(
    trainable: Mapping[str, Parameter], settings: OptimSettings, undecayed: Collection[str] = ()
) -> AdamW:
    """Return AdamW over ``trainable``, with the same weight decay for all but those named in ``undecayed``.

    The fused kernel is used on the CPU too: ``step_unless`` needs it.
    """
    if not trainable:
        raise ConfigError("nothing would be trained: adapter.targets or adapter.mode leaves no trainable parameter")
    decayed = [parameter for name, parameter in trainable.items() if name not in undecayed]
    free = [parameter for name, parameter in trainable.items() if name in undecayed]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr_start,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


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


def set_learning_rate(optimiser: AdamW, rate: float) -> None:
    """Set the learning rate of the following steps."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def clip_by_group(groups: Mapping[str, Iterable[Parameter]], limit: float) -> dict[str, Tensor]:
    """Scale each group's gradients to a 2-norm of at most ``limit`` (0: leave them); return the norms before that.

    Groups without a gradient are left out. Norms and factors stay on the device, so nothing waits for it.
    """
    norms = {}
    for name, parameters in groups.items():
        with_gradient = [p for p in parameters if p.grad is not None]
        if with_gradient:
            norms[name] = torch.nn.utils.clip_grad_norm_(with_gradient, limit or math.inf)
    return norms


def step_unless(optimiser: AdamW, bad: Tensor) -> None:
    """Take one step, or, where ``bad`` (float scalar on the device) is 1, none: no update, decay, moment or count.

    AdamW's fused kernel reads ``found_inf`` on the device, as gradient scaling does; the host need not know the flag.
    """
    optimiser.found_inf = bad  # type: ignore[attr-defined]
    optimiser.step()
    del optimiser.found_inf  # type: ignore[attr-defined]


def moments(optimiser: AdamW, trainable: Mapping[str, Parameter]) -> dict[str, Tensor]:
    """Return AdamW's moments and step counts as ``<name>.<moment>``; a parameter that never had a gradient has none."""
    found = {}
    for name, parameter in trainable.items():
        for moment, value in optimiser.state.get(parameter, {}).items():
            found[f"{name}.{moment}"] = value
    return found


def load_moments(optimiser: AdamW, trainable: Mapping[str, Parameter], saved: Mapping[str, Tensor]) -> None:
    """Give ``optimiser`` what ``moments`` returned; DatasetError if it belongs to other parameters."""
    expected = {f"{name}.{moment}" for name in trainable for moment in _MOMENTS}
    if unknown := sorted(set(saved) - expected):
        raise DatasetError(f"the checkpoint has optimiser moments of {unknown[0]}, which this run does not train")
    for name, parameter in trainable.items():
        values = {m: saved[f"{name}.{m}"] for m in _MOMENTS if f"{name}.{m}" in saved}
        if not values:
            continue
        if len(values) != len(_MOMENTS) or values["exp_avg"].shape != parameter.shape:
            raise DatasetError(f"the checkpoint's optimiser moments of {name} do not fit this run")
        optimiser.state[parameter] = {m: value.to(parameter.device) for m, value in values.items()}
