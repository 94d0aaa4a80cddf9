"""An adapter in a basis as an ordinary LoRA that PEFT alone loads: lora_B = s · A M (m × D), lora_A = Bᵀ (D × n)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig
from torch import Tensor

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.run_folder import check_new
from megasynth_attr.core.temporary import replacing_folder
from megasynth_train.adapters.stock import is_stock
from megasynth_train.adapters.storage import PEFT_METADATA, WEIGHTS, read_record, stored_config
from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.adapters.subspace.layer import blocks, columns_and_start
from megasynth_train.adapters.subspace.opening import open_basis
from megasynth_train.adapters.targets import exact_pattern
from megasynth_train.subspace.basis import Basis
from megasynth_train.vggt.weight_files import read_weights, write_tensors

PREFIX, SUFFIX = "base_model.model.", ".lora_M"  # around a module's name in PEFT's files


def export_folder(adapter: Path, folder: Path, basis: str = "") -> None:
    """Write the saved ``adapter`` as ``folder`` for ``PeftModel.from_pretrained``, without needing this package.

    ``basis`` is the file of its basis, if that was moved; the base model is not needed. Raises ConfigError if the
    adapter has no basis or not this one, or if ``folder`` holds something; DatasetError if the adapter is damaged;
    EnvironmentProblem if ``folder`` cannot be written. It is written whole or not at all.
    """
    mode = "" if is_stock(adapter) else read_record(adapter)["mode"]
    config = None if mode == "full" else stored_config(adapter, ours=False)
    if not isinstance(config, SubspaceConfig):
        raise ConfigError(
            f"{adapter} is not of mode=subspace, so it has no basis to export; PEFT loads other adapters as they are"
        )
    check_new(folder)
    opened = open_basis(basis or config.basis, config.attributes or (), config.basis_sha256)
    stock, found = stock_lora(config, read_weights(adapter / WEIGHTS).tensors, opened)
    metadata = PEFT_METADATA | {"base_weights_sha256": str(opened.base.get("weights_sha256", ""))}
    with replacing_folder(folder, "the exported adapter") as new:
        stock.save_pretrained(str(new))
        write_tensors(new / WEIGHTS, found, metadata)


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


def _float32(array: np.ndarray) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32)
