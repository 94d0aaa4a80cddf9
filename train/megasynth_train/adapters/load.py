"""Put a stored adapter back into its base model exactly, or say why that is impossible."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, set_peft_model_state_dict
from peft.utils import CONFIG_NAME
from torch import Tensor

from megasynth_attr.core.codec import from_plain, to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.adapters import frozen_vectors as frozen
from megasynth_train.adapters.adapted import Adapted, Base, initial_values
from megasynth_train.adapters.inject import base_of, inject, seeded, train_all
from megasynth_train.adapters.methods import MAIN, SUBSPACE
from megasynth_train.adapters.parts import trained
from megasynth_train.adapters.start import without_decomposition
from megasynth_train.adapters.stock import is_stock, load_stock
from megasynth_train.adapters.storage import (
    BASIS,
    INITIAL,
    MODEL,
    RECORD,
    WEIGHTS,
    adapter_folder,
    adapter_tensors,
    read_record,
    stored_config,
)
from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.adapters.subspace.opening import attach_basis, check_model
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.checkpoint import rounding_note
from megasynth_train.vggt.model import VGGT
from megasynth_train.vggt.weight_files import misfit, read_weights


def load_adapter(model: VGGT, folder: str | Path, basis: str = "") -> Adapted:
    """Return ``model`` with the adapter in ``folder`` put into it in place, for prediction or further training.

    Raises DatasetError, with the model unchanged, if the folder is incomplete or damaged, or was made for another base
    model: the message names both. A base whose weights are rounded to 16 bits cannot be compared; a note says so.
    mode=full replaces all weights, whatever they were. A folder that PEFT alone has
    written is loaded by ``adapters.stock``.

    ``basis`` is the file of the basis of an adapter in one, if it was moved since training. ConfigError if it is given
    for another adapter, or is not the basis of training.
    """
    folder = Path(folder)
    if is_stock(folder):
        return load_stock(model, folder, basis)
    record = read_record(folder)
    # keys newer than the stored adapter get their defaults, which change nothing
    settings = from_plain(AdapterSettings, to_plain(AdapterSettings()) | record["settings"], str(folder / RECORD))
    base, here, seed, total_steps = Base(**record["base"]), base_of(model), record["seed"], record["total_steps"]
    if basis and settings.mode != SUBSPACE:
        raise ConfigError(f"basis={basis}: {folder} is an adapter of mode={settings.mode}, which has no basis")
    if settings.mode == "full":
        _load_model(model, folder, base, here)
        train_all(model, settings)
        return Adapted(model, settings, base, seed, total_steps)
    note = rounding_note(model, base.weights_sha256, here.weights_sha256) if _sizes(here) == _sizes(base) else ""
    if here.weights_sha256 != base.weights_sha256 and not note:
        raise DatasetError(
            f"{folder} was made for {_described(base)}, this model is {_described(here)}; load the base model the "
            "adapter was trained from (model.size, model.checkpoint and the same heads)"
        )
    notes = (f"{folder}: {note}",) if note else ()
    tensors = {name: read_weights(adapter_folder(folder, name) / WEIGHTS).tensors for name in record["adapters"]}
    configs = {name: stored_config(adapter_folder(folder, name), ours=True) for name in tensors}
    if isinstance(main := configs[MAIN], SubspaceConfig):
        opened = attach_basis(main, basis, folder)
        note = check_model(opened, model, base.weights_sha256, main.basis)
        notes = (*notes, note) if note else notes
    with seeded(seed):
        wrapped = inject(model, {name: without_decomposition(config) for name, config in configs.items()})
    initial = _restore_frozen(model, wrapped, configs, settings.mode, folder)
    for name, view in wrapped.items():
        _fill(view, name, tensors[name], adapter_folder(folder, name) / WEIGHTS)
    return Adapted(model, settings, base, seed, total_steps, wrapped, initial, notes)


def _restore_frozen(
    model: VGGT, wrapped: Mapping[str, PeftModel], configs: Mapping[str, PeftConfig], mode: str, folder: Path
) -> dict[str, Tensor]:
    """Put back what the method derived from the base weights; return the trained parameters' initial values."""
    if mode == "pissa":
        initial = dict(read_weights(folder / INITIAL).tensors)
        frozen.subtract_start(model, initial, MAIN)
    else:
        initial = initial_values(trained(model), mode)
    if mode == "lora_xs":
        frozen.set_bases(model, read_weights(folder / BASIS).tensors)
    if mode in ("pissa", "lora_xs"):
        stored = configs[MAIN]
        stored.inference_mode = False
        wrapped[MAIN].peft_config[MAIN] = stored
    return initial


def _fill(view: PeftModel, name: str, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Give one adapter its stored values; DatasetError unless names and shapes are exactly those it has."""
    if problem := misfit(tensors, adapter_tensors(view, name)):
        raise DatasetError(f"{file} does not fit its own {CONFIG_NAME}: {problem}")
    result: Any = set_peft_model_state_dict(view, dict(tensors), adapter_name=name)
    if result.unexpected_keys:
        raise DatasetError(f"{file} holds {result.unexpected_keys[0]}, which PEFT cannot place in the model")


def _load_model(model: VGGT, folder: Path, base: Base, here: Base) -> None:
    tensors = read_weights(folder / MODEL).tensors
    if misfit(tensors, model.state_dict()):
        raise DatasetError(f"{folder / MODEL} is {_shape(base)}, this model is {_shape(here)}; set model.size to match")
    model.load_state_dict(tensors, strict=True)


def _described(base: Base) -> str:
    return f"{_shape(base)} with weights {base.weights_sha256[:12]}"


def _sizes(base: Base) -> dict[str, Any]:
    """Return the sizes that adapters depend on: as in the hash, without the point head."""
    return {key: size for key, size in base.config.items() if key != "point_head"}


def _shape(base: Base) -> str:
    config: dict[str, Any] = base.config
    size = base.size or f"a model of width {config['width']} and {config['depth']} pairs of blocks"
    heads = [name.removesuffix("_head") for name in ("camera_head", "depth_head") if config[name]]
    return f"{size} (heads: {', '.join(heads) or 'none'})"
