"""Plain LoRA as every PEFT from 0.13 on reads it, and the released code's patched LoRA made plain.

That code's layers, y = W x + s · B M A x, are stored as ``lora_A.0`` (A: D × n), ``lora_B.0`` (M: D × D) and
``lora_B.1`` (B: m × D), with s = alpha / r whatever D is. As plain LoRA they are lora_A = A and lora_B = s · B M.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.utils import CONFIG_NAME
from torch import Tensor

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, write_durably
from megasynth_train.adapters.targets import exact_pattern
from megasynth_train.subspace.peft_folder import check_formula
from megasynth_train.subspace.peft_updates import pattern_value

PREFIX = "base_model.model."  # before a module's name in PEFT's files
# what readers of the file expect to find, whatever the value
_ALWAYS = ("base_model_name_or_path", "lora_alpha", "peft_type", "r", "target_modules", "task_type")
_PLAIN_A, _PLAIN_B = ".lora_A.weight", ".lora_B.weight"
_A, _M, _B = ".lora_A.0.weight", ".lora_B.0.weight", ".lora_B.1.weight"


def plain_config(config: LoraConfig, tensors: Mapping[str, Tensor], folded: Collection[str] = ()) -> LoraConfig:
    """Return the configuration of stored plain LoRA ``tensors``: scales as in ``config``, 1 in ``folded`` modules.

    Ranks and alphas name modules one by one: PEFT 0.13 finds no pattern for a name from its beginning.
    """
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for key, tensor in tensors.items():
        if not key.endswith(_PLAIN_A):
            continue
        module, rank = key.removeprefix(PREFIX).removesuffix(_PLAIN_A), len(tensor)
        alpha = pattern_value(config.alpha_pattern, module, config.lora_alpha)
        if module in folded:
            alpha = math.sqrt(rank) if config.use_rslora else rank
        if rank != config.r:
            ranks[module] = rank
        if alpha != config.lora_alpha:
            alphas[module] = alpha
    values = {field.name: getattr(config, field.name) for field in fields(LoraConfig) if field.init}
    own: dict[str, Any] = {
        "peft_type": None,
        "auto_mapping": None,
        "inference_mode": True,
        "init_lora_weights": True,
        "task_type": None,  # with it PEFT would wrap the forward pass
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
    }
    if config.exclude_modules:  # which PEFT 0.13 does not know
        adapted = [key.removeprefix(PREFIX).removesuffix(_PLAIN_A) for key in tensors if key.endswith(_PLAIN_A)]
        own |= {"exclude_modules": None, "target_modules": exact_pattern(adapted)}
    return LoraConfig(**values | own)


def check_factors(config: LoraConfig, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raise DatasetError, naming ``folder``, unless every lora_A has its lora_B, of the rank in the configuration.

    PEFT scales by the configuration's rank, so that factors of another rank would get another scale.
    """
    for module in sorted({key.removesuffix(end) for key in tensors for end in (_PLAIN_A, _PLAIN_B) if end in key}):
        a, b = tensors.get(module + _PLAIN_A), tensors.get(module + _PLAIN_B)
        name = module.removeprefix(PREFIX)
        rank = pattern_value(config.rank_pattern, name, config.r)
        if a is None or b is None:
            raise DatasetError(f"{folder}: {name} lacks {'lora_A' if a is None else 'lora_B'}; {_AGAIN}")
        if min(a.ndim, b.ndim) < 2 or not len(a) == b.shape[1] == rank:
            shapes = f"lora_A {tuple(a.shape)}, lora_B {tuple(b.shape)}"
            raise DatasetError(f"{folder}: {name} is not of the rank {rank} in {CONFIG_NAME} ({shapes}); {_AGAIN}")


def unpatched(config: LoraConfig, tensors: Mapping[str, Tensor], folder: Path) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Return configuration and tensors of an adapter with every patched layer as plain LoRA with the same dW.

    Without such layers both are returned as they are. DatasetError, naming ``folder``, if a layer lacks a tensor or its
    shapes do not fit together; ConfigError if other layers start in a way that changes the base weight.
    """
    modules = {key.removesuffix(end) for key in tensors for end in (_A, _M, _B) if key.endswith(end)}
    if not modules:
        return config, dict(tensors)
    check_formula(config.to_dict(), folder, "lora")
    found, folded = dict(tensors), set()
    for module in sorted(modules):
        name = module.removeprefix(PREFIX)
        a, m, b = (found.pop(module + end, None) for end in (_A, _M, _B))
        if a is None or m is None or b is None:
            raise DatasetError(f"{folder}: {name} lacks one of lora_A.0, lora_B.0 and lora_B.1; {_AGAIN}")
        if {a.ndim, m.ndim, b.ndim} != {2} or not len(a) == m.shape[0] == m.shape[1] == b.shape[1]:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (a, m, b))
            raise DatasetError(
                f"{folder}: lora_A.0, lora_B.0, lora_B.1 of {name} do not fit together ({shapes}); {_AGAIN}"
            )
        found[f"{module}.lora_A.weight"] = a
        scaled = b.double() @ m.double() * (config.lora_alpha / config.r)
        found[f"{module}.lora_B.weight"] = scaled.float()
        folded.add(name)
    return plain_config(config, found, folded), found


def write_config(config: LoraConfig, folder: Path) -> None:
    """Write adapter_config.json without the keys at their default: older versions of PEFT do not know all of them."""
    usual, mine = LoraConfig().to_dict(), config.to_dict()
    kept: dict[str, Any] = {
        key: value.value if isinstance(value, Enum) else sorted(value) if isinstance(value, set) else value
        for key, value in mine.items()
        if key in _ALWAYS or (value != usual[key] and key != "peft_version")
    }
    write_durably(folder / CONFIG_NAME, json_bytes(kept))


_AGAIN = "copy the adapter's folder again"
