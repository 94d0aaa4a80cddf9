"""One layer of one stored adapter as its low-rank update of the base weight, dW = left rightᵀ.

===========  ========================================================================================================
LoRA         s·B A, s = alpha / r, or alpha / √r for rsLoRA, with PEFT's patterns of ranks and alphas
DoRA         diag(c) s·B A, c = magnitude / ‖W + s·B A‖ by rows; (diag(c) − 1) W, of full rank, is left out
PiSSA        s·(B A − B₀ A₀), of twice the rank: the start was subtracted from the base weight
AdaLoRA      B diag(E) A · alpha / (r + 1e-5), r the initial rank, as in PEFT; without masked directions
LoRA-XS      B (R − 1) A with the vectors A, B stored beside R
subspace     s·A M Bᵀ with A, B of the basis
patched      s·B M A, all three stored, s = alpha / r whatever M's size: LoRA in a basis by the released code
===========  ========================================================================================================

NumPy only, and small to pickle: worker processes read the layers they work on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.subspace.arrays import float64, opened
from megasynth_train.subspace.core import Update

WEIGHTS, INITIAL, VECTORS = "adapter_model.safetensors", "initial.safetensors", "basis.safetensors"
COPY_AGAIN = "copy the adapter's folder again"
ADALORA_GUARD = 1e-5  # what PEFT adds to the rank it divides by

Parts = Mapping[str, np.ndarray]  # the tensors of one layer by the last part of their names


@dataclass(frozen=True)
class BaseWeights:
    """The base model's weights: their hash (vggt.checkpoint.weights_hash), and the matrix (m × n) of a module."""

    sha256: str
    weight: Callable[[str], np.ndarray]


@dataclass(frozen=True, eq=False)
class StoredAdapter:
    """An adapter's folder and what ``update`` needs besides the values in it; made by ``peft_folder.open_adapter``."""

    folder: Path
    name: str
    attribute: str
    mode: str
    config: Mapping[str, Any]  # PEFT's adapter_config.json
    keys: Mapping[str, Mapping[str, str]]  # module → part, e.g. lora_A → name of its tensor
    shapes: Mapping[str, tuple[int, int]]  # module → (m, n)
    rank: int  # the largest rank of any layer; AdaLoRA: at the start
    base: Mapping[str, Any]  # of the model it belongs to
    seed: int | None
    sha256: str  # of its configuration and all files its updates come from
    left_out: tuple[str, ...] = ()  # trained tensors that belong to no update
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # subspace: module → columns in the basis' file
    row_scales: Mapping[str, np.ndarray] = field(default_factory=dict)  # DoRA: module → c (m,)
    # name of the first adapter of the cluster that was trained on the same data, until they are compared the hash of
    # the data; "": not known
    dataset: str = ""

    def parts(self, module: str) -> dict[str, np.ndarray]:
        """Return the stored tensors of a layer, float64; DatasetError if they cannot be read or are not finite."""
        return _read(self.folder / WEIGHTS, self.keys[module])

    def update(self, module: str) -> Update:
        """Return the update of a layer, float64; DatasetError as ``parts``, or if it does not fit its config."""
        parts = self.parts(module)
        formula = _FORMULAS["pissa" if self.mode == "pissa" else _distinctive(parts)]
        try:
            update = formula(self, module, parts)
        except (KeyError, ValueError) as error:
            raise DatasetError(
                f"{self.folder}: {module} does not fit its own adapter_config.json ({type(error).__name__}: {error}); "
                f"{COPY_AGAIN}"
            ) from error
        if (len(update.left), len(update.right)) != self.shapes[module]:
            raise DatasetError(f"{self.folder} changed while it was read; start again")
        return update

    def lora_scale(self, module: str, rank: int) -> float:
        """Return PEFT's factor s of a plain LoRA layer; ValueError if its rank is not the configured one."""
        configured = pattern_value(self.config.get("rank_pattern"), module, self.config["r"])
        if rank != configured:
            raise ValueError(f"its rank is {rank}, configured is {configured}")
        alpha = pattern_value(self.config.get("alpha_pattern"), module, self.config["lora_alpha"])
        return float(alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank))


def with_row_scales(
    adapters: Sequence[StoredAdapter], modules: Sequence[str], base: BaseWeights | None
) -> tuple[tuple[StoredAdapter, ...], tuple[str, ...]]:
    """Return the adapters with DoRA's row scales c = magnitude / ‖W + s·B A‖, and a note on what is left out of each.

    DoRA's weight is diag(c) (W + s·B A), so dW = diag(c) s·B A + (diag(c) − 1) W. The note gives the norm of the second
    part relative to that of dW. ConfigError if there are DoRA adapters and ``base`` is None.
    """
    if not any(adapter.mode == "dora" for adapter in adapters):
        return tuple(adapters), ()
    if base is None:
        raise ConfigError(
            "mode=dora: the updates of DoRA adapters depend on the base weights; give the base model, e.g. "
            "checkpoint=facebook/VGGT-1B"
        )
    scales: dict[str, dict[str, np.ndarray]] = {adapter.name: {} for adapter in adapters}
    shares: dict[str, list[float]] = {adapter.name: [] for adapter in adapters}
    for module in modules:
        weight = base.weight(module).astype(np.float64)
        for adapter in adapters:
            if "lora_magnitude_vector" in adapter.keys[module]:
                scales[adapter.name][module], share = _row_scales(adapter, module, weight)
                shares[adapter.name].append(share)
    notes = tuple(
        f"{name}: DoRA's change of magnitudes has full rank and is left out; relative to the update its norm is "
        f"{np.median(of_adapter):.2g} in the median layer and {max(of_adapter):.2g} at most"
        for name, of_adapter in shares.items()
        if of_adapter
    )
    return tuple(replace(adapter, row_scales=scales[adapter.name]) for adapter in adapters), notes


