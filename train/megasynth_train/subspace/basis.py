"""A basis: for every layer the directions of outputs and inputs that attributes were found to occupy.

In a layer with m outputs and n inputs an update is dW = A M Bᵀ with A = ``left`` (m × D), B = ``right`` (n × D) fixed
and M (D × D) free. The columns of an attribute are contiguous, so that attributes can be selected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from megasynth_attr import __version__
from megasynth_attr.core.codec import canonical_json
from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.errors import ConfigError
from megasynth_train.subspace.qr import positive_qr

NAMES = ("A", "B", "S", "mean")  # of a layer's arrays in files
Columns = Mapping[str, Mapping[str, tuple[int, int]]]  # module → attribute → first column, end


@dataclass(frozen=True, eq=False)
class LayerBasis:
    """One layer's directions; all arrays float32."""

    left: np.ndarray  # m × D, directions of outputs
    right: np.ndarray  # n × D, directions of inputs
    scales: np.ndarray  # D, the singular values that belong to the columns
    mean: np.ndarray | None = None  # D × D, block-diagonal: each attribute's mean over its adapters of Aᵀ dW B

    @property
    def dimension(self) -> int:
        """Return D."""
        return int(self.left.shape[1])

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays by the last part of their names in a file, one of NAMES."""
        arrays = zip(NAMES, (self.left, self.right, self.scales, self.mean), strict=True)
        return {name: array for name, array in arrays if array is not None}

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> LayerBasis:
        """Return the layer of such arrays; KeyError if one other than the mean is missing."""
        return cls(tensors["A"], tensors["B"], tensors["S"], tensors.get("mean"))


@dataclass(frozen=True, eq=False)
class Basis:
    """The layers with at least one dimension, and where each attribute's columns are; ValueError if these disagree.

    ``base`` is the model it belongs to: size, config, weights_sha256 (any of them may be missing in an imported basis).
    ``record`` is its origin: extractor, options, adapters' hashes, seeds, version, ``ranks`` (module → attribute →
    dimensions, including modules without any) and ``orthonormal``: whether all columns of a layer are orthonormal
    together, or only those of each attribute among themselves.
    """

    layers: Mapping[str, LayerBasis]
    columns: Columns
    attributes: tuple[str, ...]
    base: Mapping[str, Any]
    record: Mapping[str, Any]

    def __post_init__(self) -> None:
        if len(set(self.attributes)) != len(self.attributes) or not self.attributes:
            raise ValueError(f"a basis needs attributes with different names, not {list(self.attributes)}")
        if self.layers.keys() != self.columns.keys():
            raise ValueError(f"columns are given for {len(self.columns)} layers, vectors for {len(self.layers)}")
        for module, layer in self.layers.items():
            _check_shapes(module, layer)
            _check_columns(module, layer.dimension, self.columns[module], self.attributes)

    @property
    def orthonormal(self) -> bool:
        """Return whether all columns of a layer are orthonormal together, not only those of each attribute."""
        return bool(self.record.get("orthonormal", False))

    def dimension(self, module: str) -> int:
        """Return D of a layer, 0 for one that is not in the basis."""
        return self.layers[module].dimension if module in self.layers else 0

    @cached_property
    def sha256(self) -> str:
        """Return the SHA-256 (hex) of all vectors and columns, to which a trained M is bound.

        A selection of attributes has its own hash, the same however it was made.
        """
        digest = hashlib.sha256()
        for module in sorted(self.layers):
            for name, array in self.layers[module].tensors().items():
                digest.update(f"{module}.{name} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array, "<f4").data)
        digest.update(canonical_json({"columns": self.columns, "attributes": self.attributes}).encode())
        return digest.hexdigest()

    def blocks(self, module: str) -> tuple[tuple[int, int], ...]:
        """Return the ranges of columns that are orthonormal among themselves: one, or one per attribute."""
        return ((0, self.dimension(module)),) if self.orthonormal else tuple(self.columns[module].values())

    def select(self, attributes: Iterable[str]) -> Basis:
        """Return the columns of these attributes, in the basis' own order; layers without any are left out.

        If all columns are orthonormal together, those of an attribute span only what the attributes before it do not.
        Raises ConfigError for an unknown attribute or none.
        """
        wanted = set(attributes)
        for name in sorted(wanted - set(self.attributes)):
            known = ", ".join(self.attributes)
            raise ConfigError(f"the basis has no attribute {name}{nearest(name, self.attributes)}; it has {known}")
        if not wanted:
            raise ConfigError(f"choose at least one attribute of the basis: {', '.join(self.attributes)}")
        kept = tuple(name for name in self.attributes if name in wanted)
        if kept == self.attributes:
            return self
        layers, columns = {}, {}
        for module, layer in self.layers.items():
            spans = {name: span for name, span in self.columns[module].items() if name in wanted}
            index = np.concatenate([np.arange(*span) for span in spans.values()] or [np.arange(0)])
            if len(index):
                mean = None if layer.mean is None else layer.mean[np.ix_(index, index)]
                layers[module] = LayerBasis(layer.left[:, index], layer.right[:, index], layer.scales[index], mean)
                columns[module] = _beside_each_other({name: end - start for name, (start, end) in spans.items()})
        ranks = {
            module: {name: rank for name, rank in of_module.items() if name in wanted}
            for module, of_module in self.record.get("ranks", {}).items()
        }
        record = {**self.record, "ranks": ranks, "selected_from": self.sha256}
        return Basis(layers, columns, kept, self.base, record)


def ranks_of(columns: Columns, empty: Iterable[str] = ()) -> dict[str, dict[str, int]]:
    """Return the table of dimensions, module → attribute → dimensions; ``empty`` names modules without any."""
    table = {module: {name: end - start for name, (start, end) in spans.items()} for module, spans in columns.items()}
    return table | {module: {} for module in empty}


def random_basis(like: Basis, seed: int) -> Basis:
    """Return a random basis with the shapes, columns and orthonormality of ``like``, as a control.

    Every frame is uniformly (Haar) distributed and depends on ``seed`` and its layer's name only. Scales are 1.
    """
    layers = {}
    for module, layer in like.layers.items():
        rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], "big")])
        left, right = (
            np.concatenate([haar_frame(len(side), end - start, rng) for start, end in like.blocks(module)], axis=1)
            for side in (layer.left, layer.right)
        )
        layers[module] = LayerBasis(left.astype(np.float32), right.astype(np.float32), np.ones_like(layer.scales))
    record = {
        "extractor": "random",
        "seed": seed,
        "like": like.sha256,
        "ranks": like.record.get("ranks", ranks_of(like.columns)),
        "orthonormal": like.orthonormal,
        "version": __version__,
    }
    return Basis(layers, like.columns, like.attributes, like.base, record)


def haar_frame(size: int, dimension: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``dimension`` uniformly distributed orthonormal columns of length ``size``, float64."""
    return positive_qr(rng.standard_normal((size, dimension)))[0]


def _beside_each_other(widths: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    ends = np.cumsum(list(widths.values())).tolist()
    return {name: (end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def _check_shapes(module: str, layer: LayerBasis) -> None:
    size = layer.dimension if layer.left.ndim == 2 else 0
    expected = {"A": (len(layer.left), size), "B": (len(layer.right), size), "S": (size,), "mean": (size, size)}
    for name, array in layer.tensors().items():
        if not size or array.shape != expected[name]:
            raise ValueError(f"{module}.{name} is {array.shape}, which does not fit A {layer.left.shape}")
        if array.dtype != np.float32:
            raise ValueError(f"{module}.{name} is {array.dtype}, expected float32")


def _check_columns(
    module: str, dimension: int, columns: Mapping[str, tuple[int, int]], attributes: tuple[str, ...]
) -> None:
    if list(columns) != [name for name in attributes if name in columns]:
        raise ValueError(f"{module} has columns of {', '.join(columns)}; the basis has {', '.join(attributes)}")
    end = 0
    for start, stop in columns.values():
        if start != end or stop <= start:
            break
        end = stop
    if end != dimension:
        raise ValueError(f"{module}: the columns {dict(columns)} do not divide 0..{dimension}")
