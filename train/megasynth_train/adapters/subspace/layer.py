"""A linear layer with adapters in a basis: y = W x + b + s · A M Bᵀ x, where only M is trained."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from peft import LoraConfig
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.lora.layer import Linear, LoraLayer, LoraVariant
from torch import Tensor, nn

from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.subspace.basis import Basis, LayerBasis


class Fixed(nn.Module):
    """A frozen matrix that moves with the model and is not stored with it."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)


class SubspaceVariant(LoraVariant):
    """What PEFT's layer, always a SubspaceLinear, calls for an adapter that is not plain LoRA."""

    @staticmethod
    def init(module: LoraLayer, adapter_name: str, **kwargs: Any) -> None:
        """Do nothing: ``SubspaceLinear.update_layer`` makes everything."""

    @staticmethod
    def forward(module: LoraLayer, active_adapter: str, x: Tensor, result: Tensor, **kwargs: Any) -> Tensor:
        """Return ``result`` + s · A M Bᵀ x; x is (..., n), the result (..., m)."""
        layer = cast(SubspaceLinear, module)
        inside = F.linear(layer.lora_dropout[active_adapter](x), layer.right_t(active_adapter))
        inside = F.linear(inside, layer.scaled_m(active_adapter))
        return result + F.linear(inside, layer.left(active_adapter))

    @staticmethod
    def merge_safe(module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> Tensor:
        """Return W + dW."""
        return orig_weight + cast(SubspaceLinear, module).get_delta_weight(active_adapter).to(orig_weight.dtype)

    @staticmethod
    def merge_unsafe(module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> None:
        """Add dW to W in place."""
        orig_weight.data += cast(SubspaceLinear, module).get_delta_weight(active_adapter).to(orig_weight.dtype)

    @staticmethod
    def unmerge(module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> Tensor:
        """Return W − dW."""
        return orig_weight.data - cast(SubspaceLinear, module).get_delta_weight(active_adapter).to(orig_weight.dtype)


class SubspaceLinear(Linear):
    """PEFT's LoRA layer, whose adapters may lie in a basis: they do if the configuration's basis has this layer.

    For such an adapter ``lora_A`` holds Bᵀ (D × n), ``lora_B`` holds A (m × D), both frozen and never stored, and
    ``lora_M`` the trained M (D × D). Other adapters of the same layer are plain LoRA.
    """

    adapter_layer_names = (*LoraLayer.adapter_layer_names, "lora_M")
    other_param_names = (*LoraLayer.other_param_names, "lora_mask", "free_numbers")

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: LoraConfig,
        r: int = 0,
        lora_alpha: int = 1,
        **kwargs: Any,
    ) -> None:
        nn.Module.__init__(self)  # not Linear's, which calls update_layer before lora_M exists
        LoraLayer.__init__(self, base_layer, **kwargs)
        self.fan_in_fan_out = self.is_target_conv_1d_layer = False
        self.lora_M = nn.ParameterDict()
        self.lora_mask = BufferDict(persistent=False)
        self.free_numbers: dict[str, int] = {}  # how many entries of M are trained
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config, **kwargs)

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: LoraConfig, **kwargs: Any) -> None:
        """Add an adapter: in the basis if it has this layer, else plain LoRA."""
        basis, module = getattr(config, "opened", None), kwargs["target_name"]
        if not isinstance(config, SubspaceConfig) or basis is None or module not in basis.layers:
            super().update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config, **kwargs)
            return
        size, weight = basis.dimension(module), self.base_weight
        self.r[adapter_name], self.lora_alpha[adapter_name] = size, config.scale * size
        self.scaling[adapter_name] = config.scale
        self.use_rslora[adapter_name] = self.use_dora[adapter_name] = self.lora_bias[adapter_name] = False
        self.lora_variant[adapter_name] = SubspaceVariant()
        self.lora_dropout[adapter_name] = nn.Dropout(config.lora_dropout) if config.lora_dropout else nn.Identity()
        left, right, start = _made(basis.layers[module], config, weight)
        self.lora_A[adapter_name], self.lora_B[adapter_name] = Fixed(right), Fixed(left)
        self.free_numbers[adapter_name] = size * size
        if config.mask == "block_diagonal":
            inside = blocks(basis, module)
            self.lora_mask[adapter_name] = mask = torch.tensor(inside, device=weight.device)
            self.free_numbers[adapter_name], start = int(inside.sum()), start * mask
        self.lora_M[adapter_name] = nn.Parameter(start)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @property
    def base_weight(self) -> Tensor:
        """Return W (m × n)."""
        return cast(Tensor, self.get_base_layer().weight)

    def left(self, adapter: str) -> Tensor:
        """Return A (m × D)."""
        return cast(Fixed, self.lora_B[adapter]).weight

    def right_t(self, adapter: str) -> Tensor:
        """Return Bᵀ (D × n)."""
        return cast(Fixed, self.lora_A[adapter]).weight

    def scaled_m(self, adapter: str) -> Tensor:
        """Return s · M, zero between attributes if the mask is block-diagonal, so that no gradient gets there."""
        m: Tensor = self.lora_M[adapter]
        return (m * self.lora_mask[adapter] if adapter in self.lora_mask else m) * self.scaling[adapter]

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return dW (m × n)."""
        if adapter not in self.lora_M:
            delta: Tensor = super().get_delta_weight(adapter)
            return delta
        m = self.scaled_m(adapter)
        return self.left(adapter).to(m.dtype) @ m @ self.right_t(adapter).to(m.dtype)

    def store_basis_in_bf16(self) -> None:
        """Round A and B to bfloat16 for good, as bf16 autocast would on every use."""
        for adapter in self.lora_M:
            for side in (self.lora_A, self.lora_B):
                side[adapter].to(torch.bfloat16)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move an adapter and keep its dtype: PEFT's own method would round the basis to the base weight's."""
        if adapter_name not in self.lora_M:
            super()._move_adapter_to_device_of_base_layer(adapter_name, device)
            return
        device = device if device is not None else self.base_weight.device
        for kept in (self.lora_A, self.lora_B, self.lora_M, self.lora_mask):
            if adapter_name in kept:
                kept[adapter_name] = kept[adapter_name].to(device)


