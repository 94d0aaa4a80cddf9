"""A VGGT of a few ten thousand weights, images for it, and a training step that depends on all its outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from megasynth_train.adapters import Adapted, adapt
from megasynth_train.settings import AdapterSettings
from megasynth_train.vggt.config import SIZES, VGGTConfig
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import VGGT, Prediction

ADAPTER_MODES = ("lora", "rslora", "dora", "pissa", "adalora", "lora_xs", "heads")
MODES = ("full", *ADAPTER_MODES)
BASE_SEED = 3


def small_config(**changes: Any) -> VGGTConfig:
    """Return the smallest model with every kind of layer."""
    small = replace(
        SIZES["vggt-tiny"],
        width=24,
        image_size_px=28,
        encoder_depth=1,
        encoder_heads=2,
        heads=2,
        camera_depth=1,
        camera_heads=2,
        camera_iterations=2,
        dpt_channels=(8, 8, 8, 8),
        dpt_features=8,
        dpt_hidden=4,
        point_head=False,
        token_std=0.5,
    )
    return replace(small, **changes)


def small_model(seed: int = BASE_SEED, **changes: Any) -> VGGT:
    return random_model(small_config(**changes), seed)


def adapted_model(mode: str, total_steps: int = 10, **settings: Any) -> Adapted:
    """Return a fresh small model adapted with rank 4 (unless said otherwise)."""
    chosen = AdapterSettings(
        **{"mode": mode, "rank": 4, "head_rank": 0 if mode == "heads" else 3, "seed": 5} | settings
    )
    return adapt(small_model(), chosen, total_steps=total_steps)


def images() -> Tensor:
    """Return one scene of two frames of 28×42 px."""
    return torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(1))


def objective(prediction: Prediction) -> Tensor:
    """Return a scalar that every trained part of the model moves."""
    assert prediction.depth is not None and prediction.depth_confidence is not None
    poses = torch.stack(prediction.pose_encodings)
    return (poses - 0.3).square().mean() + (prediction.depth - 2.0).square().mean() + prediction.depth_confidence.mean()


def optimiser(adapted: Adapted, rate: float = 1e-2) -> torch.optim.AdamW:
    return torch.optim.AdamW(adapted.trainable.values(), lr=rate)


def train(adapted: Adapted, steps: int, *, first: int = 0, using: torch.optim.Optimizer | None = None) -> list[float]:
    """Make ``steps`` steps as the loop makes them; return the objective before each."""
    optim = using or optimiser(adapted)
    values = []
    for step in range(first, first + steps):
        optim.zero_grad(set_to_none=True)
        value = objective(adapted.model(images()))
        values.append(value.item())
        penalty = adapted.penalty()
        (value if penalty is None else value + penalty).backward()
        optim.step()
        adapted.after_step(step)
    return values


@torch.no_grad()
def outputs(model: VGGT) -> dict[str, Tensor]:
    """Return what the model predicts, by name."""
    prediction = model(images())
    assert prediction.depth is not None and prediction.depth_confidence is not None
    return {
        "poses": torch.stack(prediction.pose_encodings),
        "depth": prediction.depth.contiguous(),
        "confidence": prediction.depth_confidence.contiguous(),
    }
