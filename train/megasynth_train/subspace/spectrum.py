"""Spectrum of a cluster's mean update, and whether a drop in it is more than chance (parallel analysis).

The paper's Figures 3–34 show ``spectrum``. A drop in it need not mean a shared subspace: adapters that start from the
same ``lora_A`` and drift little share a row space whatever they learn. The null spectrum keeps each adapter's own
singular values and rotates each adapter independently, on both sides, in the layer's whole space: it is the spectrum
of the mean of adapters of the same sizes that have no directions in common. Rotating only within the space that the
cluster spans would be a wrong null: unrelated adapters are nearly orthogonal in the whole space, but cannot be so
after independent rotations in a space of their joint dimension.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from megasynth_train.subspace.core import Core
from megasynth_train.subspace.qr import gaussian_triangles

FEWER_DRAWS, FEWEST_DRAWS = 0.4, 4  # of the null's largest value alone, as a share of the spectrum's
SKEWNESS = 0.29  # of the largest singular value of a random matrix (Tracy and Widom's distribution)
STEPS = 30  # of Lanczos' method: 160 × 160 random matrices to 2e-6
_SINGLE = 1e-5  # relative rounding of single precision
_ROUNDING = 1e-6  # relative; a single adapter is its own null, which its spectrum must not exceed by a last digit


@dataclass(frozen=True)
class NullSpectrum:
    """Median and upper quantile of each singular value over the draws, as many as the spectrum has, largest first."""

    median: np.ndarray
    upper: np.ndarray


class FrameBank:
    """Haar-random frames of ``draws`` null spectra, drawn once for each size of layer and shared by its layers.

    A frame is a uniformly distributed matrix with orthonormal columns in the layer's space. Frames depend only on
    ``seed``, side and sizes, so results are the same whichever process works on a layer. With the same pairs of frames
    the nulls of all layers of one size would err together, in one run too low, in another too high. So every place has
    pairs of its own (``at``).
    """

    def __init__(self, draws: int, seed: int) -> None:
        if draws < 1:
            raise ValueError(f"a null spectrum needs at least one draw, got {draws}")
        self.draws, self.seed = draws, seed
        self._kept: dict[tuple[str, int, int, int], np.ndarray] = {}
        self._left_order = self._right_order = np.arange(draws)

    def at(self, *place: str) -> FrameBank:
        """Return a bank for one place, such as a layer and an attribute: the same frames, paired in its own order."""
        bank = copy.copy(self)
        rng = np.random.default_rng([self.seed, *(zlib.crc32(name.encode()) for name in place)])
        bank._left_order, bank._right_order = rng.permutation(self.draws), rng.permutation(self.draws)
        return bank

    def pairs(self, core: Core, draws: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the frames of both sides for the updates of a core, of the first ``draws`` draws or all.

        The side with fewer dimensions is first.
        """
        count, rank = core.svds.values.shape
        lefts = self.frames("left", len(core.left), count, rank)
        rights = self.frames("right", len(core.right), count, rank)
        for left, right in zip(self._left_order[:draws], self._right_order[:draws], strict=True):
            pair = lefts[left], rights[right]
            yield pair if lefts.shape[1] <= rights.shape[1] else pair[::-1]

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


