"""Adapters that PEFT alone has written: ``adapter_config.json`` and weights, one file or shards, without our record.

Where neither they nor their basis record the weights of their base model, it is not checked; a note says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import CONFIG_NAME
from torch import Tensor

from megasynth_attr.core.codec import content_hash
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import sha256_of
from megasynth_attr.core.pages.words import listed
from megasynth_train.adapters import drift
from megasynth_train.adapters.adapted import Adapted
from megasynth_train.adapters.inject import base_of
from megasynth_train.adapters.methods import MAIN
from megasynth_train.adapters.plain import unpatched
from megasynth_train.adapters.storage import RECORD, stored_config
from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.adapters.subspace.opening import attach_basis
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.checkpoint import rounding_note
from megasynth_train.vggt.model import VGGT, freeze_encoder
from megasynth_train.vggt.source_names import ADAPTER_SHARD, ADAPTER_WEIGHTS, unwrapped
from megasynth_train.vggt.weight_files import check_numbers, read_weights

BASE_HASH = "base_weights_sha256"  # of the base model, in the metadata of what export_lora wrote


def is_stock(folder: Path) -> bool:
    """Return whether a folder holds PEFT's configuration and nothing that only this package writes."""
    return (folder / CONFIG_NAME).is_file() and not any((folder / name).exists() for name in (RECORD, drift.FILE))


def load_stock(model: VGGT, folder: Path, basis: str = "") -> Adapted:
    """Return ``model`` with PEFT's adapter in ``folder`` put into it in place, for prediction.

    ``basis`` is the file of the basis of an adapter in one, if it was moved; ConfigError for another adapter.
    Raises DatasetError if its configuration or weights are damaged, incomplete or do not fit this model, ConfigError
    if it does not adapt weights (prompts, prefixes). So it is where the base model is recorded and is not this one.
    """
    base = base_of(model)
    config = stored_config(folder, ours=False)
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if config.is_prompt_learning:
        raise ConfigError(
            f"{folder} is an adapter of type {kind}, which changes inputs instead of weights; VGGT cannot use it"
        )
    tensors, metadata = read_stock(folder)
    recorded = metadata.get(BASE_HASH, "")
    if isinstance(config, SubspaceConfig):
        attach_basis(config, basis, folder)
        recorded = str(config.opened.base.get("weights_sha256") or "") if config.opened else ""
    elif basis:
        raise ConfigError(f"basis={basis}: {folder} is an adapter of type {kind}, which has no basis")
    if isinstance(config, LoraConfig):
        config, tensors = unpatched(config, tensors, folder)
    note = _base_note(model, recorded, base.weights_sha256, folder)
    config.inference_mode = True
    config.task_type = None  # with it PEFT would wrap the forward pass
    freeze_encoder(model)
    try:
        view = PeftModel(model, config, adapter_name=MAIN)
        result: Any = set_peft_model_state_dict(view, tensors, adapter_name=MAIN)
    except (ValueError, TypeError, RuntimeError, KeyError, ImportError) as error:
        raise DatasetError(f"{folder} does not fit this model ({_first_line(error)}); {_OTHER_MODEL}") from error
    model.eval()  # as PEFT does: without its dropout
    del model.peft_config  # PEFT leaves its configurations on the model
    saved = get_peft_model_state_dict(view, adapter_name=MAIN, save_embedding_layers=False)
    missing = sorted(saved.keys() - tensors.keys())
    for what, names in (("holds", result.unexpected_keys), ("lacks", missing)):
        if names:
            raise DatasetError(f"{folder} does not fit this model: it {what} {listed(names, 1)}; {_OTHER_MODEL}")
    origin = f"base_model_name_or_path={config.base_model_name_or_path}"
    settings = AdapterSettings(mode=kind.lower())
    notes = (f"{folder} was saved by PEFT alone (type {kind}, {origin}): {note}",) if note else ()
    return Adapted(model, settings, base, seed=0, total_steps=0, wrapped={MAIN: view}, notes=notes)


def _base_note(model: VGGT, recorded: str, here: str, folder: Path) -> str:
    """Return what is not known about the base model, empty if it is the recorded one; DatasetError if it is not."""
    if not recorded:
        return "whether it was trained from this base model's weights is not recorded and not checked"
    note = rounding_note(model, recorded, here)
    if recorded != here and not note:
        raise DatasetError(
            f"{folder} was made for a base model with weights {recorded[:12]}, this model's weights are {here[:12]}; "
            f"{_OTHER_MODEL}"
        )
    return note


def read_stock(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of PEFT's files as float32, and the metadata of safetensors files.

    DatasetError if a file is missing or damaged, or holds anything but finite floating-point numbers.
    """
    parts = [read_weights(file) for file in weight_files(folder)]
    stored = {unwrapped(name): tensor for part in parts for name, tensor in part.tensors.items()}
    check_numbers(stored, folder)
    metadata = {key: text for part in parts for key, text in part.metadata.items()}
    return {name: tensor.float() for name, tensor in stored.items()}, metadata


def weight_files(folder: Path) -> list[Path]:
    """Return PEFT's weight files: adapter_model.safetensors, .bin, or all shards of one of them.

    DatasetError if there are none, or a shard is missing.
    """
    for name in ADAPTER_WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
    shards = {path: found for path in sorted(folder.iterdir()) if (found := ADAPTER_SHARD.fullmatch(path.name))}
    for suffix in (".safetensors", ".bin"):
        mine = {int(found[1]): path for path, found in shards.items() if path.suffix == suffix}
        count = max((int(found[2]) for path, found in shards.items() if path.suffix == suffix), default=0)
        if missing := [number for number in range(1, count + 1) if number not in mine]:
            raise DatasetError(f"{folder}: shard {missing[0]} of {count} is missing; copy the adapter's folder again")
        if mine:
            return [mine[number] for number in sorted(mine)]
    raise DatasetError(
        f"{folder} has a {CONFIG_NAME}, but no weights beside it ({', '.join(ADAPTER_WEIGHTS)}, or shards of one of "
        "these); copy the adapter's folder again"
    )


def stock_digest(folder: Path) -> str:
    """Return the hash of the configuration and the weights of PEFT's folder."""
    return content_hash({path.name: sha256_of(path) for path in [folder / CONFIG_NAME, *weight_files(folder)]})


_OTHER_MODEL = "give the model it was trained from (model.size, checkpoint=), or copy the adapter's folder again"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else type(error).__name__
