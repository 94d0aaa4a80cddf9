"""Frozen tensors that PiSSA and LoRA-XS derive from the base weights: read, stored and put back bit for bit.

Both start from a singular value decomposition, whose signs (and vectors, for equal singular values) may differ between
machines. LoRA-XS' trained matrix is meaningless with other vectors, so they are stored with it. PiSSA subtracts the
product of its initial factors from the base weight, so the stored factors give the same residual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.psoft import PsoftLayer
from torch import Tensor, nn

from megasynth_attr.core.errors import DatasetError


def bases(model: nn.Module) -> dict[str, Tensor]:
    """Return LoRA-XS' frozen vectors: ``<module>.A`` (r × in) and, scaled, ``<module>.B`` (out × r)."""
    return {key: tensor.detach() for key, tensor in _buffers(model)}


def set_bases(model: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Overwrite LoRA-XS' frozen vectors by ``stored``, with the keys of ``bases``; DatasetError if a shape differs."""
    for key, tensor in _buffers(model):
        if tensor.shape != stored[key].shape:
            raise DatasetError(f"the stored basis {key} is {tuple(stored[key].shape)}, expected {tuple(tensor.shape)}")
        tensor.copy_(stored[key])


@torch.no_grad()
def subtract_start(model: nn.Module, initial: Mapping[str, Tensor], adapter: str) -> None:
    """Turn base weights W into PiSSA's residual W − scale · B₀A₀, with PEFT's own order of operations."""
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer) or adapter not in layer.lora_A:
            continue
        weight = cast(nn.Linear, layer.get_base_layer()).weight
        start_a = initial[f"{name}.lora_A.{adapter}.weight"].to(weight.device)
        start_b = initial[f"{name}.lora_B.{adapter}.weight"].to(weight.device)
        weight.data = weight.data - layer.scaling[adapter] * start_b @ start_a


def _buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, layer in model.named_modules():
        if isinstance(layer, PsoftLayer):
            for adapter in layer.psoft_R:
                input_vectors, output_vectors = layer._get_psoft_ab_cache_buffers(adapter)
                yield f"{name}.A", input_vectors
                yield f"{name}.B", output_vectors
