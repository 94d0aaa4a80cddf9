"""An adapter in a basis as an ordinary LoRA that PEFT alone loads: lora_B = s · A M (m × D), lora_A = Bᵀ (D × n)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftType
from torch import Tensor

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.run_folder import check_new
from megasynth_attr.core.temporary import replacing_folder
from megasynth_train.adapters.plain import PREFIX, check_factors, plain_config, unpatched, write_config
from megasynth_train.adapters.stock import BASE_HASH, is_stock, read_stock
from megasynth_train.adapters.storage import PEFT_METADATA, WEIGHTS, read_record, stored_config
from megasynth_train.adapters.subspace.config import PEFT_TYPE, SubspaceConfig
from megasynth_train.adapters.subspace.layer import blocks, columns_and_start
from megasynth_train.adapters.subspace.opening import open_basis
from megasynth_train.subspace.basis import Basis
from megasynth_train.subspace.peft_folder import check_formula
from megasynth_train.vggt.weight_files import write_tensors

SUFFIX = ".lora_M"  # after a module's name in PEFT's files


def export_folder(adapter: Path, folder: Path, basis: str = "") -> None:
    """Write the saved ``adapter`` as ``folder`` for ``PeftModel.from_pretrained``, without needing this package.

    ``adapter`` is a folder of this package or of PEFT alone. ``basis`` is the file of its basis, if that was moved; the
    base model is not needed. Raises ConfigError if the adapter is neither LoRA nor in a basis, or not in this one, or
    if ``folder`` holds something; DatasetError if the adapter is damaged;
    EnvironmentProblem if ``folder`` cannot be written. It is written whole or not at all.
    """
    mode = "" if is_stock(adapter) else read_record(adapter)["mode"]
    config = None if mode == "full" else stored_config(adapter, ours=False)
    if not isinstance(config, LoraConfig) or config.peft_type not in (PeftType.LORA, PEFT_TYPE):
        raise ConfigError(
            f"{adapter} is neither in a basis nor LoRA (plain, rsLoRA, DoRA, or the released code's patched one), "
            "so it cannot be exported as LoRA; load it with the PEFT that wrote it"
        )
    check_formula(config.to_dict(), adapter, "lora")
    check_new(folder)
    tensors, metadata = read_stock(adapter)
    check_factors(config, tensors, adapter)
    if isinstance(config, SubspaceConfig):
        opened = open_basis(basis or config.basis, config.attributes or (), config.basis_sha256)
        stock, found = stock_lora(config, tensors, opened)
        base = opened.base.get("weights_sha256", "")
    else:
        if basis:
            raise ConfigError(f"basis={basis}: {adapter} is plain LoRA, which has no basis")
        config, found = unpatched(config, tensors, adapter)
        stock = plain_config(config, found)
        base = metadata.get(BASE_HASH, "")
    if mode:  # ours: the base it was trained from, which may be that of its basis in 16 bits
        base = read_record(adapter)["base"]["weights_sha256"]
    if not any(key.endswith(".lora_A.weight") for key in found):
        raise DatasetError(f"{adapter} holds no layer's lora_A and lora_B; copy the adapter's folder again")
    with replacing_folder(folder, "the exported adapter") as new:
        write_config(stock, new)
        write_tensors(new / WEIGHTS, found, PEFT_METADATA | {BASE_HASH: str(base)})


def stock_lora(
    config: SubspaceConfig, tensors: Mapping[str, Tensor], basis: Basis
) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Return configuration and tensors of the plain LoRA with the same dW in every layer; other tensors are kept.

    A layer's rank is its D and its scale 1, since s is part of lora_B.
    """
    found: dict[str, Tensor] = {}
    folded: set[str] = set()
    for key, tensor in tensors.items():
        if not key.endswith(SUFFIX):
            found[key] = tensor
            continue
        module = key.removeprefix(PREFIX).removesuffix(SUFFIX)
        left, right, _ = columns_and_start(basis.layers[module], config)
        m = tensor.cpu().double().numpy()
        if config.mask == "block_diagonal":
            m = m * blocks(basis, module)
        folded.add(module)
        found[f"{PREFIX}{module}.lora_B.weight"] = _float32(config.scale * (left.astype(np.float64) @ m))
        found[f"{PREFIX}{module}.lora_A.weight"] = _float32(right.T)
    return plain_config(config, found, folded), found


def _float32(array: np.ndarray) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32)
