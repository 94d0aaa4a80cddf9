"""Weights on disk: the published checkpoint, our own files, and the identity of a base model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.vggt.config import HEADS, VGGTConfig, config_from_record
from megasynth_train.vggt.model import VGGT
from megasynth_train.vggt.torch_files import NESTED
from megasynth_train.vggt.weight_files import check_numbers, locate, misfit, read_weights, write_tensor_file

FORMAT = "megasynth-vggt"  # in the metadata of the files save_model writes
_INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # around the model or parts of it
_WRAPPERS = (*_INNER, *(f"{key}." for key in NESTED))
_COUNTER = "n_averaged"  # by torch.optim.swa_utils.AveragedModel, beside the names that it begins with module.


@dataclass(frozen=True)
class LoadedModel:
    """A model with the weights of a file, and notes about that file."""

    model: VGGT
    ignored: tuple[str, ...]  # keys of the file: the track head, heads that are switched off, an average's counter
    removed: str  # prefix that DistributedDataParallel, torch.compile or a training program put before every name


def load_pretrained(source: str, config: VGGTConfig | None = None) -> LoadedModel:
    """Return the model of ``config`` with the float32 weights of ``source``, on the CPU.

    ``source`` is a file (``.pt`` or ``.safetensors``), a folder with ``model.safetensors`` or ``model.pt``, or a hub
    id such as ``facebook/VGGT-1B`` (``@revision`` may follow); if all names in it begin with ``module.`` or what else
    wrappers put there, that is removed. ``config`` None means the sizes a file of ``save_model`` records, or those of
    vggt-1b. Weights are mapped from the file, not copied. Raises DatasetError for a file that is damaged, holds NaN or
    infinity, or does not fit in any other way than by heads that ``config`` switches off; EnvironmentProblem where the
    hub cannot be reached.
    """
    path = locate(source)
    stored = read_weights(path)
    config = config or _recorded_config(stored.metadata, path) or VGGTConfig()
    with torch.device("meta"):
        model = VGGT(config)
    expected = model.state_dict()
    tensors, removed = _unwrapped(stored.tensors)
    ignored = _ignored(tensors, config)
    weights = {name: tensor for name, tensor in tensors.items() if name not in set(ignored)}
    _check(weights, expected, path)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return LoadedModel(model, ignored, removed)


def save_model(model: VGGT, path: Path) -> None:
    """Write the weights of ``model`` and its sizes to the safetensors file ``path``, whole or not at all.

    EnvironmentProblem if the file cannot be written; an older one then stays.
    """
    metadata = {"format": "pt", "megasynth": FORMAT, "config": json.dumps(asdict(model.config), sort_keys=True)}
    write_tensor_file(path, model.state_dict(), metadata, "the model")


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 (hex) of the names, types, shapes and bytes of the weights, sorted by name: a base's identity.

    The point head is left out: adapters never touch it, so whether it is loaded must not decide whether an adapter
    fits. Take it before an adapter is attached and before ``store_frozen_in_bf16``.
    """
    return tensors_hash({name: own for name, own in model.state_dict().items() if not name.startswith("point_head.")})


def rounding_note(model: nn.Module, recorded: str, here: str) -> str:
    """Return a note if weights with another hash than ``recorded`` cannot be told from those, empty if they can.

    They cannot if they are kept in 16 bits, or were: then the float32 numbers that the hash is of are gone. ``here`` is
    the model's own hash; an empty ``recorded`` compares nothing.
    """
    if recorded in ("", here) or not _rounded(model):
        return ""
    return (
        f"this model's weights are rounded to 16 bits, so whether they are those with the SHA-256 {recorded[:12]} is "
        "not checked"
    )


def _rounded(model: nn.Module) -> bool:
    """Return whether some weights are kept in 16 bits, or all of them would lose nothing by it."""
    weights = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    halves = (torch.bfloat16, torch.float16)
    if any(tensor.dtype in halves for tensor in weights):
        return True
    return any(all(torch.equal(tensor, tensor.to(half).to(tensor.dtype)) for tensor in weights) for half in halves)


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of names, types, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _recorded_config(metadata: Mapping[str, str], path: Path) -> VGGTConfig | None:
    """Return the sizes a file of ``save_model`` records, None for any other file."""
    if metadata.get("megasynth") != FORMAT:
        return None
    try:
        record: dict[str, Any] = json.loads(metadata["config"])
        return config_from_record(record)
    except (KeyError, json.JSONDecodeError, TypeError, AttributeError, ConfigError, RecursionError) as error:
        raise DatasetError(f"{path}: the sizes recorded in it cannot be used ({error})") from None


def _unwrapped(tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """Return the tensors without the prefixes that wrappers put before or inside their names, and the common prefix."""
    removed = ""
    while (names := tensors.keys() - {_COUNTER}) and (
        common := next((wrapper for wrapper in _WRAPPERS if all(name.startswith(wrapper) for name in names)), "")
    ):
        tensors = {name.removeprefix(common): tensor for name, tensor in tensors.items()}
        removed += common
    inner = re.compile("|".join(rf"(?<=\.){re.escape(name)}" for name in _INNER))
    return {inner.sub("", name): tensor for name, tensor in tensors.items()}, removed


def _ignored(tensors: Mapping[str, Tensor], config: VGGTConfig) -> tuple[str, ...]:
    """Return the keys that are known and not wanted: of the track head, of heads that are off, an average's counter."""
    unwanted = ["track_head", _COUNTER, *(head for head in HEADS if not getattr(config, head))]
    return tuple(sorted(name for name in tensors if name.partition(".")[0] in unwanted))


def _check(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Raise DatasetError unless ``weights`` has exactly the names and shapes of ``expected``, and finite numbers."""
    if problem := misfit(weights, expected):
        advice = _advice([name for name in expected if name not in weights], expected)
        if wrapped := next((w for w in _WRAPPERS if any(name.startswith(w) for name in weights)), ""):
            advice = f"some of its names begin with {wrapped}, others do not: save the wrapped model's own state dict"
        raise DatasetError(f"{path} does not fit the model: {problem}; {advice}")
    check_numbers(weights, path)


def _advice(missing: list[str], expected: Mapping[str, Tensor]) -> str:
    heads = sorted({name.partition(".")[0] for name in missing if not name.startswith("aggregator.")})
    if heads and all(name in missing for name in expected if name.partition(".")[0] in heads):
        return f"switch off {', '.join(heads)} in the model's sizes, or take a checkpoint that has it"
    return "give the checkpoint of this model, or choose the model.size the checkpoint was made for"
