"""Attributes' own bases side by side: as layers of the basis of all, and as a basis of chosen attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from megasynth_attr.core.errors import ConfigError
from megasynth_train.subspace.basis import Basis, LayerBasis, ranks_of
from megasynth_train.subspace.concatenate import Concatenated, concatenate

MeanOf = Callable[[str, np.ndarray, np.ndarray], np.ndarray]  # attribute, its left and right columns → d × d


def joined_layer(
    joined: Concatenated, scales: Sequence[np.ndarray], mean_of: MeanOf | None
) -> tuple[LayerBasis, dict[str, tuple[int, int]]]:
    """Return concatenated columns as a layer of a basis, and each attribute's range (those without any left out).

    ``scales``: those of the given columns, attribute after attribute. ``mean_of`` returns each attribute's block of
    the mean; None: there is no mean.
    """
    columns = {name: span for name, span in joined.columns.items() if span[1] > span[0]}
    arrays = [joined.left, joined.right, np.concatenate(scales)[joined.kept]]
    if mean_of is not None:
        mean = np.zeros((len(joined.kept), len(joined.kept)))
        for name, (start, end) in columns.items():
            block = slice(start, end)
            mean[block, block] = mean_of(name, joined.left[:, block], joined.right[:, block])
        arrays.append(mean)
    return float32_layer(*arrays), columns


def float32_layer(*arrays: np.ndarray) -> LayerBasis:
    """Return a layer of left, right, scales and, if given, the mean, as float32."""
    return LayerBasis(*(np.ascontiguousarray(array, dtype=np.float32) for array in arrays))


def concatenate_bases(bases: Sequence[Basis], orthonormalise: bool, drop_below: float) -> Basis:
    """Return one basis of several bases of one attribute each, in their order; ``concatenate`` explains the options.

    It spans what they span together, whatever their order; only columns that depend on earlier ones, to ``drop_below``,
    are dropped. The mean of an attribute is the part of its adapters' mean that its own basis holds, in the new
    columns: Aᵀ A₀ M₀ B₀ᵀ B. ConfigError if they belong to different models, or an attribute is given twice.
    """
    for basis in bases:
        if len(basis.attributes) != 1:
            raise ConfigError(f"expected bases of one attribute each, found one of {', '.join(basis.attributes)}")
        if basis.base != bases[0].base:
            raise ConfigError(
                f"the bases of {bases[0].attributes[0]} and {basis.attributes[0]} were mined from adapters of "
                "different base models; use bases of one cluster"
            )
    layers, columns = {}, {}
    for module in sorted({module for basis in bases for module in basis.layers}):
        own = {basis.attributes[0]: basis.layers[module] for basis in bases if module in basis.layers}
        parts = [(name, layer.left, layer.right) for name, layer in own.items()]
        joined = concatenate(parts, orthonormalise, drop_below)
        mean_of = _projected_mean(own) if all(layer.mean is not None for layer in own.values()) else None
        layers[module], columns[module] = joined_layer(joined, [layer.scales for layer in own.values()], mean_of)
    empty = {module for basis in bases for module in basis.record.get("ranks", {})} - layers.keys()
    record = {
        **bases[0].record,
        "adapters": [row for basis in bases for row in basis.record.get("adapters", [])],
        "ranks": ranks_of(columns, sorted(empty)),
        "orthonormal": orthonormalise or len(bases) == 1,
        **origin(bases, orthonormalise, drop_below),
    }
    return Basis(layers, columns, tuple(basis.attributes[0] for basis in bases), bases[0].base, record)


def origin(bases: Sequence[Basis], orthonormalise: bool, drop_below: float) -> dict[str, object]:
    """Return what decides the result of ``concatenate_bases``, as stored in its record."""
    given = [[*basis.attributes, basis.sha256] for basis in bases]
    return {"joined_from": given, "orthonormalised": orthonormalise, "drop_below": drop_below}


def _projected_mean(own: Mapping[str, LayerBasis]) -> MeanOf:
    def mean_of(name: str, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        layer = own[name]
        return np.asarray((left.T @ layer.left) @ layer.mean @ (layer.right.T @ right))

    return mean_of