def _row_scales(adapter: StoredAdapter, module: str, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Return c (m,) and ‖(diag(c) − 1) W‖ / ‖dW‖ of one layer."""
    parts = adapter.parts(module)
    low_rank = adapter.lora_scale(module, len(parts["lora_A"])) * parts["lora_B"] @ parts["lora_A"]
    adapted = weight + low_rank
    scale = parts["lora_magnitude_vector"].reshape(-1) / np.linalg.norm(adapted, axis=1)
    change = np.linalg.norm(scale[:, None] * adapted - weight)
    left_out = np.linalg.norm((scale - 1)[:, None] * weight)
    return scale, float(left_out / change) if change else 0.0


def pattern_value(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """Return the value of the first pattern that matches the end of a module's name from a dot on, as in PEFT."""
    fitting = (value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", module))
    return next(fitting, default)


def is_zero(update: Update) -> bool:
    """Return whether dW vanishes term by term: every column is zero on one side."""
    return bool((~update.left.any(axis=0) | ~update.right.any(axis=0)).all())


def _lora(adapter: StoredAdapter, module: str, parts: Parts) -> Update:
    a, b = parts["lora_A"], parts["lora_B"]  # r × n, m × r
    return Update(adapter.lora_scale(module, len(a)) * b, a.T)


def _dora(adapter: StoredAdapter, module: str, parts: Parts) -> Update:
    plain = _lora(adapter, module, parts)
    return Update(adapter.row_scales[module][:, None] * plain.left, plain.right)


def _pissa(adapter: StoredAdapter, module: str, parts: Parts) -> Update:
    names = {part: f"{module}.{part}.default.weight" for part in ("lora_A", "lora_B")}
    start = _read(adapter.folder / INITIAL, names)
    a, b, a0, b0 = parts["lora_A"], parts["lora_B"], start["lora_A"], start["lora_B"]
    scale = adapter.lora_scale(module, len(a))
    # (B − B₀) A + B₀ (A − A₀): the drift is small, so the difference of the two products would lose digits
    return Update(scale * np.hstack([b - b0, b0]), np.hstack([a.T, (a - a0).T]))


def _adalora(adapter: StoredAdapter, module: str, parts: Parts) -> Update:
    a, b, e = parts["lora_A"], parts["lora_B"], parts["lora_E"].reshape(-1)
    if not len(e):  # all ranks were cut off
        return Update(np.zeros((len(b), 1)), np.zeros((a.shape[1], 1)))
    kept = np.flatnonzero(e) if e.any() else np.arange(1)  # an update has at least one column
    config = adapter.config
    alpha = config["lora_alpha"] if config["lora_alpha"] > 0 else config["init_r"]
    scale = alpha / (config["init_r"] + ADALORA_GUARD)
    return Update(scale * b[:, kept] * e[kept], a[kept].T)


def _lora_xs(adapter: StoredAdapter, module: str, parts: Parts) -> Update:
    vectors = _read(adapter.folder / VECTORS, {"A": f"{module}.A", "B": f"{module}.B"})
    matrix = parts["psoft_R"]
    scale = adapter.config["psoft_alpha"] / adapter.config["r"]
    return Update(scale * vectors["B"] @ (matrix - np.eye(len(matrix))), vectors["A"].T)


def _subspace(adapter: StoredAdapter, module: str, parts: Parts) -> Update:
    columns = adapter.columns[module]
    stored = _read(Path(adapter.config["basis"]), {part: f"{module}.{part}" for part in ("A", "B", "S")})
    roots = np.sqrt(stored["S"][columns]) if adapter.config["basis_norm"] == "sqrt_sigma" else np.ones(len(columns))
    left, right = (stored[side][:, columns] * roots for side in ("A", "B"))
    return Update(adapter.config["scale"] * left @ parts["lora_M"], right)


def _patched(adapter: StoredAdapter, module: str, parts: Parts) -> Update:
    scale = adapter.config["lora_alpha"] / adapter.config["r"]
    return Update(scale * parts["lora_B.1"] @ parts["lora_B.0"], parts["lora_A.0"].T)


_FORMULAS: dict[str, Callable[[StoredAdapter, str, Parts], Update]] = {
    "lora_B.1": _patched,
    "lora_M": _subspace,
    "lora_E": _adalora,
    "psoft_R": _lora_xs,
    "lora_magnitude_vector": _dora,
    "lora_A": _lora,
    "pissa": _pissa,
}


def _distinctive(parts: Parts) -> str:
    """Return the part that identifies a layer's method, plain LoRA's last: an adapter may use several methods."""
    return next(part for part in _FORMULAS if part in parts)


def _read(path: Path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    with opened(path, COPY_AGAIN) as file:
        return {
            part: float64(file, path, name, "train this adapter again or leave it out") for part, name in names.items()
        }
