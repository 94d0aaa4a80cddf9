"""Exchange with the paper's released code: its file of predefined spaces.

::

    <frame_blocks|global_blocks>.<attn|mlp>.<qkv|proj|fc1|fc2>.<layer>.A    D × in, our Bᵀ (directions of inputs)
    <frame_blocks|global_blocks>.<attn|mlp>.<qkv|proj|fc1|fc2>.<layer>.B    out × D, our A (directions of outputs)

Its adapter is y = W x + s · B M A x, so its M is ours. The file holds nothing else: neither which columns belong to
which attribute, nor the base model, nor the origin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megasynth_attr import __version__
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import sha256_of
from megasynth_train.subspace.arrays import float64, opened
from megasynth_train.subspace.basis import Basis, LayerBasis, ranks_of
from megasynth_train.subspace.basis_file import ORTHONORMAL_TO, WHAT
from megasynth_train.vggt.weight_files import write_tensor_file

_PAPER = re.compile(r"(frame_blocks|global_blocks)\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(\d+)\.([AB])")
_OURS = re.compile(r"aggregator\.(frame_blocks|global_blocks)\.(\d+)\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)")


def import_paper(
    path: str | Path,
    *,
    attributes: Sequence[str] = ("all",),
    base: Mapping[str, Any] | None = None,
    orthonormalise: bool = False,
) -> Basis:
    """Return the basis in a file of the paper's scheme; D may differ from layer to layer.

    Each layer's columns are divided into as many equal parts as there are ``attributes``. Columns that are not
    orthonormal are an error unless ``orthonormalise`` replaces them by others of the same span, with which an M trained
    on the file's own is invalid. Raises DatasetError for a file that is damaged or of another scheme.
    """
    path = Path(path)
    layers, columns = {}, {}
    for module, (inputs, outputs) in _pairs(path).items():
        size = len(inputs) if inputs.ndim == 2 else 0
        if not size or outputs.ndim != 2 or outputs.shape[1] != size:
            raise DatasetError(
                f"{path}: {module} has A {inputs.shape} and B {outputs.shape}, expected D × in and out × D"
            )
        if size % len(attributes):
            raise ConfigError(
                f"attributes={','.join(attributes)}: the {size} columns of {module} cannot be divided equally "
                f"among {len(attributes)} attributes; import them as one"
            )
        left, right = (_orthonormal(side, orthonormalise, f"{path}: {module}") for side in (outputs, inputs.T))
        layers[module] = LayerBasis(left, right, np.ones(size, np.float32))
        width = size // len(attributes)
        columns[module] = {name: (i * width, (i + 1) * width) for i, name in enumerate(attributes)}
    record = {
        "extractor": "imported",
        "file_sha256": sha256_of(path),
        "orthonormal": True,
        "orthonormalised": orthonormalise,
        "ranks": ranks_of(columns),
        "version": __version__,
    }
    return Basis(layers, columns, tuple(attributes), dict(base or {}), record)


def export_paper(basis: Basis, path: str | Path) -> None:
    """Write ``basis`` in the paper's scheme, whole or not at all; ConfigError if a layer has no place in it."""
    tensors = {}
    for module, layer in basis.layers.items():
        match = _OURS.fullmatch(module)
        if match is None:
            raise ConfigError(
                f"{module} has no name in the paper's scheme, which has only linears of the aggregator's blocks"
            )
        stem = f"{match[1]}.{match[3]}.{match[2]}"
        tensors[f"{stem}.A"] = torch.from_numpy(np.array(layer.right.T, order="C"))
        tensors[f"{stem}.B"] = torch.from_numpy(np.array(layer.left, order="C"))
    write_tensor_file(Path(path), tensors, {"format": "pt"}, WHAT)


def _pairs(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return module → (A, B) of the file, float64."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with opened(path, "name a file of the paper's scheme") as file:
        for key in file.keys():  # noqa: SIM118
            match = _PAPER.fullmatch(key)
            if match is None:
                what = "is of Pi3, not of a VGGT" if key.startswith("decoder.") else "is not in the paper's scheme"
                raise DatasetError(f"{path}: {key} {what}; expected keys such as global_blocks.mlp.fc2.17.B")
            module = f"aggregator.{match[1]}.{int(match[3])}.{match[2]}"
            found.setdefault(module, {})[match[4]] = float64(file, path, key, "download the file again")
    if not found:
        raise DatasetError(f"{path} holds no tensors")
    for module, sides in found.items():
        if len(sides) < 2:
            raise DatasetError(f"{path}: {module} has only {next(iter(sides))}; both A and B are needed")
    return {module: (sides["A"], sides["B"]) for module, sides in sorted(found.items())}


def _orthonormal(columns: np.ndarray, orthonormalise: bool, where: str) -> np.ndarray:
    """Return ``columns`` in float32 if they are orthonormal, else, with ``orthonormalise``, others of the same span."""
    gram = columns.T @ columns
    if np.abs(gram - np.eye(len(gram))).max() <= ORTHONORMAL_TO:
        return columns.astype(np.float32)
    if not orthonormalise:
        raise DatasetError(f"{where} is not orthonormal; orthonormalise=true makes it so (an M trained on it is lost)")
    q, r = np.linalg.qr(columns)
    diagonal = np.abs(np.diagonal(r))
    if columns.shape[1] > columns.shape[0] or diagonal.min() <= ORTHONORMAL_TO * diagonal.max():
        raise DatasetError(
            f"{where} has linearly dependent columns; it spans less than its {columns.shape[1]} dimensions"
        )
    return q.astype(np.float32)
