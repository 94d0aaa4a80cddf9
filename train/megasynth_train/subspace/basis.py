"""A basis: for every layer the directions of outputs and inputs that attributes were found to occupy.

In a layer with m outputs and n inputs an update is dW = A M Bᵀ with A = ``left`` (m × D), B = ``right`` (n × D) fixed
and M (D × D) free. The columns of one attribute lie beside each other, so that it can be taken out at any time.
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
        """Return the layer of such arrays; KeyError if one is missing other than the mean."""
        return cls(tensors["A"], tensors["B"], tensors["S"], tensors.get("mean"))


@dataclass(frozen=True, eq=False)
class Basis:
    """The layers with at least one dimension, and where each attribute's columns are; ValueError if these disagree.

    ``base`` says which model it belongs to: size, config, weights_sha256 (any of them may be missing in a basis of
    another origin). ``record`` says where it comes from: extractor, options, adapters' hashes, seeds, version,
    ``ranks`` (module → attribute → dimensions, with the modules that have none) and ``orthonormal``: whether all
    columns of a layer are, or only those of each attribute among themselves.
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
        """Return whether all columns of a layer are orthonormal, not only those of each attribute."""
        return bool(self.record.get("orthonormal", False))

    def dimension(self, module: str) -> int:
        """Return D of a layer, 0 for one that is not in the basis."""
        return self.layers[module].dimension if module in self.layers else 0

    @cached_property
    def sha256(self) -> str:
        """Return the SHA-256 (hex) of all vectors and columns: what a trained M belongs to.

        A selection of attributes has a hash of its own, the same for every way to come by it.
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

        Of a basis that was made orthonormal as a whole, an attribute's columns are what it has beyond the attributes
        before it. Raises ConfigError for an unknown attribute or none.
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
    """Return random directions of the same shapes, columns and orthonormality as ``like``: the control.

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
            raise ValueError(f"{module}.{name} is {array.shape}, which does not go with A {layer.left.shape}")
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