def free_numbers(model: nn.Module) -> dict[str, int]:
    """Return how many entries of each M are trained, by parameter name; a mask holds the others at 0."""
    return {
        f"{name}.lora_M.{adapter}": count
        for name, layer in model.named_modules()
        if isinstance(layer, SubspaceLinear)
        for adapter, count in layer.free_numbers.items()
    }


def _made(layer: LayerBasis, config: SubspaceConfig, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return A (m × D), Bᵀ (D × n) and the start of M (D × D), float32 where ``weight`` is."""
    if weight.is_meta:  # counting parameters needs no values
        size = layer.dimension
        shapes = ((len(weight), size), (size, weight.shape[1]), (size, size))
        a, b, m = (torch.empty(shape, device="meta", dtype=torch.float32) for shape in shapes)
        return a, b, m
    left, right, start = columns_and_start(layer, config)
    a, b, m = (
        torch.tensor(np.ascontiguousarray(array), dtype=torch.float32, device=weight.device)
        for array in (left, right.T, start)
    )
    return a, b, m


def columns_and_start(layer: LayerBasis, config: SubspaceConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A, B and M₀: with sqrt_sigma the columns times √σ; with mean, s · A M₀ Bᵀ is the cluster's mean."""
    roots = np.sqrt(layer.scales) if config.basis_norm == "sqrt_sigma" else np.ones_like(layer.scales)
    start = np.zeros((layer.dimension,) * 2, np.float32)
    if config.m_init == "mean" and layer.mean is not None:  # None is refused by opening.check_options
        start = layer.mean / (config.scale * np.outer(roots, roots))
    return layer.left * roots, layer.right * roots, start


def blocks(basis: Basis, module: str) -> np.ndarray:
    """Return D × D, true inside the blocks of the attributes."""
    mask = np.zeros((basis.dimension(module),) * 2, bool)
    for start, end in basis.columns[module].values():
        mask[start:end, start:end] = True
    return mask
