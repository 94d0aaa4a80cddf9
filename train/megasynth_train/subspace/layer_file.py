"""A mined layer on disk while the others are being mined: one safetensors file, its rows of the analysis in the header.

A run that was killed continues with the files that exist.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from megasynth_attr.core.codec import from_plain, to_plain
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import decode_json, storage_errors
from megasynth_attr.core.temporary import replace_atomically
from megasynth_train.subspace.arrays import opened
from megasynth_train.subspace.basis import NAMES, LayerBasis
from megasynth_train.subspace.mine_layer import LayerRows, MinedLayer

METADATA = "rows"
AGAIN = "remove it, then run the same command again"


def layer_file(folder: Path, module: str) -> Path:
    """Return the path of a layer's file."""
    return folder / f"{module}.safetensors"


def write_layer(path: Path, mined: MinedLayer) -> None:
    """Write the layer, whole or not at all; EnvironmentProblem if that fails."""
    tensors = {
        f"{basis}/{part}": np.ascontiguousarray(array)
        for basis, layer in mined.bases.items()
        for part, array in layer.tensors().items()
    }
    with storage_errors("a mined layer", path):
        replace_atomically(path, save(tensors, {METADATA: json.dumps(to_plain(mined.rows))}))


def read_rows(path: Path) -> LayerRows:
    """Return what the layer adds to the analysis; DatasetError if the file is damaged."""
    with opened(path, AGAIN) as file:
        rows = decode_json((file.metadata() or {}).get(METADATA, ""), str(path))
    return from_plain(LayerRows, rows, str(path))


def read_layer_basis(path: Path, basis: str) -> LayerBasis | None:
    """Return the layer's part of one basis, None if it has no dimensions there; DatasetError if the file is damaged."""
    with opened(path, AGAIN) as file:
        stored = set(file.keys())
        tensors = {name: file.get_tensor(f"{basis}/{name}") for name in NAMES if f"{basis}/{name}" in stored}
    return LayerBasis.of(tensors) if tensors else None


def is_whole(path: Path) -> bool:
    """Return whether the file exists and can be read to its end."""
    if not path.is_file():
        return False
    try:
        read_rows(path)
    except DatasetError:
        return False
    return True
