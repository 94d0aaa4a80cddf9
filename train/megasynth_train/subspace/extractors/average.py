"""irls and svd: the subspace of one rank-d matrix that lies close to all updates."""

from __future__ import annotations

import numpy as np
from scipy.linalg import svd as full_svd

from megasynth_train.subspace.core import Core
from megasynth_train.subspace.extractors.solution import (
    Options,
    Solution,
    robust_objective,
    robust_weights,
    settled,
    smoothing,
)


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
        u, values, vt = full_svd(mean, full_matrices=False)
        u, values, vt = u[:, :dimension], values[:dimension], vt[:dimension]
        residuals = np.linalg.norm((cores - (u * values) @ vt).reshape(len(cores), -1), axis=1)
        objectives.append(robust_objective(residuals, smooth, options.power))
        converged = settled(objectives, options.tolerance)
        if converged or len(objectives) == options.max_iterations:
            return Solution(u, vt.T, weights, tuple(objectives), converged, values)
        weights = robust_weights(residuals, smooth, options.power)


def svd(core: Core, dimension: int, options: Options) -> Solution:
    """Minimise Σ_i ‖L − dW_i‖² over L of rank d: the singular vectors of the plain mean, at once."""
    k = len(core.cores)
    u, values, vt = full_svd(core.cores.mean(axis=0), full_matrices=False)
    u, values, vt = u[:, :dimension], values[:dimension], vt[:dimension]
    objective = float(np.sum((core.cores - (u * values) @ vt) ** 2))
    return Solution(u, vt.T, np.full(k, 1 / k), (objective,), True, values)
