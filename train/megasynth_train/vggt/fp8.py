"""Frozen linears with float8 products: forward and the gradient of the input; nothing else is rounded to 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FP8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(FP8).max
_SMALLEST_SCALE = 1e-12  # of a row of zeros
MULTIPLE = 16  # the products take sizes in these steps


class Fp8Linear(nn.Module):
    """A frozen ``nn.Linear`` in float8 (e4m3): two copies of the weight, as many bytes as one in bfloat16.

    Every row of a factor has its own scale, computed when it is used: that of an activation follows the norm or GELU
    before it in one compiled pass. Output in bfloat16. The input is not kept for the backward pass.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        for name, matrix in (("forward", weight), ("backward", weight.t())):
            quantised, scale = quantise(matrix.contiguous())
            self.register_buffer(f"{name}_weight", quantised, persistent=False)  # [out, in] and [in, out]
            self.register_buffer(f"{name}_scale", scale.t().contiguous(), persistent=False)  # [1, out] and [1, in]
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return bfloat16 [..., out] of ``x`` [..., in] in any floating type."""
        weights = (self.forward_weight, self.forward_scale, self.backward_weight, self.backward_scale)
        y: Tensor = _Product.apply(x, *weights)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        context: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        back_weight: Tensor,
        back_scale: Tensor,
    ) -> Tensor:
        context.save_for_backward(back_weight, back_scale)
        context.dtype = x.dtype  # type: ignore[attr-defined]
        return _multiply(x, weight, scale)

    @staticmethod
    def backward(
        context: torch.autograd.function.BackwardCFunction, grad: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        weight, scale = (saved for saved in context.saved_tensors)
        return _multiply(grad, weight, scale).to(context.dtype), None, None, None, None  # type: ignore[attr-defined]


def _multiply(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Return bfloat16 x Wᵀ, [..., n], of ``x`` [..., m], ``weight`` [n, m] in float8 and its ``scale`` [1, n]."""
    rows, row_scale = quantise(x.reshape(-1, x.shape[-1]))
    y = torch._scaled_mm(
        rows, weight.t(), scale_a=row_scale, scale_b=scale, out_dtype=torch.bfloat16, use_fast_accum=x.is_cuda
    )
    return y.view(*x.shape[:-1], -1)


def quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``matrix`` [n, m] in float8 and the scales [n, 1] (float32) that its rows must be multiplied with."""
    matrix = matrix.float()
    scale = (matrix.abs().amax(1, keepdim=True) / _LARGEST).clamp_min(_SMALLEST_SCALE)
    return (matrix / scale).to(FP8), scale


def replace_frozen_linears(module: nn.Module) -> int:
    """Put an ``Fp8Linear`` in the place of every frozen linear inside ``module``; return how many there were.

    Linears with a size that is no multiple of MULTIPLE stay. Names of other parameters do not change.
    """
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.Linear) or any(p.requires_grad for p in child.parameters()):
                continue
            if not (child.in_features % MULTIPLE or child.out_features % MULTIPLE):
                setattr(parent, name, Fp8Linear(child))
                count += 1
    return count
