"""A basis on disk: one safetensors file.

::

    <module>.A      m × D, float32    directions of the layer's outputs
    <module>.B      n × D, float32    directions of its inputs
    <module>.S      D, float32        singular values
    <module>.mean   D × D, float32    optional: the adapters' mean coordinates, block by block
    metadata "megasynth"              JSON: format, attributes, columns, base, record, sha256

The metadata is a single entry: the order of several is not fixed, and equal bases must give equal files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megasynth_attr.core.codec import Part, canonical_json
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.fields import read_part
from megasynth_attr.core.files import decode_json
from megasynth_train.subspace.arrays import opened
from megasynth_train.subspace.basis import NAMES, Basis, LayerBasis
from megasynth_train.vggt.weight_files import write_tensor_file

FORMAT = "megasynth-attr basis 1"
METADATA = "megasynth"
WHAT = "the basis"  # in messages about writing one
ORTHONORMAL_TO = 1e-4  # columns rounded to float32 are orthonormal to about 1e-6
_DAMAGED = "copy it again, or mine it again"


@dataclass(frozen=True)
class _Origin(Part):
    """What is used of a basis' record; the rest is shown as it is."""

    ranks: dict[str, dict[str, int]] = field(default_factory=dict)
    orthonormal: bool = False


@dataclass(frozen=True)
class _Stored(Part):
    """The metadata."""

    attributes: tuple[str, ...]
    columns: dict[str, dict[str, tuple[int, int]]]
    base: dict[str, Any]
    record: dict[str, Any]
    sha256: str = ""


def write_basis(path: Path, basis: Basis) -> None:
    """Write ``basis`` to ``path``, whole or not at all, in place of what was there.

    Raises ValueError if columns that should be orthonormal are not or a number is not finite, EnvironmentProblem if
    the file cannot be written; an older one then stays.
    """
    if problem := _numbers_problem(basis):
        raise ValueError(problem)
    tensors = {
        f"{module}.{name}": torch.from_numpy(np.require(array, requirements=["C", "W"]))
        for module, layer in basis.layers.items()
        for name, array in layer.tensors().items()
    }
    text = canonical_json(
        {
            "format": FORMAT,
            "attributes": basis.attributes,
            "columns": basis.columns,
            "base": dict(basis.base),
            "record": dict(basis.record),
            "sha256": basis.sha256,
        }
    )
    write_tensor_file(path, tensors, {METADATA: text}, WHAT)


def read_basis(path: str | Path) -> Basis:
    """Return the basis in ``path``, all of it in memory; DatasetError if it is missing, damaged or something else."""
    path = Path(path)
    tensors, metadata = _arrays(path)
    if METADATA not in metadata:
        raise DatasetError(
            f"{path} is not a basis of this project: its metadata names no attributes; convert a file with the paper's "
            "keys with python -m megasynth_train.basis from_paper=FILE out=FILE"
        )
    record = decode_json(metadata[METADATA], f"{path}: its metadata")
    if isinstance(record, dict) and record.get("format") != FORMAT:
        raise DatasetError(
            f"{path}: expected format {FORMAT!r}, found {record.get('format')!r}; was it written by another version?"
        )
    try:
        stored = read_part(_Stored, record, "its metadata")
        read_part(_Origin, stored.record, "its record")
        columns = {module: dict(_in_order(spans, stored.attributes)) for module, spans in stored.columns.items()}
        basis = Basis(_layers(tensors), columns, stored.attributes, stored.base, stored.record)
    except (DatasetError, KeyError, ValueError) as error:
        raise DatasetError(f"{path} is damaged ({type(error).__name__}: {error}); {_DAMAGED}") from None
    if basis.sha256 != stored.sha256:
        raise DatasetError(f"{path} is damaged: its content does not match its recorded checksum; {_DAMAGED}")
    if problem := _numbers_problem(basis):
        raise DatasetError(f"{path}: {problem}; {_DAMAGED}")
    return basis


def _arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors, all float32, and the metadata of a file; DatasetError if it cannot be read."""
    with opened(path, "name a basis file, such as all.safetensors of python -m megasynth_train.mine") as file:
        names = list(file.keys())
        if other := [name for name in names if file.get_slice(name).get_dtype() != "F32"]:
            raise DatasetError(
                f"{path}: {other[0]} is {file.get_slice(other[0]).get_dtype()}, expected F32; {_DAMAGED}"
            )
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def _in_order(spans: Mapping[str, Any], attributes: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Return the spans in the basis' order of attributes (JSON sorts its keys); unknown names last, to be refused."""
    return sorted(spans.items(), key=lambda item: attributes.index(item[0]) if item[0] in attributes else len(spans))


def _layers(tensors: Mapping[str, np.ndarray]) -> dict[str, LayerBasis]:
    """Return the layers, sorted by name; KeyError or ValueError for tensors that are missing or unknown."""
    of_module: dict[str, dict[str, np.ndarray]] = {}
    for key, array in tensors.items():
        module, _, name = key.rpartition(".")
        if name not in NAMES:
            raise ValueError(f"{key} is not a tensor of a basis")
        of_module.setdefault(module, {})[name] = array
    return {module: LayerBasis.of(found) for module, found in sorted(of_module.items())}


def _numbers_problem(basis: Basis) -> str:
    """Return what is wrong with the numbers (not finite, or not orthonormal where they must be), else "".

    AᵀA is compared with the identity on one random vector: a wrong column goes unnoticed with probability 0.
    """
    for module, layer in basis.layers.items():
        if not all(np.isfinite(array).all() for array in layer.tensors().values()):
            return f"{module} holds NaN or infinite numbers"
        for start, end in basis.blocks(module):
            probe = np.random.default_rng(0).standard_normal(end - start)
            for name, side in (("A", layer.left), ("B", layer.right)):
                part = side[:, start:end]
                difference = part.T @ (part @ probe) - probe
                if np.linalg.norm(difference) > ORTHONORMAL_TO * np.linalg.norm(probe):
                    return f"columns {start} to {end - 1} of {module}.{name} are not orthonormal"
    return ""
