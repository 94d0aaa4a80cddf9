"""An adapter in a basis as an ordinary LoRA that PEFT alone loads: lora_B = s · A M (m × D), lora_A = Bᵀ (D × n)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from peft import LoraConfig, PeftConfig, PeftModel
from torch import Tensor

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.run_folder import check_new
from megasynth_attr.core.temporary import replacing_folder
from megasynth_train.adapters.adapted import Adapted
from megasynth_train.adapters.methods import MAIN
from megasynth_train.adapters.stock import is_stock
from megasynth_train.adapters.storage import PEFT_METADATA, WEIGHTS, adapter_tensors, read_record
from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.adapters.subspace.layer import blocks, columns_and_start
from megasynth_train.adapters.subspace.opening import open_basis
from megasynth_train.adapters.targets import exact_pattern
from megasynth_train.subspace.basis import Basis
from megasynth_train.vggt.weight_files import read_weights, write_tensors

PREFIX, SUFFIX = "base_model.model.", ".lora_M"  # around a module's name in PEFT's files


def export_lora(source: Adapted | PeftModel, folder: str | Path, adapter: str = MAIN, basis: str = "") -> None:
    """Write one adapter of a model as ``folder`` for ``PeftModel.from_pretrained``, without needing this package.

    ``basis`` says where its basis lies if it was moved. Raises ConfigError if the adapter has none, if that is another
    basis, or if ``folder`` holds something; EnvironmentProblem if it cannot be written. ``folder`` is written whole or
    not at all.
    """
    views = source.wrapped if isinstance(source, Adapted) else {adapter: source}
    config = views[adapter].peft_config[adapter] if adapter in views else None
    if not isinstance(config, SubspaceConfig):
        raise ConfigError(f"adapter {adapter} is not in a basis; PEFT saves it as what it is")
    _write(config, adapter_tensors(views[adapter], adapter), Path(folder), basis)


def export_folder(adapter: Path, folder: Path, basis: str = "") -> None:
    """Do the same with a saved adapter; the base model is not needed. DatasetError if it is damaged."""
    if is_stock(adapter):
        raise ConfigError(f"{adapter} was saved by PEFT alone: it is in no basis, and PEFT can load it as it is")
    if read_record(adapter)["mode"] != "subspace":
        raise ConfigError(f"{adapter} is not of mode=subspace; what PEFT can load of it, it loads as it is")
    config = PeftConfig.from_pretrained(str(adapter))
    _write(cast(SubspaceConfig, config), read_weights(adapter / WEIGHTS).tensors, folder, basis)


def stock_lora(
    config: SubspaceConfig, tensors: Mapping[str, Tensor], basis: Basis
) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Return configuration and tensors of the plain LoRA with the same dW in every layer; other tensors are kept.

    A layer's rank is its D and its scale 1, since s is part of lora_B.
    """
    found: dict[str, Tensor] = {}
    of_rank: dict[int, list[str]] = {}
    for key, tensor in tensors.items():
        if not key.endswith(SUFFIX):
            found[key] = tensor
            continue
        module = key.removeprefix(PREFIX).removesuffix(SUFFIX)
        left, right, _ = columns_and_start(basis.layers[module], config)
        m = tensor.cpu().double().numpy()
        if config.mask == "block_diagonal":
            m = m * blocks(basis, module)
        of_rank.setdefault(len(m), []).append(module)
        found[f"{PREFIX}{module}.lora_B.weight"] = _float32(config.scale * (left.astype(np.float64) @ m))
        found[f"{PREFIX}{module}.lora_A.weight"] = _float32(right.T)
    ranks = {exact_pattern(modules): rank for rank, modules in of_rank.items()}
    alphas = {pattern: math.sqrt(rank) if config.use_rslora else rank for pattern, rank in ranks.items()}
    stock = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        target_modules=config.target_modules,
        use_rslora=config.use_rslora,
        rank_pattern=ranks | (config.rank_pattern or {}),
        alpha_pattern=alphas | (config.alpha_pattern or {}),
        inference_mode=True,
    )
    return stock, found


def _write(config: SubspaceConfig, tensors: Mapping[str, Tensor], folder: Path, moved: str) -> None:
    check_new(folder)
    basis = open_basis(moved or config.basis, config.attributes or (), config.basis_sha256)
    stock, found = stock_lora(config, tensors, basis)
    metadata = PEFT_METADATA | {"base_weights_sha256": str(basis.base.get("weights_sha256", ""))}
    with replacing_folder(folder, "the exported adapter") as new:
        stock.save_pretrained(str(new))
        write_tensors(new / WEIGHTS, found, metadata)


def _float32(array: np.ndarray) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32)
