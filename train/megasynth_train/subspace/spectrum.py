"""Spectrum of a cluster's mean update, and whether a cliff in it is more than chance (parallel analysis).

The paper's Figures 3–34 are ``spectrum``. The null spectrum keeps each adapter's own singular values and turns each, on
both sides, by rotations of its own: what the mean would be of adapters of the same sizes that agree on nothing.

A cliff above the null means that something is shared, not that it was learned: adapters that start from the same
``lora_A`` and drift little share a row space whatever they learn. Only distinct recorded seeds, and the drift, exclude
that.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.basis import haar_frame
from megasynth_train.subspace.core import Core

_ROUNDING = 1e-6  # relative; a single adapter is its own null, and its spectrum must not win by a last digit


@dataclass(frozen=True)
class NullSpectrum:
    """Median and upper quantile of each singular value over the draws, as many as the spectrum has, largest first."""

    median: np.ndarray
    upper: np.ndarray


class FrameBank:
    """Haar-random frames of ``draws`` null spectra, drawn once for each size of core and kept for every layer of it.

    A frame is a dimension × rank matrix with orthonormal columns, uniform over all such. The frames depend on ``seed``,
    the side and the sizes only, not on what was asked for before: results are the same whichever process works at a
    layer. Layers of one size share their rotations, so their nulls are not independent of each other.
    """

    def __init__(self, draws: int, seed: int) -> None:
        if draws < 1:
            raise ValueError(f"a null spectrum needs at least one draw, got {draws}")
        self.draws, self.seed = draws, seed
        self._kept: dict[tuple[str, int, int, int], np.ndarray] = {}

    def frames(self, side: str, dimension: int, count: int, rank: int) -> np.ndarray:
        """Return draws × dimension × (count · rank): in each draw ``count`` independent frames beside each other."""
        key = side, dimension, count, rank
        if key not in self._kept:
            rng = np.random.default_rng([self.seed, zlib.crc32(side.encode()), dimension, count, rank])
            drawn = [[haar_frame(dimension, rank, rng) for _ in range(count)] for _ in range(self.draws)]
            self._kept[key] = np.stack([np.hstack(frames) for frames in drawn])
        return self._kept[key]


def spectrum(core: Core) -> np.ndarray:
    """Return the min(p, q) singular values of the mean of the updates, largest first: C of the first iteration.

    p and q are the sizes of the core: of C's min(m, n) singular values only so many can differ from zero.
    """
    left, right = (np.concatenate(factors, axis=1) for factors in (core.factors_left, core.factors_right))
    return np.asarray(np.linalg.svd(left @ right.T, compute_uv=False)) / len(core.factors_left)


def null_spectrum(core: Core, bank: FrameBank, quantile: float) -> NullSpectrum:
    """Return the spectrum's median and ``quantile`` after every core was turned by Haar rotations of its own.

    The core X_i = U diag(s) Vᵀ of rank t becomes F diag(s) Gᵀ with random frames F (p × t) and G (q × t), one pair per
    adapter and draw. The rotations stay in the cluster's own p × q coordinates, a space in which random frames overlap
    more than in the layer's m × n: the null is wide, and what exceeds it agrees more than any few dimensions must.
    Values below 1e-8 of the largest are rounding (square roots of the eigenvalues of a Gram matrix).
    """
    p, q = core.left.shape[1], core.right.shape[1]
    count, rank = core.svds.values.shape
    means = bank.frames("left", p, count, rank) * (core.svds.values.ravel() / count)
    means = means @ bank.frames("right", q, count, rank).swapaxes(1, 2)
    turned = means.swapaxes(1, 2)
    squares = np.linalg.eigvalsh(means @ turned if p <= q else turned @ means)[:, ::-1]
    found = np.sqrt(np.maximum(squares, 0.0))
    return NullSpectrum(median=np.median(found, axis=0), upper=np.quantile(found, quantile, axis=0))


def significant(values: np.ndarray, upper: np.ndarray) -> int:
    """Return how many leading ``values`` lie above ``upper``: indices up to the first at or below it."""
    below = np.flatnonzero(values <= upper * (1.0 + _ROUNDING))
    return int(below[0]) if len(below) else len(values)
