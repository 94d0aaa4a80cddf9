"""Spectrum of a cluster's mean update, and whether a drop in it is more than chance (parallel analysis).

The paper's Figures 3–34 show ``spectrum``. A drop in it need not mean a shared subspace: adapters that start from the
same ``lora_A`` and drift little share a row space whatever they learn. The null spectrum keeps each adapter's own
singular values and rotates each adapter independently, on both sides, in the layer's whole space: it is the spectrum
of the mean of adapters of the same sizes that have no directions in common. Rotating only within the space that the
cluster spans would be a wrong null: unrelated adapters are nearly orthogonal in the whole space, but cannot be so
after independent rotations in a space of their joint dimension.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.core import Core
from megasynth_train.subspace.qr import gaussian_triangles

_ROUNDING = 1e-6  # relative; a single adapter is its own null, which its spectrum must not exceed by a last digit


@dataclass(frozen=True)
class NullSpectrum:
    """Median and upper quantile of each singular value over the draws, as many as the spectrum has, largest first."""

    median: np.ndarray
    upper: np.ndarray


class FrameBank:
    """Haar-random frames of ``draws`` null spectra, drawn once for each size of layer and shared by its layers.

    A frame is a uniformly distributed matrix with orthonormal columns in the layer's space. Frames depend only on
    ``seed``, side and sizes, so results are the same whichever process works on a layer. Layers of one size share
    their rotations, so their nulls are not independent of each other.
    """

    def __init__(self, draws: int, seed: int) -> None:
        if draws < 1:
            raise ValueError(f"a null spectrum needs at least one draw, got {draws}")
        self.draws, self.seed = draws, seed
        self._kept: dict[tuple[str, int, int, int], np.ndarray] = {}

    def frames(self, side: str, space: int, count: int, rank: int) -> np.ndarray:
        """Return draws × q × (count · rank): in each draw ``count`` independent frames of R^space side by side.

        They are in coordinates of the space they span together, q = min(space, count · rank).
        """
        key = side, space, count, rank
        if key not in self._kept:
            rng = np.random.default_rng([self.seed, zlib.crc32(side.encode()), space, count, rank])
            self._kept[key] = np.stack([_frames(space, count, rank, rng) for _ in range(self.draws)])
        return self._kept[key]


def _frames(space: int, count: int, rank: int, rng: np.random.Generator) -> np.ndarray:
    """Return one draw of ``FrameBank.frames``: the orthonormalised blocks of a Gaussian matrix, or of its triangular
    factor if it is tall.
    """
    columns = count * rank
    tall = space >= columns
    gaussian = gaussian_triangles(space, columns, (), rng) if tall else rng.standard_normal((space, columns))
    frames, triangles = np.linalg.qr(np.stack(np.hsplit(gaussian, count)))
    signs = np.sign(np.diagonal(triangles, axis1=1, axis2=2))  # without them the columns' signs would not be random
    return np.hstack(list(frames * signs[:, None]))


def spectrum(core: Core) -> np.ndarray:
    """Return the min(p, q) singular values of the mean of the updates, largest first.

    p and q are the sizes of the core: of all min(m, n) singular values no more can differ from zero.
    """
    left, right = (np.concatenate(factors, axis=1) for factors in (core.factors_left, core.factors_right))
    return np.asarray(np.linalg.svd(left @ right.T, compute_uv=False)) / len(core.factors_left)


def null_spectrum(core: Core, bank: FrameBank, quantile: float) -> NullSpectrum:
    """Return the spectrum's median and ``quantile`` after every update is rotated by its own Haar rotations.

    The update U diag(s) Vᵀ of rank t becomes F diag(s) Gᵀ with random frames F (m × t) and G (n × t), one pair per
    adapter and draw. Values below 1e-8 of the largest are rounding (square roots of the eigenvalues of a Gram matrix).
    """
    count, rank = core.svds.values.shape
    scales = core.svds.values.ravel() / count
    lefts = bank.frames("left", len(core.left), count, rank)
    rights = bank.frames("right", len(core.right), count, rank)
    if lefts.shape[1] > rights.shape[1]:
        lefts, rights = rights, lefts
    means = ((left * scales) @ right.T for left, right in zip(lefts, rights, strict=True))
    squares = np.array([np.linalg.eigvalsh(mean @ mean.T)[::-1] for mean in means])
    length = min(core.left.shape[1], core.right.shape[1])  # of the spectrum; ranks of unequal adapters are padded
    found = np.sqrt(np.maximum(squares[:, :length], 0.0))
    # "higher": of 20 draws the largest, which another random draw exceeds once in 21 times
    return NullSpectrum(np.median(found, axis=0), np.quantile(found, quantile, axis=0, method="higher"))


def significant(values: np.ndarray, upper: np.ndarray) -> int:
    """Return how many leading ``values`` exceed the upper quantile of the *largest* value of the null.

    Comparing index by index, as usual in parallel analysis, would count too many: with d shared directions the largest
    value of the rest is at index d + 1, where the null has its smaller (d + 1)-th.
    """
    return int(np.sum(values > upper[0] * (1.0 + _ROUNDING))) if len(values) else 0
