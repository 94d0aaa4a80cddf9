"""How much of what adapters learn comes from the attribute, the dataset and the seed: components of variance.

An update of unit norm, its column space and its row space (projections, scaled to unit norm) are unit vectors, and the
overlaps of ``sharing.py`` are their inner products. If such a vector is a sum of independent parts – common to all, of
its attribute, of its dataset, of its seed, its own – the inner product of two of them is expected to be the sum of the
squared lengths of the parts they share, and the squared lengths add up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PARTS = ("common", "attribute", "dataset", "seed")


@dataclass(frozen=True)
class Components:
    """Expected squared length of each part of a unit vector, and their standard errors; ``own`` is what is left of 1.

    A part that the design cannot separate (the dataset's with one seed, say) is NaN. Estimates may be negative.
    """

    values: dict[str, float]  # PARTS and "own"
    errors: dict[str, float]  # jackknife over datasets


def variance_components(
    matrix: np.ndarray, attributes: Sequence[str], datasets: Sequence[str], seeds: Sequence[int]
) -> Components:
    """Return the components of k × k overlaps, by least squares over all pairs: the method of moments.

    The overlap of a pair is fitted by 1·common + [same attribute]·attribute + [same dataset]·dataset + [same
    seed]·seed. Every name in ``datasets`` belongs to one attribute. Standard errors leave out one dataset at a time,
    with the attributes as they are: they say how far other datasets of the same attributes could move a value.
    """
    labels = [np.unique(np.asarray(of), return_inverse=True)[1] for of in (attributes, datasets, seeds)]
    matrix = np.asarray(matrix, dtype=float)
    values = _fit(matrix, labels)
    attribute, dataset, _ = labels
    variance = np.zeros(len(values))
    for code in np.unique(attribute):
        inside = np.unique(dataset[attribute == code])
        if len(inside) < 2:
            variance += np.nan
            continue
        left_out = []
        for one in inside:
            kept = dataset != one
            left_out.append(_fit(matrix[np.ix_(kept, kept)], [label[kept] for label in labels]))
        spread = np.array(left_out) - np.mean(left_out, axis=0)
        variance += (len(inside) - 1) / len(inside) * (spread**2).sum(axis=0)
    names = (*PARTS, "own")
    return Components(
        dict(zip(names, values.tolist(), strict=True)), dict(zip(names, np.sqrt(variance).tolist(), strict=True))
    )


def dataset_means(matrix: np.ndarray, datasets: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the mean overlap of every two datasets' adapters, D × D, and the datasets' names, sorted.

    Adapters of one dataset are not independent, so it is datasets whose labels a test may exchange. On the diagonal:
    the mean over pairs of different seeds, NaN with one seed.
    """
    names, codes = np.unique(np.asarray(datasets), return_inverse=True)
    member = (codes[:, None] == np.arange(len(names))).astype(float)
    off_diagonal = np.asarray(matrix, dtype=float) * (1 - np.eye(len(codes)))
    counts = member.sum(axis=0)
    pairs = np.outer(counts, counts) - np.diag(counts)
    sums = member.T @ off_diagonal @ member
    return np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=pairs > 0), names.tolist()


def _fit(matrix: np.ndarray, labels: Sequence[np.ndarray]) -> np.ndarray:
    """Return the values of PARTS and what is left of the diagonal."""
    first, second = np.triu_indices(len(matrix), 1)
    design = np.column_stack([np.ones(len(first)), *(label[first] == label[second] for label in labels)])
    varies = np.ptp(design, axis=0) > 0
    varies[0] = True
    found = np.linalg.lstsq(design[:, varies], matrix[first, second], rcond=None)[0]
    values = np.full(len(PARTS) + 1, np.nan)
    values[:-1][varies] = found
    values[-1] = np.diag(matrix).mean() - found.sum()
    return values
