"""``memory=auto``: the settings that fit this GPU, and how the estimate compares with what a step really took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, first_line
from megasynth_train.cost.cards import run_tuning, words
from megasynth_train.cost.layers import StepShape
from megasynth_train.cost.memory import GIB, fit, largest_step, step_bytes
from megasynth_train.training.settings import TrainSettings


def fit_to_gpu(settings: TrainSettings, accelerator: Accelerator, pieces: int | None = None) -> TrainSettings:
    """Return the settings of a run with ``memory=auto`` as the GPU with the least free memory needs them; others as
    they are. ConfigError without a GPU, EnvironmentProblem if not one scene fits. ``pieces``: as for ``fit``.
    """
    if settings.run.memory != "auto":
        return settings
    if accelerator.device.type != "cuda":
        raise ConfigError(
            f"memory=auto needs a CUDA GPU and this run is on {accelerator.device.type}; leave it out, or set "
            "data.scenes_at_once"
        )
    return fit(settings, run_tuning(settings), min(gather_object([free_bytes(accelerator.device)])), pieces)


def is_shortage(error: RuntimeError) -> bool:
    """Return whether ``error`` says that a GPU's memory has ended; cuBLAS and cuDNN have words of their own for it."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in said or "CUDA error: out of memory" in said


@contextmanager
def shortage_named() -> Iterator[None]:
    """Raise EnvironmentProblem where a GPU's memory ends and smaller pieces cannot help: for weights and optimiser."""
    try:
        yield
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        raise EnvironmentProblem(
            f"the GPU has no room for the model and its optimiser ({first_line(error)}): train less (mode=, rank=), or "
            "use a GPU with more free memory; plan=true says what fits which"
        ) from error


def choice_text(settings: TrainSettings) -> str:
    """Return what ``settings``, made by ``fit``, keep, and how much memory that is estimated to take."""
    peak, shape = largest_step(settings, run_tuning(settings))
    return (
        f"{words(settings)}; the largest step, {shape.scenes} scenes × {shape.views} views, is estimated to take "
        f"{peak / GIB:.1f} GiB"
    )


def peak_line(settings: TrainSettings, shape: StepShape, peak: float) -> str:
    """Return the estimated and the measured ``peak`` of a step of this shape."""
    estimate = step_bytes(settings, run_tuning(settings), shape)
    return (
        f"memory=auto: the first step, {shape.scenes} scenes × {shape.views} views, took {peak / GIB:.1f} GiB at its "
        f"peak; {estimate / GIB:.1f} GiB were estimated"
    )


def free_bytes(device: torch.device) -> float:
    """Return the bytes of the GPU that nobody uses, with those that PyTorch keeps from earlier runs."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + unused)


def peak_bytes(device: torch.device) -> float:
    """Return the largest number of bytes that tensors held since the peak was last reset."""
    return float(torch.cuda.max_memory_allocated(device))
