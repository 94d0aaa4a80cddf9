"""Adapters under bf16 autocast: frozen weights stored in bfloat16, and plain LoRA without sums in memory."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from megasynth_train.adapters.adapted import Adapted
from megasynth_train.adapters.subspace.layer import SubspaceLinear
from megasynth_train.training.settings import NEED_FLOAT32_WEIGHTS
from megasynth_train.vggt.precision import store_frozen_in_bf16


def make_lean(adapted: Adapted) -> bool:
    """Store frozen linears of encoder and aggregator, and bases, in bfloat16, and pass adapters their input uncast.

    This saves memory and casts in training under bf16 autocast, with the same result to the last bit: PEFT would cast
    every input to the adapter's float32 and autocast would cast it back, which keeps copies of the largest activations
    for the backward pass. On CUDA plain LoRA is computed by ``lora_product``, the same up to rounding.
    Returns whether anything was done; the modes of NEED_FLOAT32_WEIGHTS are left alone. Afterwards the model runs under
    bf16 autocast only.
    """
    if adapted.mode in NEED_FLOAT32_WEIGHTS:
        return False
    store_frozen_in_bf16(adapted.model.aggregator)
    lean_adapters(adapted.model)
    return True


def lean_adapters(model: nn.Module) -> None:
    """Make adapters in ``model`` take their input uncast, and plain LoRA on CUDA one operation."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]
        if isinstance(module, SubspaceLinear):
            module.store_basis_in_bf16()
        if isinstance(module, LoraLinear):
            module.forward = partial(_forward, module, module.forward)  # type: ignore[method-assign]


def _forward(layer: LoraLinear, by_peft: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return what PEFT's ``layer`` does, by ``lora_product`` if it is a plain adapter of a linear in bfloat16."""
    base, active = cast(nn.Linear, layer.get_base_layer()), layer.active_adapters
    plain = (
        x.is_cuda and not (args or kwargs or layer.disable_adapters or layer.merged)
        and type(base) is nn.Linear and base.weight.dtype == torch.bfloat16
        and len(active) == 1 and active[0] in layer.lora_A and active[0] not in layer.lora_variant
        and isinstance(layer.lora_dropout[active[0]], nn.Identity)
    )  # fmt: skip
    if not plain:
        result: Tensor = by_peft(x, *args, **kwargs)
        return result
    down, up = (cast(nn.Linear, of[active[0]]).weight for of in (layer.lora_A, layer.lora_B))
    return lora_product(x, base.weight, base.bias, down, up * layer.scaling[active[0]])


def lora_product(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
    """Return bfloat16 W x + b + U D x, [..., m], of ``x`` [..., n], frozen W [m, n], b, and trained D [r, n], U [m, r].

    Each product adds to the one before it in its own memory. As separate operations the sums read and write the
    largest tensors of a block again: forward, backward, and once more for the scale.
    """
    rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
    y: Tensor = _product(rows, weight, bias, down.to(torch.bfloat16), up.to(torch.bfloat16))[0]
    return y.view(*x.shape[:-1], -1)


@torch.library.custom_op("megasynth::lora", mutates_args=())
def _product(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    inside = x @ down.t()
    y = inside @ up.t() if bias is None else torch.addmm(bias, inside, up.t())
    return y.addmm_(x, weight.t()), inside


@torch.library.custom_op("megasynth::lora_backward", mutates_args=())
def _product_backward(
    grad: Tensor, x: Tensor, weight: Tensor, down: Tensor, up: Tensor, inside: Tensor, want_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    outside = grad @ up
    grad_x = (outside @ down).addmm_(grad, weight) if want_x else grad.new_empty(0)
    return grad_x, outside.t() @ x, grad.t() @ inside


@_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], weight.shape[0]), x.new_empty(x.shape[0], down.shape[0])


@_product_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, down: Tensor, up: Tensor, inside: Tensor, want_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape) if want_x else x.new_empty(0), down.new_empty(down.shape), up.new_empty(up.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _, down, up = inputs
    ctx.save_for_backward(x, weight, down, up, output[1])


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor]:
    want_x = ctx.needs_input_grad[0]
    grad_x, grad_down, grad_up = _product_backward(grad.contiguous(), *ctx.saved_tensors, want_x)
    return grad_x if want_x else None, None, None, grad_down, grad_up


_product.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula(torch.ops.megasynth.lora)
def _flop(x: torch.Size, weight: torch.Size, bias: object, down: torch.Size, up: torch.Size, **_: object) -> int:
    return 2 * x[0] * (weight[0] * weight[1] + down[0] * (weight[0] + weight[1]))


@register_flop_formula(torch.ops.megasynth.lora_backward)
def _backward_flop(grad: torch.Size, x: torch.Size, weight: torch.Size, down: torch.Size, *rest: Any, **_: Any) -> int:
    into_x = weight[0] * weight[1] + down[0] * weight[1] if rest[-1] else 0
    return 2 * x[0] * (into_x + down[0] * (2 * weight[0] + weight[1]))
