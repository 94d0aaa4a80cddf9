"""Random halves of the adapters: how alike are two bases of the same attribute, compared with those of two attributes?

The halves are the same in all layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from megasynth_train.subspace.analysis import LayerKey, SplitRow
from megasynth_train.subspace.angles import principal_angles
from megasynth_train.subspace.core import Core, Update, core_coordinates
from megasynth_train.subspace.extract import Options
from megasynth_train.subspace.held_out import mined

Halves = tuple[tuple[int, ...], tuple[int, ...]]  # positions of adapters among those of their attribute
Sides = tuple[np.ndarray, np.ndarray]  # a basis: m × d of the outputs, n × d of the inputs


def draw_halves(datasets: Mapping[str, Sequence[str]], splits: int, seed: int) -> dict[str, tuple[Halves, ...]]:
    """Return ``splits`` random pairs of halves of every attribute with at least two datasets.

    ``datasets``: that of each of its adapters. Other seeds of one dataset are in the same half: what they share, the
    halves would share. An odd dataset is left out, so that both halves have equally many. An attribute's halves depend
    on its name, its datasets' count and order, and ``seed`` only.
    """
    return {
        name: tuple(_one_draw(name, of_adapters, split, seed) for split in range(splits))
        for name, of_adapters in datasets.items()
        if len(set(of_adapters)) >= 2
    }


def _one_draw(name: str, datasets: Sequence[str], split: int, seed: int) -> Halves:
    known = list(dict.fromkeys(datasets))
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    order = np.random.default_rng([seed, number, split]).permutation(len(known)).tolist()
    size = len(known) // 2
    first, second = ({known[i] for i in part} for part in (order[:size], order[size : 2 * size]))
    return tuple(i for i, of in enumerate(datasets) if of in first), tuple(
        i for i, of in enumerate(datasets) if of in second
    )


def split_rows(
    layer: LayerKey,
    cores: Mapping[str, Core],
    dimensions: Mapping[str, int],
    halves: Mapping[str, Sequence[Halves]],
    extractor: str,
    options: Options,
) -> tuple[SplitRow, ...]:
    """Return the angles between both halves of every attribute, and between first halves of every two attributes.

    ``dimensions``: those of each attribute's basis in this layer; a half with less room has fewer.
    """
    rows = []
    for split in range(max((len(draws) for draws in halves.values()), default=0)):
        bases = {
            name: [_basis_of(cores[name], half, dimensions[name], extractor, options) for half in draws[split]]
            for name, draws in halves.items()
        }
        for name, (first, second) in bases.items():
            rows.append(SplitRow(layer, split, name, name, *angles_of(first, second)))
        in_full = {
            name: (cores[name].left @ left, cores[name].right @ right) for name, ((left, right), _) in bases.items()
        }
        for one, other in combinations(bases, 2):
            rows.append(SplitRow(layer, split, one, other, *angles_of(in_full[one], in_full[other])))
    return tuple(rows)


def angles_of(one: Sides, other: Sides) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the principal angles of outputs and inputs in degrees, smallest first; empty without columns."""
    return _degrees(one[0], other[0]), _degrees(one[1], other[1])


def _degrees(one: np.ndarray, other: np.ndarray) -> tuple[float, ...]:
    if not (one.shape[1] and other.shape[1]):
        return ()
    return tuple(np.degrees(principal_angles(one, other)).tolist())


def _basis_of(core: Core, half: Sequence[int], dimension: int, extractor: str, options: Options) -> Sides:
    """Return the basis of some of a core's adapters, in the coordinates of the core."""
    small = core_coordinates([Update(core.factors_left[i], core.factors_right[i]) for i in half])
    if not dimension:
        return np.zeros((core.left.shape[1], 0)), np.zeros((core.right.shape[1], 0))
    left, right = mined(dimension, extractor, options)(small.single())
    return small.left @ _orthonormal(left), small.right @ _orthonormal(right)


def _orthonormal(single: np.ndarray) -> np.ndarray:
    """Return columns of single precision, orthonormal to 1e-6, as such to 1e-15."""
    return np.linalg.qr(single.astype(np.float64))[0]