def spectrum(core: Core, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the min(p, q) singular values of the mean of the updates, largest first.

    p and q are the sizes of the core: of all min(m, n) singular values no more can differ from zero. ``weights`` (k,)
    multiply the updates before the mean is taken.
    """
    weights = np.ones(len(core.norms)) if weights is None else weights
    left = np.concatenate([factor * w for factor, w in zip(core.factors_left, weights, strict=True)], axis=1)
    right = np.concatenate(core.factors_right, axis=1)
    return np.asarray(np.linalg.svd(left @ right.T, compute_uv=False)) / len(core.factors_left)


def null_spectrum(core: Core, bank: FrameBank, quantile: float) -> NullSpectrum:
    """Return the spectrum's median and ``quantile`` after every update is rotated by its own Haar rotations.

    The update U diag(s) Vᵀ of rank t becomes F diag(s) Gᵀ with random frames F (m × t) and G (n × t), one pair per
    adapter and draw. Values below 1e-8 of the largest are rounding (square roots of the eigenvalues of a Gram matrix).
    One draw more exceeds the r-th smallest of n in n + 1 − r of n + 1 cases, which chooses r; the largest of 5 in a
    sixth of all cases. Of so few, the largest value gets the limit of ``_limit`` if that is higher.
    """
    means = (_mean(left, right, core.svds.values) for left, right in bank.pairs(core))
    squares = np.array([np.linalg.eigvalsh(mean @ mean.T)[::-1] for mean in means])
    length = min(core.left.shape[1], core.right.shape[1])  # of the spectrum; ranks of unequal adapters are padded
    found = np.sort(np.sqrt(np.maximum(squares[:, :length], 0.0)), axis=0)
    r = math.ceil(quantile * (bank.draws + 1) - _ROUNDING)
    upper = found[min(r, bank.draws) - 1].copy()
    if r > bank.draws > 1:
        upper[0] = max(upper[0], _limit(found[:, 0], quantile))
    return NullSpectrum(np.median(found, axis=0), upper)


def significant_reweighted(core: Core, bank: FrameBank, quantile: float, weights: np.ndarray) -> int:
    """Return how many singular values of the updates' mean with ``weights`` exceed the largest one of its own null."""
    values = core.svds.values * weights[:, None]
    size = float(np.linalg.norm(values)) or 1.0  # single precision has no room for tiny ones
    single = (values / size).astype(np.float32)
    found = largest(np.stack([_mean(*frames, single) for frames in _few(core, bank)]))
    return significant(spectrum(core, weights), size * _single_limit(found, quantile))


def significant_normalised(core: Core, bank: FrameBank, quantile: float) -> int:
    """Return the same for the mean of the updates scaled to norm 1, each with the sign that lets them agree most.

    Neither an outlier nor updates of random sign hide what the others share. The null chooses its signs the same way.
    """
    norms = np.where(core.norms > 0, core.norms, np.inf)
    values = core.svds.normalised().values.astype(np.float32)
    k, rank = values.shape

    def rotated() -> Iterator[np.ndarray]:
        for left, right in _few(core, bank):
            products = (left.T @ left) * (right.T @ right) * np.multiply.outer(values.ravel(), values.ravel())
            signs = agreement(products.reshape(k, rank, k, rank).sum(axis=(1, 3)))
            yield _mean(left, right, values * signs[:, None].astype(np.float32))

    found = largest(np.stack(list(rotated())))
    return significant(spectrum(core, agreement(core.coherence()) / norms), _single_limit(found, quantile))


def agreement(cosines: np.ndarray) -> np.ndarray:
    """Return signs (k,) for k updates with these cosines (k × k): those of the leading eigenvector."""
    return np.where(np.linalg.eigh(cosines)[1][:, -1] < 0, -1.0, 1.0)


def _few(core: Core, bank: FrameBank) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the frames of the first draws, in single precision: enough for the largest value of a null."""
    draws = max(FEWEST_DRAWS, round(FEWER_DRAWS * bank.draws))
    for left, right in bank.pairs(core, draws):
        yield left.astype(np.float32), right.astype(np.float32)


def _single_limit(found: np.ndarray, quantile: float) -> np.ndarray:
    """Return the limit for largest values in single precision, as an array of 1."""
    return np.asarray([(1.0 + _SINGLE) * _limit(found, quantile)])


def _limit(found: np.ndarray, quantile: float) -> float:
    """Return what the largest singular value of one draw more stays below with probability ``quantile``.

    It varies by little and nearly as a normal distribution, so few draws (n) are enough: Student's limit, with
    the first term of Cornish and Fisher's expansion for a skew distribution.
    """
    spread = stdtrit(len(found) - 1, quantile) + SKEWNESS * (ndtri(quantile) ** 2 - 1) / 6
    return float(found.mean() + spread * np.sqrt(1 + 1 / len(found)) * found.std(ddof=1))


def largest(matrices: np.ndarray) -> np.ndarray:
    """Return the largest singular value of each of k × p × q matrices by Lanczos' method on M Mᵀ, all at once.

    A lost orthogonality of its vectors repeats values, but adds none, so it needs no correction here.
    """
    tiny = np.finfo(matrices.dtype).tiny
    transposed = matrices.transpose(0, 2, 1)
    vector = np.sum(matrices, axis=2, keepdims=True)
    vector, before = vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), tiny), np.zeros_like(vector)
    steps = min(STEPS, matrices.shape[1])
    triangle, beside = np.zeros((len(matrices), steps, steps)), np.zeros((len(matrices), 1, 1), matrices.dtype)
    for step in range(steps):
        image = matrices @ (transposed @ vector) - beside * before
        along = np.sum(image * vector, axis=1, keepdims=True)
        triangle[:, step, step] = along[:, 0, 0]
        image -= along * vector
        beside = np.linalg.norm(image, axis=1, keepdims=True)
        vector, before = image / np.maximum(beside, tiny), vector
        if step + 1 < steps:
            triangle[:, step + 1, step] = beside[:, 0, 0]
    return np.asarray(np.sqrt(np.maximum(np.linalg.eigvalsh(triangle)[:, -1], 0.0)))


def _mean(left: np.ndarray, right: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean M of rotated updates with singular ``values`` (k × r)."""
    return np.asarray((left * (values.ravel() / len(values))) @ right.T)


def significant(values: np.ndarray, upper: np.ndarray) -> int:
    """Return how many leading ``values`` exceed the upper quantile of the *largest* value of the null.

    Comparing index by index, as usual in parallel analysis, would count too many: with d shared directions the largest
    value of the rest is at index d + 1, where the null has its smaller (d + 1)-th.
    """
    return int(np.sum(values > upper[0] * (1.0 + _ROUNDING))) if len(values) else 0
