"""The singular vectors that PiSSA and LoRA-XS start from, kept in a file: a run that goes on decomposes nothing.

The file is bound to the base weights and the adapter's settings, and holds its own checksum.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PsoftConfig
from torch import Tensor, nn

from megasynth_attr.core.codec import content_hash, to_plain
from megasynth_attr.core.errors import DatasetError
from megasynth_train.adapters import frozen_vectors as frozen
from megasynth_train.adapters.methods import MAIN
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.checkpoint import tensors_hash
from megasynth_train.vggt.weight_files import read_weights, write_tensor_file

START = "start.safetensors"  # in the folder of a run


def read_start(path: Path, base_sha256: str, settings: AdapterSettings) -> tuple[dict[str, Tensor] | None, str]:
    """Return what ``write_start`` wrote for this base and these settings; or None, and why if there is a file."""
    if not path.exists():
        return None, ""
    try:
        stored = read_weights(path)
    except DatasetError as error:
        return None, f"{path} is damaged and made again: {error}"
    tensors, record = dict(stored.tensors), dict(stored.metadata)
    if record.get("sha256") != tensors_hash(tensors):
        return None, f"{path} is damaged and made again: its checksum is wrong"
    if record.get("of") != _key(base_sha256, settings):
        return None, f"{path} belongs to other weights or settings and is made again"
    return tensors, ""


def write_start(path: Path, tensors: Mapping[str, Tensor], base_sha256: str, settings: AdapterSettings) -> None:
    """Write ``tensors``, made by ``start_of``, whole or not at all; EnvironmentProblem if that fails."""
    record = {"format": "pt", "of": _key(base_sha256, settings), "sha256": tensors_hash(tensors)}
    write_tensor_file(path, tensors, record, "the start of the run")


def start_of(model: nn.Module, initial: Mapping[str, Tensor], mode: str) -> dict[str, Tensor]:
    """Return what ``mode`` derived from the weights of ``model``, before any step; ``initial``: as in Adapted."""
    if mode == "pissa":
        return {name: tensor for name, tensor in initial.items() if f".{MAIN}." in name}
    return frozen.bases(model)


@torch.no_grad()
def restore_start(model: nn.Module, start: Mapping[str, Tensor], mode: str) -> None:
    """Give a model whose adapters were made by ``without_decomposition`` what ``start_of`` returned, bit for bit."""
    if mode == "pissa":
        for name, tensor in start.items():
            model.get_parameter(name).copy_(tensor)
        frozen.subtract_start(model, start, MAIN)
    else:
        frozen.set_bases(model, start)


def without_decomposition(config: PeftConfig) -> PeftConfig:
    """Return ``config`` with which PEFT decomposes no weight; it draws as many random numbers as with ``config``."""
    quick = copy.copy(config)
    quick.inference_mode = False
    if isinstance(quick, LoraConfig) and quick.init_lora_weights == "pissa":
        quick.init_lora_weights = False
    if isinstance(quick, PsoftConfig):
        quick.psoft_svd, quick.psoft_svd_lowrank_niter = "lowrank", 0
    return quick


def _key(base_sha256: str, settings: AdapterSettings) -> str:
    return content_hash({"base": base_sha256, "adapter": to_plain(settings)})
