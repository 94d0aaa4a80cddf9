"""Open an adapter's folder: its layers and their shapes, its method and its base model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.codec import content_hash
from megasynth_attr.core.errors import ConfigError, DatasetError, choices
from megasynth_attr.core.files import read_json, sha256_of
from megasynth_train.subspace.arrays import shapes
from megasynth_train.subspace.peft_updates import COPY_AGAIN, INITIAL, VECTORS, WEIGHTS, StoredAdapter
from megasynth_train.vggt.source_names import unwrapped

CONFIG, RECORD = "adapter_config.json", "adapter.json"
_KEY = re.compile(
    r"base_model\.model\.(.+)\.(lora_[ABEM]|lora_A\.0|lora_B\.[01]|lora_magnitude_vector|psoft_R)(?:\.weight)?"
)
_MODES = {"LORA": "lora", "ADALORA": "adalora", "PSOFT": "lora_xs", "SUBSPACE": "subspace"}
# Initial values that leave the base weight as it was; the others (OLoRA, LoftQ, CorDA, LoRA-GA …) change it.
_HARMLESS_STARTS = (True, False, "gaussian", "eva", "orthogonal")
_OTHER_FORMULAS = (
    "use_qalora",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
    "arrow_config",
    "psoft_orth",
    "psoft_mag_a",
    "psoft_mag_b",
)

Shape = tuple[int, ...]


def open_adapter(folder: Path, name: str, attribute: str, wanted: Callable[[str], bool]) -> StoredAdapter:
    """Return the adapter in ``folder`` with its linear layers whose name is ``wanted``; reads no values.

    Raises DatasetError for files that are missing, damaged or not those that adapter.json lists, and ConfigError for a
    method whose update is not a low-rank matrix of its factors: full training, heads only, unsupported initialisations.
    """
    record = _record(folder)
    mode = record.get("mode", "")
    if mode in ("full", "heads"):
        what = "changes all weights" if mode == "full" else "adapts no layer of the aggregator"
        raise ConfigError(f"{folder}: mode={mode} {what}; subspaces are mined from adapters such as mode=lora")
    config = read_json(folder / CONFIG)
    mode = mode or _mode_of(config, folder)
    check_formula(config, folder, mode)
    _check_form(folder)
    sizes = shapes(folder / WEIGHTS, COPY_AGAIN)
    keys = _linear_layers(sizes, wanted)
    columns = _basis_columns(config, keys, folder) if mode == "subspace" else {}
    layers, rank = _layers(folder, config, keys, sizes, mode)
    base = record.get("base") or {"base_model_name_or_path": config.get("base_model_name_or_path")}
    identity = _identity(folder, config, record.get("files", {}), mode)
    left_out = _left_out(sizes, keys, wanted)
    return StoredAdapter(
        folder, name, attribute, mode, config, keys, layers, rank, base, record.get("seed"), identity, left_out,
        columns, dataset=_content(record),
    )  # fmt: skip


def adapted_modules(folder: Path) -> tuple[str, ...]:
    """Return the names of all modules an adapter has tensors of."""
    found = map(_match, shapes(folder / WEIGHTS, COPY_AGAIN))
    return tuple(dict.fromkeys(match[1] for match in found if match))


def _match(key: str) -> re.Match[str] | None:
    """Return module and part of a tensor that belongs to an update."""
    return _KEY.fullmatch(unwrapped(key))


def _record(folder: Path) -> dict[str, Any]:
    """Return adapter.json after checking the files it lists; empty for an adapter that PEFT alone has written."""
    if not (folder / RECORD).is_file():
        return {}
    # imported here: it loads PyTorch and PEFT, which the worker processes that unpickle adapters do not need
    from megasynth_train.adapters.storage import read_record

    return read_record(folder)


def _content(record: Mapping[str, Any]) -> str:
    """Return the hash of the data that an adapter was trained on, "" if it is not recorded."""
    training = record.get("training") or {}
    return str(training.get("content_sha256") or training.get("data_fingerprint") or "")


def _identity(folder: Path, config: Mapping[str, Any], checked: Mapping[str, str], mode: str) -> str:
    """Return the hash of all that an adapter's updates depend on, except the base model; ``checked``: files' checksums.

    The path of a basis does not count: the configuration has its checksum.
    """
    names = (WEIGHTS, *(name for kind, name in (("pissa", INITIAL), ("lora_xs", VECTORS)) if kind == mode))
    files = {name: checked[name] if name in checked else sha256_of(folder / name) for name in names}
    return content_hash({"files": files, "config": {key: config[key] for key in config if key != "basis"}})


def _mode_of(config: Mapping[str, Any], folder: Path) -> str:
    kind = config.get("peft_type")
    if kind not in _MODES:
        raise ConfigError(f"{folder}: adapters of type {kind} cannot be read; {choices(_MODES)}")
    if config.get("use_dora"):
        return "dora"
    if str(config.get("init_lora_weights")).startswith("pissa"):
        return "pissa"
    return "rslora" if config.get("use_rslora") else _MODES[kind]


def check_formula(config: Mapping[str, Any], folder: Path, mode: str) -> None:
    """Raise ConfigError unless the update of an adapter of ``mode`` with this configuration is one of its factors."""
    start = config.get("init_lora_weights", True)
    if mode == "pissa" and not (folder / INITIAL).is_file():
        raise ConfigError(
            f"{folder}: PiSSA subtracts its initial factors from the base weight, and {INITIAL}, which holds them, is "
            "missing; "
            "convert it to plain LoRA with PEFT (save_pretrained(…, path_initial_model_for_weight_conversion=…))"
        )
    if mode == "lora_xs" and not (folder / VECTORS).is_file():
        raise ConfigError(f"{folder}: {VECTORS} with the frozen vectors is missing; {COPY_AGAIN}")
    if mode != "pissa" and start not in _HARMLESS_STARTS:
        raise ConfigError(
            f"{folder}: init_lora_weights={start} changes the base weight, so the update cannot be read off its "
            "factors; convert it to plain LoRA with PEFT"
        )
    if other := [key for key in _OTHER_FORMULAS if config.get(key)]:
        raise ConfigError(f"{folder}: adapters with {other[0]} cannot be read; their update is not B A")


def _linear_layers(sizes: Mapping[str, Shape], wanted: Callable[[str], bool]) -> dict[str, dict[str, str]]:
    """Return module → part → key of wanted layers whose factors are matrices: convolutions have other shapes."""
    found: dict[str, dict[str, str]] = {}
    for key in sizes:
        if (match := _match(key)) and wanted(match[1]):
            found.setdefault(match[1], {})[match[2]] = key
    return {module: parts for module, parts in found.items() if all(len(sizes[key]) <= 2 for key in parts.values())}


def _left_out(
    sizes: Mapping[str, Shape], keys: Mapping[str, Mapping[str, str]], wanted: Callable[[str], bool]
) -> tuple[str, ...]:
    """Return the names of tensors that belong to no update: whole modules, biases, convolutions among wanted layers."""
    matches = {key: _match(key) for key in sizes}
    names = (key for key, match in matches.items() if not match or (wanted(match[1]) and match[1] not in keys))
    return tuple(sorted(unwrapped(key).removeprefix("base_model.model.") for key in names))


def _check_form(folder: Path) -> None:
    """Raise ConfigError for weights in a form that only PyTorch reads, or in shards."""
    others = sorted(path.name for path in folder.glob("adapter_model*") if path.suffix in (".bin", ".safetensors"))
    if others and WEIGHTS not in others:
        raise ConfigError(
            f"{folder} holds its weights as {others[0]}{' and others' if len(others) > 1 else ''}; mining reads "
            f"{WEIGHTS} alone: load the adapter with PEFT and save it again with save_pretrained"
        )


def _layers(
    folder: Path,
    config: Mapping[str, Any],
    keys: Mapping[str, Mapping[str, str]],
    sizes: Mapping[str, Shape],
    mode: str,
) -> tuple[dict[str, tuple[int, int]], int]:
    """Return module → (m, n), and the largest rank; DatasetError if two factors have no common rank."""
    frames = {"lora_xs": folder / VECTORS, "subspace": Path(config.get("basis", ""))}
    fixed = shapes(frames[mode], COPY_AGAIN) if mode in frames else {}
    found, ranks = {}, [0]
    for module, parts in keys.items():
        if square := parts.get("lora_M", parts.get("psoft_R")):
            a, b = fixed.get(f"{module}.A"), fixed.get(f"{module}.B")  # LoRA-XS: r × n, m × r; subspace: m × D, n × D
            if a is None or b is None:
                raise DatasetError(f"{frames[mode]} has no vectors of {module}, which {folder} needs; {COPY_AGAIN}")
            found[module] = (a[0], b[0]) if "lora_M" in parts else (b[0], a[1])
            ranks.append(sizes[square][0])
            continue
        if "lora_B.1" in parts and "lora_A.0" in parts and "lora_B.0" in parts:  # the released code's patched layer
            found[module] = (sizes[parts["lora_B.1"]][0], sizes[parts["lora_A.0"]][1])
            ranks.append(sizes[parts["lora_B.0"]][0])
            continue
        pair = [sizes.get(parts.get(part, ""), ()) for part in ("lora_A", "lora_B")]
        if [len(size) for size in pair] != [2, 2] or pair[0][0] != pair[1][1]:
            raise DatasetError(f"{folder / WEIGHTS}: {module} lacks two factors of a common rank; {COPY_AGAIN}")
        found[module] = (pair[1][0], pair[0][1])
        ranks.append(pair[0][0])
    return found, max(ranks)


def _basis_columns(
    config: Mapping[str, Any], keys: Mapping[str, Mapping[str, str]], folder: Path
) -> dict[str, np.ndarray]:
    """Return which columns of its basis' file an adapter uses; DatasetError if that file has changed."""
    from megasynth_train.subspace.basis_file import read_basis  # imported here, as in _record

    if not Path(config["basis"]).is_file():
        raise DatasetError(f"the basis of {folder} is no longer at {config['basis']}; put it back there")
    basis = read_basis(config["basis"])
    chosen = config.get("attributes") or basis.attributes
    if basis.select(chosen).sha256 != config["basis_sha256"]:
        raise DatasetError(f"{folder} was trained in another basis than {config['basis']} now holds; put that one back")
    spans = {
        module: [
            basis.columns[module][name] for name in basis.attributes if name in chosen and name in basis.columns[module]
        ]
        for module, parts in keys.items()
        if "lora_M" in parts
    }
    return {module: np.concatenate([np.arange(*span) for span in of_module]) for module, of_module in spans.items()}
