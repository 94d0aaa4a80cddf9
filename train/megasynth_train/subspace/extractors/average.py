"""irls and svd: the subspace of one rank-d matrix close to all updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.core import CompactSvds, Core
from megasynth_train.subspace.extractors.solution import (
    Options,
    Solution,
    robust_objective,
    robust_weights,
    settled,
    smoothing,
    squares,
)
from megasynth_train.subspace.extractors.spaces import leading

RELIABLE = 1e-3  # below this share of the largest singular value, vectors are not taken from the Gram matrix


def irls(core: Core, dimension: int, options: Options) -> Solution:
    """Minimise Σ_i (ε² + ‖L − dW_i‖²)^(α/2) over L of rank d; the bases are L's singular vectors (the paper's method).

    Iteratively reweighted least squares: L is the best rank-d approximation of the weighted mean C, the weights follow
    from the residuals. No iteration raises the objective. Weakness: updates that share a space but differ in sign
    cancel in C.
    """
    updates, smooth = _Updates.of(core.svds), smoothing(options.epsilon, core.norms)
    weights = np.full(len(core.norms), 1 / len(core.norms))
    objectives: list[float] = []
    while True:
        mean = updates.mean(weights)
        u = leading(mean @ mean.T, dimension)  # a third of the time of an SVD
        residuals = updates.distances(u, u.T @ mean)
        objectives.append(robust_objective(residuals, smooth, options.power))
        converged = settled(objectives, options.tolerance)
        if converged or len(objectives) == options.max_iterations:
            u, values, v = _singular_vectors(mean, u)
            return Solution(u, v, weights, tuple(objectives), converged, values)
        weights = robust_weights(residuals, smooth, options.power)


def svd(core: Core, dimension: int, options: Options) -> Solution:
    """Minimise Σ_i ‖L − dW_i‖² over L of rank d: the singular vectors of the plain mean, without iteration."""
    k, updates = len(core.norms), _Updates.of(core.svds)
    mean = updates.mean(np.full(k, 1 / k))
    u, values, v = _singular_vectors(mean, leading(mean @ mean.T, dimension))
    objective = float(np.sum(updates.distances(u, u.T @ mean) ** 2))
    return Solution(u, v, np.full(k, 1 / k), (objective,), True, values)


@dataclass(frozen=True)
class _Updates:
    """k updates X_i = left_i right_i with orthonormal rows of right_i; left_i side by side, right_i stacked."""

    left: np.ndarray  # p × kr
    right: np.ndarray  # kr × q
    count: int

    @classmethod
    def of(cls, svds: CompactSvds) -> _Updates:
        count, p, _ = svds.left.shape
        left = (svds.left * svds.values[:, None]).transpose(1, 0, 2).reshape(p, -1)
        return cls(left, svds.right.transpose(0, 2, 1).reshape(left.shape[1], -1), count)

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """Return Σ w_i X_i, p × q."""
        repeated = np.repeat(weights.astype(self.left.dtype), self.left.shape[1] // self.count)
        return (self.left * repeated) @ self.right

    def distances(self, u: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Return ‖X_i − U low‖ (k,) for orthonormal U (p × d) and low (d × q).

        It comes from the two parts (I − UUᵀ) X_i and UᵀX_i − low, so nothing cancels for similar updates.
        """
        inside = u.T @ self.left  # d × kr
        above = squares((self.left - u @ inside).T).reshape(self.count, -1).sum(axis=1)
        blocks = inside.reshape(len(inside), self.count, -1).transpose(1, 0, 2)
        beside = blocks @ self.right.reshape(self.count, -1, self.right.shape[1]) - low
        return np.sqrt(above + squares(beside.reshape(self.count, -1)))


def _singular_vectors(matrix: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the d leading left singular vectors (p × d), singular values and right singular vectors (q × d).

    ``u`` spans the left ones as the Gram matrix gives them, which is inaccurate for small singular values.
    """
    turn, values, vt = np.linalg.svd(u.T @ matrix, full_matrices=False)
    if len(values) == u.shape[1] and values[-1] > RELIABLE * values[0]:
        return u @ turn, values, vt.T
    left, values, vt = np.linalg.svd(matrix, full_matrices=False)
    d = u.shape[1]
    return left[:, :d], values[:d], vt[:d].T
