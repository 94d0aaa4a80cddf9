"""Adapters of a tiny VGGT, stored as training stores them, and clusters made of them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))
from adapter_models import adapted_model, small_model
from torch import nn

from megasynth_attr.core.files import json_bytes, sha256_of
from megasynth_train.adapters import save_adapter
from megasynth_train.subspace.peft_updates import BaseWeights
from megasynth_train.vggt.checkpoint import weights_hash

METHODS = ("lora", "rslora", "dora", "pissa", "adalora", "lora_xs")
QKV = "aggregator.frame_blocks.0.attn.qkv"


def store(folder: Path, mode: str, *, moved: float = 0.05, **settings: Any) -> Path:
    """Save an adapter of the tiny model as ``folder``, its trained parameters ``moved`` at random from their start."""
    adapted = adapted_model(mode, total_steps=4, **settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.trainable.values():
            parameter += moved * torch.randn(parameter.shape, generator=generator)
    save_adapter(adapted, folder, {})
    return folder


def write_manifest(cluster: Path, attributes: Mapping[str, str]) -> Path:
    """Write cluster.json for adapters named by the keys."""
    entries = {name: {"attribute": of, "content_sha256": f"data of {name}"} for name, of in attributes.items()}
    content = {"format": "megasynth-attr cluster 1", "identity": {}, "adapters": entries, "settings": {}}
    cluster.mkdir(parents=True, exist_ok=True)
    (cluster / "cluster.json").write_bytes(json_bytes(content))
    return cluster


def cluster_of(cluster: Path, adapters: Mapping[str, Path]) -> Path:
    """Write a cluster as ``python -m megasynth_train.cluster`` leaves it; attributes are the names without number."""
    for name, adapter in adapters.items():
        shutil.copytree(adapter, cluster / name / "adapter")
    return write_manifest(cluster, {name: name.rpartition("_")[0] for name in adapters})


def edit_record(adapter: Path, **changes: object) -> None:
    """Change adapter.json and let it list the files as they are now."""
    record = json.loads((adapter / "adapter.json").read_text())
    record["files"] = {name: sha256_of(adapter / name) for name in record["files"] if (adapter / name).exists()}
    (adapter / "adapter.json").write_bytes(json_bytes({**record, **changes}))


def edit_tensors(adapter: Path, change: object) -> None:
    """Replace the adapter's tensors by what ``change`` returns for them."""
    file = adapter / "adapter_model.safetensors"
    assert callable(change)
    save_file({name: np.ascontiguousarray(array) for name, array in change(load_file(file)).items()}, file)
    edit_record(adapter)


def edit_config(adapter: Path, **changes: object) -> None:
    """Change PEFT's configuration."""
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    if (adapter / "adapter.json").exists():
        edit_record(adapter)


@cache
def tiny_base() -> BaseWeights:
    """Return the weights of the model that all of these adapters belong to."""
    model = small_model()
    return BaseWeights(weights_hash(model), lambda module: weight_of(model, module))


def weight_of(model: nn.Module, module: str) -> np.ndarray:
    """Return a layer's own weight."""
    return np.asarray(model.get_parameter(f"{module}.weight").detach().numpy())


@torch.no_grad()
def dense_update(model: nn.Module, module: str) -> np.ndarray:
    """Return what the adapted layer computes from the unit vectors, in float64, less the base model's weight."""
    layer = model.get_submodule(module).double()
    size = tiny_base().weight(module).shape[1]
    zero, units = torch.zeros(1, size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
    return (layer(units) - layer(zero)).T.numpy() - tiny_base().weight(module).astype(np.float64)
