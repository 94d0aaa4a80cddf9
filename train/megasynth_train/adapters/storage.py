"""Adapters on disk: PEFT's own folder, and a record of base model, settings and training data.

::

    <folder>/adapter_config.json, adapter_model.safetensors   PEFT's files: PeftModel.from_pretrained(vggt, folder)
    <folder>/heads/...                                        the same for the heads (pissa, adalora, lora_xs)
    <folder>/initial.safetensors                              pissa: the factors at the start
    <folder>/basis.safetensors                                lora_xs: the frozen singular vectors
    <folder>/model.safetensors                                mode=full: instead of all these
    (mode=subspace: adapter_model.safetensors holds every M and the heads' LoRA; the basis stays where it is)
    <folder>/drift.json                                       how far each lora_A moved (megasynth_train.adapters.drift)
    <folder>/adapter.json                                     mode, settings, seed, base, training data, checksums

AdaLoRA is stored at its initial rank with the masked singular values 0, so that nothing is rounded differently;
``ranks`` in adapter.json holds the final rank of each module.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft import AdaLoraConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict
from peft.utils import CONFIG_NAME
from torch import Tensor

from megasynth_attr import __version__
from megasynth_attr.core.codec import Part, from_plain, to_plain
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, read_json, sha256_of, write_durably
from megasynth_attr.core.names import inside
from megasynth_attr.core.temporary import replacing_folder
from megasynth_train.adapters import drift
from megasynth_train.adapters.adapted import Adapted, Base
from megasynth_train.adapters.frozen_vectors import bases
from megasynth_train.adapters.methods import MAIN
from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.vggt.checkpoint import save_model
from megasynth_train.vggt.source_names import PATCHED_OPTIONS
from megasynth_train.vggt.weight_files import write_tensors

FORMAT = "megasynth-attr adapter 1"
RECORD = "adapter.json"
WEIGHTS = "adapter_model.safetensors"
INITIAL, BASIS, MODEL = "initial.safetensors", "basis.safetensors", "model.safetensors"
PEFT_METADATA = {"format": "pt"}
PACKAGES = ("torch", "peft", "safetensors", "numpy")


@dataclass(frozen=True)
class _Record(Part):
    """What adapter.json must say for the adapter to be loaded."""

    mode: str
    settings: dict[str, Any]
    seed: int
    total_steps: int
    base: Base
    adapters: tuple[str, ...]
    files: dict[str, str]  # their SHA-256
    training: dict[str, Any] | None = None


def save_adapter(adapted: Adapted, folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``folder``, whole or not at all, in place of what was there; ``record`` describes its training.

    Raises EnvironmentProblem if the disk is full; then the old folder is still there.
    """
    with replacing_folder(folder, "the adapter") as new:
        _write(adapted, new, record)


def read_record(folder: Path) -> dict[str, Any]:
    """Return adapter.json after checking it and every file it lists; DatasetError for what is missing or damaged."""
    if not folder.is_dir():
        raise DatasetError(f"there is no adapter folder {folder}")
    if not (folder / RECORD).is_file() and not (folder / CONFIG_NAME).is_file():
        inside_it = sorted(file.parent for name in (RECORD, CONFIG_NAME) for file in folder.glob(f"*/{name}"))
        advice = f"; one that lies in it is adapter={inside_it[0]}" if inside_it else ""
        raise DatasetError(f"{folder} is no adapter: it holds neither {RECORD} nor PEFT's {CONFIG_NAME}{advice}")
    record = read_json(folder / RECORD, FORMAT)
    checked: _Record = from_plain(_Record, record, str(folder / RECORD))
    if MAIN not in checked.adapters and checked.mode != "full":
        raise DatasetError(f"{folder / RECORD} is damaged: its adapters lack {MAIN}; copy the adapter's folder again")
    for name in (*checked.files, *checked.adapters):
        inside(folder, name, str(folder / RECORD))
    for name, digest in checked.files.items():
        if not (folder / name).is_file():
            raise DatasetError(f"{folder / name} is missing; the adapter is incomplete, copy its whole folder again")
        if sha256_of(folder / name) != digest:
            raise DatasetError(f"{folder / name} is damaged: its checksum is not that in {RECORD}; copy it again")
    return record


def adapter_folder(folder: Path, name: str) -> Path:
    """Return where PEFT's files of one adapter are: those of ``default`` at the top, as in PEFT."""
    return folder if name == MAIN else folder / name


