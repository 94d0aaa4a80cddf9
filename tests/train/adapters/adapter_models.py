"""A VGGT of a few ten thousand weights, images for it, and a training step that depends on all its outputs."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from megasynth_train.adapters import Adapted, adapt
from megasynth_train.adapters.targets import find_targets
from megasynth_train.subspace.basis import Basis, LayerBasis, haar_frame
from megasynth_train.subspace.basis_file import write_basis
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.checkpoint import weights_hash
from megasynth_train.vggt.config import SIZES, VGGTConfig
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import VGGT, Prediction

ADAPTER_MODES = ("lora", "rslora", "dora", "pissa", "adalora", "lora_xs", "subspace", "heads")
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
    """Return a fresh small model adapted with rank 4 (unless said otherwise), or in the basis of ``basis_file``."""
    defaults: dict[str, Any] = {"mode": mode, "rank": 4, "head_rank": 0 if mode == "heads" else 3, "seed": 5}
    if mode == "subspace":
        defaults["basis"] = str(basis_file())
    chosen = AdapterSettings(**defaults | settings)
    return adapt(small_model(), chosen, total_steps=total_steps)


def basis_for(
    model: nn.Module, widths: Mapping[str, int], modules: tuple[str, ...] = (), seed: int = 0, base: str = ""
) -> Basis:
    """Return an orthonormal basis with so many columns per attribute in these layers (of a VGGT: the aggregator's)."""
    rng, layers, columns, size = np.random.default_rng(seed), {}, {}, sum(widths.values())
    ends = np.cumsum(list(widths.values())).tolist()
    spans = {name: (end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}
    for module in modules or find_targets(model).aggregator:
        outputs, inputs = model.get_submodule(module).weight.shape
        left, right = (haar_frame(side, size, rng).astype(np.float32) for side in (outputs, inputs))
        mean = np.zeros((size, size), np.float32)
        for start, end in spans.values():
            mean[start:end, start:end] = rng.normal(size=(end - start,) * 2)
        layers[module] = LayerBasis(left, right, rng.uniform(0.5, 2.0, size).astype(np.float32), mean)
        columns[module] = spans
    return Basis(layers, columns, tuple(widths), {"weights_sha256": base}, {"orthonormal": True})


@functools.cache
def basis_file() -> Path:
    """Return a basis for the small model on disk: texture has 3 columns in every layer, pose 2."""
    folder = Path(tempfile.mkdtemp(prefix="basis-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model = small_model()
    write_basis(folder / "all.safetensors", basis_for(model, {"texture": 3, "pose": 2}, base=weights_hash(model)))
    return folder / "all.safetensors"


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
