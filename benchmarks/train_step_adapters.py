"""Minimal adapters for timing a training step: a frozen basis and a plain low-rank update.

Both compute in autocast's dtype and cast their input only once; the trained matrices are fp32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from megasynth_train.cost.layers import Tuning

SCALE = 2.0  # alpha / rank of the released code


class FrozenBasis(nn.Module):
    """y = W x + b + s·A·M·Bᵀx: A [out, D] and B [in, D] orthonormal and frozen, M [D, D] trained from zero."""

    def __init__(self, base: nn.Linear, dimension: int, dtype: torch.dtype, generator: torch.Generator) -> None:
        super().__init__()
        device = base.weight.device
        left = _orthonormal(base.out_features, dimension, generator).to(device, dtype)
        right = _orthonormal(base.in_features, dimension, generator).to(device, dtype)
        self.base = base
        self.register_buffer("left", left, persistent=False)  # A
        self.register_buffer("right_t", right.T.contiguous(), persistent=False)  # Bᵀ
        self.middle = nn.Parameter(torch.zeros(dimension, dimension, device=device))  # M

    def forward(self, x: Tensor) -> Tensor:
        x = _for_products(x)
        inside = F.linear(F.linear(x, self.right_t), SCALE * self.middle)  # [..., D]
        return self.base(x) + F.linear(inside, self.left)


class LowRank(nn.Module):
    """y = base(x) + s·B(A(x)) for a linear layer or a convolution: A keeps kernel, stride and padding, B is 1 × 1."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        down_shape = (rank, *base.weight.shape[1:])
        up_shape = (base.weight.shape[0], rank, *(1 for _ in base.weight.shape[2:]))
        limit = 1.0 / math.sqrt(math.prod(down_shape[1:]))  # Kaiming-uniform with a = √5, as in PEFT
        down = torch.empty(down_shape).uniform_(-limit, limit, generator=generator)
        self.down = nn.Parameter(down.to(base.weight.device))  # A
        self.up = nn.Parameter(torch.zeros(up_shape, device=base.weight.device))  # B

    def forward(self, x: Tensor) -> Tensor:
        x = _for_products(x)
        if isinstance(self.base, nn.Linear):
            return self.base(x) + F.linear(F.linear(x, self.down), SCALE * self.up)
        inside = F.conv2d(x, self.down, stride=self.base.stride, padding=self.base.padding)
        return self.base(x) + F.conv2d(inside, SCALE * self.up)


def insert(model: nn.Module, tuning: Tuning, dtype: torch.dtype, seed: int) -> None:
    """Freeze ``model`` and put adapters on its linears and convolutions outside the encoder, in place.

    On the aggregator's linears, tuning.kind basis puts a frozen basis, stored as ``dtype``, lora a low-rank update,
    heads nothing. The heads always get low-rank updates.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if name.startswith("aggregator.patch_embed") or not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        in_aggregator = name.startswith("aggregator.")
        if in_aggregator and tuning.kind == "heads":
            continue
        if in_aggregator and tuning.kind == "basis" and isinstance(module, nn.Linear):
            adapter: nn.Module = FrozenBasis(module, tuning.rank, dtype, generator)
        else:
            adapter = LowRank(module, tuning.rank if in_aggregator else tuning.head_rank, generator)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, adapter)


def trained_groups(model: nn.Module) -> Mapping[str, list[nn.Parameter]]:
    """Return the trained parameters by the three groups that are clipped together."""
    found: dict[str, list[nn.Parameter]] = {"aggregator": [], "camera": [], "depth": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[name.split(".")[0].removesuffix("_head")].append(parameter)
    return found


def _for_products(x: Tensor) -> Tensor:
    """Return ``x`` in autocast's dtype, so that base and adapter do not both cast it."""
    kind = x.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):  # the meta device has no autocast
        return x.to(torch.get_autocast_dtype(kind))
    return x


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator)).Q
