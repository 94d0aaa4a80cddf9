"""Clusters on disk as PEFT writes them, with known content: small layers, planted subspaces, no training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from megasynth_train.subspace.core import Update

BLOCK = {"attn.qkv": (36, 12), "attn.proj": (12, 12), "mlp.fc1": (48, 12), "mlp.fc2": (12, 48)}  # m, n
ATTRIBUTES = ("geometry", "texture")
RANK = 2


def layers(depth: int = 1) -> dict[str, tuple[int, int]]:
    """Return the module names and shapes of a tiny aggregator."""
    return {
        f"aggregator.{attention}_blocks.{number}.{kind}": shape
        for attention in ("frame", "global")
        for number in range(depth)
        for kind, shape in BLOCK.items()
    }


def random_adapter(rng: np.random.Generator, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Update]:
    """Return Gaussian factors for every layer."""
    return {
        module: Update(rng.standard_normal((m, RANK)), rng.standard_normal((n, RANK)))
        for module, (m, n) in shapes.items()
    }


def shared_adapters(
    rng: np.random.Generator, shapes: Mapping[str, tuple[int, int]], count: int
) -> list[dict[str, Update]]:
    """Return adapters whose updates are free combinations within one random pair of RANK-dimensional subspaces."""
    frames = random_adapter(rng, shapes)
    return [
        {
            module: Update(frame.left @ rng.standard_normal((RANK, RANK)), frame.right)
            for module, frame in frames.items()
        }
        for _ in range(count)
    ]


def write_adapter(folder: Path, updates: Mapping[str, Update], base: str = "a model") -> Path:
    """Write a LoRA adapter with alpha = rank, so that dW = B A = left rightᵀ."""
    folder.mkdir(parents=True)
    rank = next(iter(updates.values())).left.shape[1]
    config = {
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "base_model_name_or_path": base,
        "init_lora_weights": True, "use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {},
        "target_modules": sorted(updates),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for module, update in updates.items():
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(update.left, np.float32)
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(update.right.T, np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def write_cluster(
    folder: Path, count: int = 4, attributes: Sequence[str] = ATTRIBUTES, depth: int = 1, seed: int = 0
) -> Path:
    """Write ``count`` adapters of every attribute, which share their subspaces, and return ``folder``."""
    rng = np.random.default_rng(seed)
    for attribute in attributes:
        for number, updates in enumerate(shared_adapters(rng, layers(depth), count)):
            write_adapter(folder / f"{attribute}_{number:02d}", updates)
    return folder
