"""Which arithmetic runs where: bfloat16 in encoder and aggregator if asked for, float32 in losses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from megasynth_attr.core.errors import ConfigError


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """Return "fp32" or "bf16" for "auto", "fp32" or "bf16": auto is bf16 on CUDA and fp32 elsewhere."""
    if precision not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"model.precision {precision!r} is unknown; use auto, fp32 or bf16")
    if precision != "auto":
        return precision
    return "bf16" if torch.device(device).type == "cuda" else "fp32"


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager[object]:
    """Return the context for a whole forward pass; heads switch it off for themselves, gradients run outside of it."""
    if resolve_precision(precision, device) == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def set_backends(threads: int = 0) -> None:
    """Compute with this many CPU threads (0: PyTorch's own number), and on CUDA with TF32 in the heads.

    TF32 is for float32 matrix products and convolutions.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def store_frozen_in_bf16(aggregator: nn.Module) -> None:
    """Store frozen weights of the linears and convolutions of ``aggregator`` in bfloat16.

    Under bf16 autocast the result is the same to the last bit, since autocast would round the same weights on every
    use (it caches only the copies of weights that are trained). The model then *only* runs under bf16 autocast, and
    its state dict is no longer the checkpoint: take ``weights_hash`` first. Norms, LayerScale, tokens, positions and
    heads stay fp32.
    """
    for module in aggregator.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for weight in module.parameters(recurse=False):
                if not weight.requires_grad and weight.dtype == torch.float32:
                    weight.data = weight.data.to(torch.bfloat16)
