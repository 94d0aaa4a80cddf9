"""hosvd and grassmann: the leading directions of each side separately, in closed form."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from megasynth_train.subspace.core import Core
from megasynth_train.subspace.extractors.solution import Options, Solution, equal_weights

SMALL = 100  # up to this size, computing all eigenvectors (divide and conquer) is faster than some of them


def hosvd(core: Core, dimension: int, options: Options) -> Solution:
    """Maximise Σ_i ‖Aᵀ X̂_i‖² and, separately, Σ_i ‖X̂_i B‖² over orthonormal A, B (m × d, n × d), X̂_i = dW_i / ‖dW_i‖.

    This is the truncated higher-order SVD of the normalised updates. The objective reported is that of ``joint`` with
    α = 2, Σ ‖X̂_i − A (Aᵀ X̂_i B) Bᵀ‖², which hosvd minimises only approximately.
    """
    svds = core.svds.normalised()
    left = leading(_outer(svds.left * svds.values[:, None]), dimension)
    right = leading(_outer(svds.right * svds.values[:, None]), dimension)
    objective = float(np.sum(svds.residuals(left, right) ** 2))
    return Solution(left, right, equal_weights(core), (objective,), True)


def grassmann(core: Core, dimension: int, options: Options) -> Solution:
    """Minimise Σ_i ‖(I − AAᵀ) P_i‖² over orthonormal A, P_i the projection onto dW_i's column space; B: row spaces.

    Every direction of an update counts the same, however little energy it has, and so does every update.
    """
    svds = core.svds
    left, right = leading(_outer(svds.left), dimension), leading(_outer(svds.right), dimension)
    above = svds.left - left @ (left.T @ svds.left)
    beside = svds.right - right @ (right.T @ svds.right)
    return Solution(left, right, equal_weights(core), (float(np.sum(above**2) + np.sum(beside**2)),), True)


def leading(gram: np.ndarray, dimension: int) -> np.ndarray:
    """Return the eigenvectors (p × d) of a symmetric matrix to its d largest eigenvalues, largest first."""
    size = len(gram)
    if size <= SMALL:
        vectors = np.linalg.eigh(gram)[1][:, size - dimension :]
    else:
        vectors = np.asarray(eigh(gram, subset_by_index=(size - dimension, size - 1), check_finite=False)[1])
    return np.ascontiguousarray(vectors[:, ::-1])  # products with negative strides bypass BLAS


def _outer(factors: np.ndarray) -> np.ndarray:
    """Return Σ_i F_i F_iᵀ (p × p) of factors k × p × r."""
    columns = factors.transpose(1, 0, 2).reshape(factors.shape[1], -1)
    return columns @ columns.T
