"""Which kernel computes attention, and how each is called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_train.vggt.config import ATTENTION_KERNELS

_BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
_MODULES = {"fa3": "flash_attn_interface", "fa4": "flash_attn.cute.interface"}
_PACKAGES = {"fa3": "FlashAttention-3's package", "fa4": "pip install 'megasynth-attr[fast]'"}
_OLDEST = {"cudnn": 8, "flash": 8, "fa3": 9, "fa4": 9}  # smallest major compute capability
_NEWEST = {"fa3": 9, "fa4": 10}  # largest; for FA4 PyTorch draws the same line
# The dear ones, whose output and log-sum-exp blocks may keep while they compute the rest again
ATTENTION_OPERATORS = frozenset(
    (
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "flash_attn_3::fwd",
        "flash_attn_3::_flash_attn_forward",
        "megasynth::fa4_forward",
    )
)


def resolve_attention(kernel: str, device: torch.device | str, precision: str, head_dim: int) -> str:
    """Return the kernel to use for ``kernel`` in ATTENTION_KERNELS: auto takes the fastest that is installed and fits.

    ``precision`` is "fp32" or "bf16", ``head_dim`` the channels of a head. ConfigError or EnvironmentProblem if a named
    kernel cannot run there: it is never replaced in silence. Warns if auto passes over a package that is broken.
    """
    if kernel not in ATTENTION_KERNELS:
        raise ConfigError(f"model.attention {kernel!r} is unknown; use {', '.join(ATTENTION_KERNELS)}")
    device = torch.device(device)
    if kernel == "auto":
        for name in ("fa4", "fa3"):
            if (obstacle := _obstacle(name, device, precision, head_dim)) is None:
                return name
            why = obstacle.__cause__
            absent = isinstance(why, ModuleNotFoundError) and _MODULES[name].startswith(why.name or name)
            if why is not None and not absent:
                warnings.warn(f"model.attention=auto passes over {name}, whose package is broken: {why}", stacklevel=2)
        return "sdpa"
    if kernel != "sdpa" and (obstacle := _obstacle(kernel, device, precision, head_dim)) is not None:
        raise obstacle
    return kernel


def _obstacle(kernel: str, device: torch.device, precision: str, head_dim: int) -> Exception | None:
    """Return why ``kernel`` cannot run, or None."""
    name = f"model.attention={kernel}"
    if device.type != "cuda":
        return ConfigError(f"{name} needs a CUDA GPU and this run is on {device.type}; use auto or sdpa")
    if precision != "bf16":
        return ConfigError(f"{name} needs model.precision=bf16, and it is {precision}; use auto or sdpa")
    major, minor = torch.cuda.get_device_capability(device)
    oldest, newest = _OLDEST[kernel], _NEWEST.get(kernel, major)
    if not oldest <= major <= newest:
        limit = f", at most {newest}.x" if kernel in _NEWEST else ""
        return EnvironmentProblem(
            f"{name} needs compute capability {oldest}.0 or more{limit}, and {torch.cuda.get_device_name(device)} has "
            f"{major}.{minor}; use auto"
        )
    if head_dim % 8 or head_dim > 128:
        return ConfigError(f"{name} takes heads of 8, 16 … 128 channels, and this model has {head_dim}; use sdpa")
    if kernel in _MODULES:
        try:
            import_module(_MODULES[kernel])
        except Exception as error:  # compiled packages that do not fit PyTorch or the driver raise what they like
            problem = EnvironmentProblem(f"{name}: {error} (it needs {_PACKAGES[kernel]}); or use auto")
            problem.__cause__ = error
            return problem
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, kernel: str) -> Tensor:
    """Return softmax(q kᵀ / √head_dim) v, all [batch, tokens, heads, head_dim], by a resolved ``kernel``."""
    if kernel in _MODULES:
        return _KERNELS[kernel](q, k, v)
    # Strided views [batch, heads, tokens, head_dim], which PyTorch's kernels take without a copy.
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if kernel == "sdpa":
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    with sdpa_kernel(_BACKENDS[kernel]):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@cache
def _package(kernel: str) -> ModuleType:
    return import_module(_MODULES[kernel])


def _fa3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    result = _package("fa3").flash_attn_func(q, k, v)
    out: Tensor = result[0] if isinstance(result, tuple) else result
    return out


def _fa4(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = _fa4_forward(q, k, v)[0]
    return out


# The package's own autograd function breaks compiled graphs. As operators of PyTorch, with shapes for tracing and a
# gradient, its two kernels stay inside them. Inputs may be strided; outputs are contiguous.


@torch.library.custom_op("megasynth::fa4_forward", mutates_args=())
def _fa4_forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, log_sum_exp = _fa4_forward_shapes(q, k, v)
    _package("fa4")._flash_attn_fwd(q, k, v, return_lse=True, out=out, lse=log_sum_exp)
    return out, log_sum_exp


@torch.library.custom_op("megasynth::fa4_backward", mutates_args=())
def _fa4_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum_exp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = _fa4_backward_shapes(grad, q, k, v, out, log_sum_exp)
    _package("fa4")._flash_attn_bwd(q, k, v, out, grad, log_sum_exp, dq=dq, dk=dk, dv=dv)
    return dq, dk, dv


@_fa4_forward.register_fake
def _fa4_forward_shapes(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    batch, tokens, heads, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((batch, heads, tokens), dtype=torch.float32)


@_fa4_backward.register_fake
def _fa4_backward_shapes(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum_exp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _gradients(
    context: torch.autograd.function.BackwardCFunction, grad: Tensor, _: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = _fa4_backward(grad, *context.saved_tensors)
    return dq, dk, dv


_fa4_forward.register_autograd(_gradients, setup_context=_keep)


# What each costs, for flop counters and for the choice of what a compiled block computes again.


@register_flop_formula(torch.ops.megasynth.fa4_forward)
def _forward_flop(q: torch.Size, k: torch.Size, v: torch.Size, **_: object) -> int:
    flop: int = sdpa_flop_count(*(_heads_second(shape) for shape in (q, k, v)))
    return flop


@register_flop_formula(torch.ops.megasynth.fa4_backward)
def _backward_flop(grad: torch.Size, q: torch.Size, k: torch.Size, v: torch.Size, *_: object, **__: object) -> int:
    flop: int = sdpa_backward_flop_count(*(_heads_second(shape) for shape in (grad, q, k, v)))
    return flop


def _heads_second(shape: torch.Size) -> tuple[int, ...]:
    batch, tokens, heads, channels = shape
    return batch, heads, tokens, channels


_KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"fa3": _fa3, "fa4": _fa4}
