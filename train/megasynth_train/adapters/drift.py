"""How far adapters moved from where they started, layer by layer.

Adapters that start from the same ``lora_A`` and drift little share a row space whatever they learn, so adapters can
only be compared with these numbers in view.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import subspace_angles
from torch import Tensor

from megasynth_train.training.metrics import null_if_not_finite

FILE = "drift.json"
FORMAT = "megasynth-attr drift 1"


@dataclass(frozen=True)
class LayerDrift:
    """One ``lora_A`` (r × inputs; convolutions flattened to that) against its start A₀."""

    module: str
    adapter: str
    relative_change: float  # ‖A − A₀‖_F / ‖A₀‖_F; NaN if a weight is not finite, like the angles
    angles_deg: tuple[float, ...]  # principal angles between the row spaces of A and A₀, largest first


def drift(parameters: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> tuple[LayerDrift, ...]:
    """Return the drift of every ``lora_A`` in ``parameters`` from its value in ``initial``, in their order."""
    return tuple(
        layer_drift(name, now.detach().float().cpu().numpy(), initial[name].numpy())
        for name, now in parameters.items()
        if ".lora_A." in name
    )


def layer_drift(name: str, now: np.ndarray, start: np.ndarray) -> LayerDrift:
    """Return the drift of one parameter, named ``<module>.lora_A.<adapter>`` with or without ``.weight``."""
    module, _, rest = name.partition(".lora_A.")
    now, start = (array.reshape(len(array), -1).astype(np.float64) for array in (now, start))
    if not np.isfinite(now).all():
        return LayerDrift(module, rest.removesuffix(".weight"), math.nan, (math.nan,) * len(now))
    change = float(np.linalg.norm(now - start) / np.linalg.norm(start))
    angles = np.degrees(subspace_angles(now.T, start.T))
    return LayerDrift(module, rest.removesuffix(".weight"), change, tuple(float(angle) for angle in angles))


def record(layers: Iterable[LayerDrift]) -> dict[str, Any]:
    """Return drift.json: per layer, and the median and largest over the layers of each adapter; null if not finite."""
    layers = tuple(layers)
    summary = {}
    for adapter in dict.fromkeys(layer.adapter for layer in layers):
        changes = [layer.relative_change for layer in layers if layer.adapter == adapter]
        largest = [layer.angles_deg[0] for layer in layers if layer.adapter == adapter]
        summary[adapter] = {
            "layers": len(changes),
            "median_relative_change": null_if_not_finite(float(np.median(changes))),
            "max_relative_change": null_if_not_finite(float(np.max(changes))),
            "median_largest_angle_deg": null_if_not_finite(float(np.median(largest))),
            "max_largest_angle_deg": null_if_not_finite(float(np.max(largest))),
        }
    return {
        "format": FORMAT,
        "summary": summary,
        "layers": [
            {
                "module": layer.module,
                "adapter": layer.adapter,
                "relative_change": null_if_not_finite(layer.relative_change),
                "angles_deg": [null_if_not_finite(angle) for angle in layer.angles_deg],
            }
            for layer in layers
        ],
    }
