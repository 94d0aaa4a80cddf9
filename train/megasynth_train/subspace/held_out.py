"""How much of an update lies inside a basis that was mined without it: what holds outside the sample.

A basis fitted to k unrelated updates holds d / Σ ranks of each of them, so energy inside the sample proves little. Here
each update is tested in the basis of others, on the side of the outputs and of the inputs by itself:
‖Aᵀ dW‖² / ‖dW‖² and ‖dW B‖² / ‖dW‖². A random basis of d dimensions holds d/m and d/n of it (exact, in the mean).

Who the others are is a k × k table, ``used[i, j]``: does update j take part in the basis that update i is tested in?

    np.eye(k) == 0                                          all but the adapter itself
    same(attributes) & ~same(datasets)                      its attribute, without every adapter of its dataset
    same(datasets) & (np.eye(k) == 0)                       its dataset, other seeds: the ceiling
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.core import Core
from megasynth_train.subspace.extract import Options, solve
from megasynth_train.subspace.extractors.spaces import leading

NO_VALUE = 1e-10  # directions below this share of the largest singular value are arbitrary

Miner = Callable[[Core], tuple[np.ndarray, np.ndarray]]  # bases (p × d, q × d') in the core's own coordinates


@dataclass(frozen=True)
class Shares:
    """Of k updates, each in its own basis: the share of its energy inside, and what a random one would hold, all (k,).

    NaN for a zero update, and for one without a basis.
    """

    out: np.ndarray
    inner: np.ndarray
    out_chance: np.ndarray
    inner_chance: np.ndarray


def same(labels: Sequence[str]) -> np.ndarray:
    """Return which of k labels are equal, k × k."""
    return np.equal.outer(np.asarray(labels, dtype=object), np.asarray(labels, dtype=object)).astype(bool)


def shares(core: Core, left: np.ndarray, right: np.ndarray) -> Shares:
    """Return the shares of all updates in one basis: orthonormal columns in core coordinates, p × d and q × d'.

    For a basis A, B of the layer itself these are core.leftᵀ A and core.rightᵀ B; what of it is outside the updates'
    space holds nothing of them.
    """
    out, out_chance = _one_side(core, left, core.svds.left, len(core.left))
    inner, inner_chance = _one_side(core, right, core.svds.right, len(core.right))
    return Shares(out, inner, out_chance, inner_chance)


def _one_side(core: Core, basis: np.ndarray, frames: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return share and chance (k,) of a basis (p × d) in a space of ``size``; ``frames``: vectors of the updates."""
    tested = (core.norms > 0) & bool(basis.shape[1])
    inside = np.sum(((basis.T @ frames) * core.svds.values[:, None]) ** 2, axis=(1, 2))
    share = np.divide(inside, core.norms**2, out=np.full(len(tested), np.nan), where=tested)
    return share, np.where(tested, basis.shape[1] / size, np.nan)


def held_out(core: Core, used: np.ndarray, miner: Miner) -> Shares:
    """Return the share of every update in the basis that ``miner`` finds in the updates that ``used[i]`` (k × k) marks.

    Updates with the same others share a basis. One that is to be left untested has a row without any.
    """
    used = np.asarray(used, dtype=bool)
    result = np.full((4, len(used)), np.nan)
    for others in np.unique(used[used.any(axis=1)], axis=0):
        tested = (used == others).all(axis=1)
        found = shares(core, *miner(core.subset(others)))
        result[:, tested] = np.stack([found.out, found.inner, found.out_chance, found.inner_chance])[:, tested]
    return Shares(*result)


def mined(dimension: int, extractor: str, options: Options) -> Miner:
    """Return a miner that finds what ``extract`` does, with at most ``dimension`` directions that are not arbitrary."""

    def find(core: Core) -> tuple[np.ndarray, np.ndarray]:
        solution = solve(core, dimension, extractor, options)
        assert solution.singular_values is not None
        count = int(np.sum(solution.singular_values > NO_VALUE * core.norms.max(initial=0.0)))
        return solution.left[:, :count], solution.right[:, :count]

    return find


def around_the_mean(dimension: int) -> Miner:
    """Return a miner of the leading directions of the updates' differences from their mean, each side by itself.

    Every update is first scaled to ‖dW‖ = 1, so that none decides alone. Of a single update nothing is left.
    """

    def find(core: Core) -> tuple[np.ndarray, np.ndarray]:
        svds = core.svds.normalised().select(core.norms > 0)
        left, right = svds.left * svds.values[:, None], svds.right * svds.values[:, None]
        mean = np.tensordot(left, svds.right, axes=([0, 2], [0, 2])) / max(len(left), 1)  # p × q
        return _around(left, mean, dimension), _around(right, mean.T, dimension)

    return find


def _around(frames: np.ndarray, mean: np.ndarray, dimension: int) -> np.ndarray:
    """Return the leading eigenvectors of Σ (X_i − X̄)(X_i − X̄)ᵀ, where X_i X_iᵀ is frames_i frames_iᵀ (k × p × r)."""
    columns = frames.transpose(1, 0, 2).reshape(len(mean), -1)
    gram = columns @ columns.T - len(frames) * (mean @ mean.T)
    found = leading(gram, min(dimension, len(gram)))
    there = np.einsum("pd,pq,qd->d", found, gram, found, optimize=True) > NO_VALUE * len(frames)
    return np.asarray(found[:, there])


def mean_share(spectrum: Sequence[float], norms: Sequence[float]) -> float | None:
    """Return Σ‖mean‖² / Σ‖dW_i‖², from the singular values of the mean of k updates and their norms.

    1 for equal updates, 1 / k for unrelated ones (exact, in the mean), 0 if they cancel; None if all are zero.
    """
    energy = float(np.sum(np.square(norms)))
    return len(norms) * float(np.sum(np.square(spectrum))) / energy if energy else None
