"""Do adapters of one attribute share more than adapters of different attributes? Pairwise overlaps and a label test.

Nothing is mined here: the overlaps are between single adapters, so they depend on no choice of extractor or dimension.
If attributes had no effect, every assignment of adapters to attributes would fit as well as the true one; the
permutation test counts how many do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.core import Core


@dataclass(frozen=True)
class Overlaps:
    """Overlaps of the k adapters of one layer, each k × k and symmetric, and what two random adapters would give."""

    out: np.ndarray  # mean cos² of the principal angles between their column spaces
    inner: np.ndarray  # the same between their row spaces
    coherence: np.ndarray  # ⟨dW_i, dW_j⟩ / (‖dW_i‖ ‖dW_j‖); chance 0
    out_chance: np.ndarray
    inner_chance: np.ndarray


@dataclass(frozen=True)
class LabelTest:
    """Mean overlap of pairs with the same and with different labels, and the p-value of their difference."""

    within: float
    between: float
    p_value: float
    permutations: int  # relabellings tried, the true one included


def overlaps(core: Core, outputs: int, inputs: int) -> Overlaps:
    """Return the overlaps of all pairs of adapters of a layer with ``outputs`` × ``inputs`` weights.

    All directions have equal weight, however strong they are. Rows and columns of zero updates are zero.
    """
    svds = core.svds
    ranks = (svds.values > 0).sum(axis=1)
    smaller, larger = np.minimum.outer(ranks, ranks), np.maximum.outer(ranks, ranks)
    return Overlaps(
        out=_mean_squared_cosine(svds.left, smaller),
        inner=_mean_squared_cosine(svds.right, smaller),
        coherence=core.coherence(),
        out_chance=larger / outputs,
        inner_chance=larger / inputs,
    )


def _mean_squared_cosine(frames: np.ndarray, smaller: np.ndarray) -> np.ndarray:
    """Return Σ cos² θ / min(r_i, r_j) of k × p × r frames, whose columns beyond the rank are zero."""
    k, p, r = frames.shape
    side_by_side = frames.transpose(1, 0, 2).reshape(p, k * r)
    squares = (side_by_side.T @ side_by_side) ** 2
    sums = squares.reshape(k, r, k, r).sum(axis=(1, 3))
    return np.divide(sums, smaller, out=np.zeros((k, k)), where=smaller > 0)


def label_test(matrix: np.ndarray, labels: Sequence[str], permutations: int, rng: np.random.Generator) -> LabelTest:
    """Return the mean of ``matrix`` (k × k, symmetric) over pairs of equal and of different labels, and its p-value.

    One-sided: the share of relabellings, the true one among them, whose difference within − between is at least the
    observed one. ValueError unless there are at least two labels, and one of them twice.
    """
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    first, second = np.triu_indices(len(codes), 1)
    values = np.asarray(matrix)[first, second]
    same = codes[first] == codes[second]
    if not same.any() or same.all():
        raise ValueError("a label test needs two labels at least, and one of them at least twice")

    def means(order: np.ndarray) -> tuple[float, float]:
        equal = order[first] == order[second]
        return float(values[equal].mean()), float(values[~equal].mean())

    within, between = means(codes)
    observed = within - between
    tolerance = 1e-12 * max(np.abs(values).max(), 1e-300)  # relabellings that only rename the labels are ties
    at_least = 1
    for _ in range(permutations - 1):
        inside, outside = means(rng.permutation(codes))
        at_least += inside - outside >= observed - tolerance
    return LabelTest(within, between, at_least / permutations, permutations)
