"""Norm and rotation of queries and keys, written so that compiled code reads and writes each once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from megasynth_train.vggt.tables import Rotation, partners, rotate


def normalise_and_rotate(heads: Tensor, norm: nn.LayerNorm, rotation: Rotation) -> Tensor:
    """Return ``rotate(norm(heads), rotation)`` of [..., tokens, heads, head_dim], computed in float32."""
    if not torch.compiler.is_compiling():
        return rotate(norm(heads.float()), rotation)
    result: Tensor = _NormaliseAndRotate.apply(heads, norm.weight, norm.bias, norm.eps, *rotation)
    return result


class _NormaliseAndRotate(torch.autograd.Function):
    """A channel's partner is normalised for itself: as a product used twice, the norm would be stored in float32."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, weight: Tensor, bias: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
        x = heads.float()
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(heads, mean, scale, weight, cos, sin)
        own = (x - mean) * scale * weight + bias
        other = (partners(x) - mean) * scale * partners(weight) + partners(bias)
        return torch.addcmul(own * cos, other, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        heads, mean, scale, weight, cos, sin = ctx.saved_tensors
        normal = (heads.float() - mean) * scale
        turned = grad * cos + partners(grad * sin)
        inner = turned * weight
        common = inner.mean(-1, keepdim=True) + normal * (inner * normal).mean(-1, keepdim=True)
        wanted = ctx.needs_input_grad
        return (
            ((inner - common) * scale).to(heads.dtype),
            (turned * normal).flatten(0, -2).sum(0) if wanted[1] else None,
            turned.flatten(0, -2).sum(0) if wanted[2] else None,
            None, None, None,
        )  # fmt: skip
