"""irls and svd: the subspace of one rank-d matrix that lies close to all updates."""

from __future__ import annotations

import numpy as np

from megasynth_train.subspace.core import Core
from megasynth_train.subspace.extractors.solution import (
    Options,
    Solution,
    robust_objective,
    robust_weights,
    settled,
    smoothing,
)
from megasynth_train.subspace.extractors.spaces import leading


def irls(core: Core, dimension: int, options: Options) -> Solution:
    """Minimise Σ_i (ε² + ‖L − dW_i‖²)^(α/2) over L of rank d; the bases are L's singular vectors (the paper's method).

    Weighted least squares in turns: L is the best rank-d approximation of the weighted mean C, the weights follow from
    the residuals. Each turn lowers the objective. Weakness: updates that share a space but not a sign cancel in C.
    """
    cores, smooth = core.cores, smoothing(options.epsilon, core.norms)
    weights = np.full(len(cores), 1 / len(cores))
    objectives: list[float] = []
    while True:
        mean = np.tensordot(weights, cores, axes=1)  # p × q
        u = leading(mean @ mean.T, dimension)  # a third of the time of an SVD; small singular values are lost, so …
        residuals = np.linalg.norm((cores - u @ (u.T @ mean)).reshape(len(cores), -1), axis=1)
        objectives.append(robust_objective(residuals, smooth, options.power))
        converged = settled(objectives, options.tolerance)
        if converged or len(objectives) == options.max_iterations:
            u, values, v = _truncated_svd(mean, dimension)  # … the result comes from one
            return Solution(u, v, weights, tuple(objectives), converged, values)
        weights = robust_weights(residuals, smooth, options.power)


def svd(core: Core, dimension: int, options: Options) -> Solution:
    """Minimise Σ_i ‖L − dW_i‖² over L of rank d: the singular vectors of the plain mean, at once."""
    u, values, v = _truncated_svd(core.cores.mean(axis=0), dimension)
    objective = float(np.sum((core.cores - (u * values) @ v.T) ** 2))
    k = len(core.cores)
    return Solution(u, v, np.full(k, 1 / k), (objective,), True, values)


def _truncated_svd(matrix: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the d leading left singular vectors (p × d), singular values and right singular vectors (q × d)."""
    u, values, vt = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :dimension], values[:dimension], vt[:dimension].T
