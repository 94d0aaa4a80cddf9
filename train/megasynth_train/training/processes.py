"""The processes of a run and their devices, by ``accelerate``: one per GPU, or one on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, broadcast_object_list

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, MegaSynthError

Result = TypeVar("Result")
_PLAIN = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


def make_accelerator(device: str) -> Accelerator:
    """Return the accelerator of this process, for ``device`` auto, cpu or cuda.

    It provides devices, process groups, DDP and gathering; vggt/precision.py sets the precision, whatever the user's
    accelerate configuration says. EnvironmentProblem if a GPU is asked for and this process has none.
    """
    gpus, local_rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda" and gpus == 0:
        raise EnvironmentProblem(
            "run.device=cuda, but PyTorch sees no CUDA GPU; check nvidia-smi and that this PyTorch is built for CUDA "
            f"(it is {torch.__version__}), or use run.device=cpu"
        )
    use_cpu = device == "cpu" or gpus == 0
    if not use_cpu and local_rank >= gpus:
        raise EnvironmentProblem(
            f"process {local_rank} of this machine has no GPU: there are {gpus}; start at most {gpus}"
        )
    accelerator = Accelerator(
        cpu=use_cpu,
        mixed_precision="no",
        # the gradients are views of DDP's buckets: no copy; there are no buffers that training changes
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)],
    )
    if accelerator.distributed_type not in _PLAIN:
        raise ConfigError(
            f"accelerate is configured for {accelerator.distributed_type.value}; training supports one process or DDP: "
            "use torchrun, or accelerate launch --multi_gpu"
        )
    return accelerator


def on_main(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Return, on all processes, what ``action`` returns on process 0; its expected errors are raised on all of them.

    Otherwise a full disk on process 0 would leave the others waiting for it.
    """
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except MegaSynthError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result
