"""DoRA's magnitudes: the low-rank part of its update depends on the base weight, and another part has full rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.errors import ConfigError
from megasynth_train.subspace.peft_updates import StoredAdapter


@dataclass(frozen=True)
class BaseWeights:
    """The base model's weights: their hash (vggt.checkpoint.weights_hash), and the matrix (m × n) of a module."""

    sha256: str
    weight: Callable[[str], np.ndarray]


def with_row_scales(
    adapters: Sequence[StoredAdapter], modules: Sequence[str], base: BaseWeights | None
) -> tuple[tuple[StoredAdapter, ...], tuple[str, ...]]:
    """Return the adapters with DoRA's row scales c = magnitude / ‖W + s·B A‖, and a note on what is left out of each.

    DoRA's weight is diag(c) (W + s·B A), so dW = diag(c) s·B A + (diag(c) − 1) W. The note gives the norm of the second
    part relative to that of dW. ConfigError if there are DoRA adapters and ``base`` is None.
    """
    if not any(adapter.mode == "dora" for adapter in adapters):
        return tuple(adapters), ()
    if base is None:
        raise ConfigError(
            "mode=dora: the updates of DoRA adapters depend on the base weights; give the base model, e.g. "
            "checkpoint=facebook/VGGT-1B"
        )
    scales: dict[str, dict[str, np.ndarray]] = {adapter.name: {} for adapter in adapters}
    shares: dict[str, list[float]] = {adapter.name: [] for adapter in adapters}
    for module in modules:
        weight = base.weight(module).astype(np.float64)
        for adapter in adapters:
            if "lora_magnitude_vector" in adapter.keys[module]:
                scales[adapter.name][module], share = _row_scales(adapter, module, weight)
                shares[adapter.name].append(share)
    notes = tuple(
        f"{name}: DoRA's change of magnitudes has full rank and is left out; relative to the update its norm is "
        f"{np.median(of_adapter):.2g} in the median layer and {max(of_adapter):.2g} at most"
        for name, of_adapter in shares.items()
        if of_adapter
    )
    return tuple(dataclasses.replace(adapter, row_scales=scales[adapter.name]) for adapter in adapters), notes


def _row_scales(adapter: StoredAdapter, module: str, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Return c (m,) and ‖(diag(c) − 1) W‖ / ‖dW‖ of one layer."""
    parts = adapter.parts(module)
    low_rank = adapter.lora_scale(module, len(parts["lora_A"])) * parts["lora_B"] @ parts["lora_A"]
    adapted = weight + low_rank
    scale = parts["lora_magnitude_vector"].reshape(-1) / np.linalg.norm(adapted, axis=1)
    change = np.linalg.norm(scale[:, None] * adapted - weight)
    left_out = np.linalg.norm((scale - 1)[:, None] * weight)
    return scale, float(left_out / change) if change else 0.0