def stored_config(folder: Path, *, ours: bool) -> PeftConfig:
    """Return PEFT's configuration of one adapter; DatasetError if it cannot be used.

    ``ours``: the adapted modules must be given by one regular expression, as this package writes it.
    """
    try:
        known = PeftConfig.from_json_file(str(folder / CONFIG_NAME))
        config = PeftConfig.from_peft_type(**{key: known[key] for key in known if key not in PATCHED_OPTIONS})
        if ours:
            re.compile(vars(config)["target_modules"])
        if isinstance(config, LoraConfig) and not isinstance(config, AdaLoraConfig):  # whose patterns are lists
            _check_values(vars(config))
    except (IndexError, KeyError, TypeError, ValueError, RecursionError, re.error) as error:
        raise DatasetError(
            f"{folder / CONFIG_NAME} is damaged ({type(error).__name__}: {error}); copy the adapter's folder again"
        ) from error
    return config


def _check_values(config: Mapping[str, Any]) -> None:
    """Raise ValueError, TypeError or re.error for ranks, scales and names that PEFT would fail on, or make NaN of."""
    names = config["target_modules"] or ()
    if not isinstance(names, str) and not all(isinstance(name, str) for name in names):
        raise ValueError(f"target_modules={names}")
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config[key], dict):
            raise ValueError(f"{key}={config[key]} is no table")
    for pattern in (*config["rank_pattern"], *config["alpha_pattern"], *([names] if isinstance(names, str) else [])):
        re.compile(pattern)
    for key, patterns, kind in (("r", "rank_pattern", int), ("lora_alpha", "alpha_pattern", (int, float))):
        for value in (config[key], *config[patterns].values()):
            if not isinstance(value, kind) or not math.isfinite(value):
                raise ValueError(f"{key}={value!r} is no {'whole' if kind is int else 'finite'} number")


def adapter_tensors(view: PeftModel, name: str) -> dict[str, Tensor]:
    """Return one adapter's tensors under the names PEFT stores."""
    # the model holds the tensors of the other adapter too, and PEFT would add them
    own = {k: v for k, v in view.state_dict().items() if f".{name}." in k or k.endswith(f".{name}")}
    config = view.peft_config[name]
    if not isinstance(config, AdaLoraConfig):
        return get_peft_model_state_dict(view, own, adapter_name=name, save_embedding_layers=False)
    kept, config.rank_pattern = config.rank_pattern, None  # with it PEFT would cut off the masked ranks
    try:
        return get_peft_model_state_dict(view, own, adapter_name=name, save_embedding_layers=False)
    finally:
        config.rank_pattern = kept


def _write(adapted: Adapted, folder: Path, training: Mapping[str, Any]) -> None:
    if adapted.mode == "full":
        save_model(adapted.model, folder / MODEL)
    for name, view in adapted.wrapped.items():
        inside = adapter_folder(folder, name)
        inside.mkdir(exist_ok=True)
        config = copy.copy(view.peft_config[name])
        config.inference_mode = True
        if isinstance(config, AdaLoraConfig):
            config.rank_pattern = None
        config.save_pretrained(str(inside))
        write_tensors(inside / WEIGHTS, adapter_tensors(view, name), PEFT_METADATA)
    if adapted.mode == "pissa":
        write_tensors(folder / INITIAL, adapted.initial, PEFT_METADATA)
    if adapted.mode == "lora_xs":
        write_tensors(folder / BASIS, bases(adapted.model), PEFT_METADATA)
    if adapted.initial:
        write_durably(folder / drift.FILE, json_bytes(drift.record(drift.drift(adapted.trainable, adapted.initial))))
    write_durably(folder / RECORD, json_bytes(_record(adapted, folder, training)))


def _record(adapted: Adapted, folder: Path, training: Mapping[str, Any]) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "format": FORMAT,
        "mode": adapted.mode,
        "settings": to_plain(adapted.settings),
        "seed": adapted.seed,
        "total_steps": adapted.total_steps,
        "base": to_plain(adapted.base),
        "adapters": list(adapted.wrapped),
        "parameters": {"total": adapted.parameter_count(), "parts": to_plain(adapted.parameter_table())},
        "ranks": adapted.ranks(),
        **_basis_record(adapted),
        "training": dict(training),
        "versions": {"megasynth-attr": __version__} | {name: version(name) for name in PACKAGES},
        "files": {path.relative_to(folder).as_posix(): sha256_of(path) for path in files},
    }


def _basis_record(adapted: Adapted) -> dict[str, Any]:
    """Return which basis the adapter is bound to, and D of every layer; empty for modes without a basis."""
    config = adapted.wrapped[MAIN].peft_config[MAIN] if MAIN in adapted.wrapped else None
    if not isinstance(config, SubspaceConfig):
        return {}
    dimensions = {
        name.partition(".lora_M.")[0]: len(parameter)
        for name, parameter in adapted.trainable.items()
        if ".lora_M." in name
    }
    basis = {"path": config.basis, "attributes": config.attributes, "sha256": config.basis_sha256}
    return {"basis": {**basis, "dimensions": dimensions}}
