"""One attribute's subspace of one layer from its adapters' updates: dW_i ≈ A M_i Bᵀ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.core import Core
from megasynth_train.subspace.extractors.average import irls, svd
from megasynth_train.subspace.extractors.joint import joint
from megasynth_train.subspace.extractors.solution import Options, Solution
from megasynth_train.subspace.extractors.spaces import grassmann, hosvd

__all__ = ["Options", "Subspace", "extract", "solve"]

_EXTRACTORS: dict[str, Callable[[Core, int, Options], Solution]] = {
    "irls": irls,
    "joint": joint,
    "svd": svd,
    "hosvd": hosvd,
    "grassmann": grassmann,
}


@dataclass(frozen=True)
class Subspace:
    """Orthonormal bases of one attribute in one layer and how well they describe each of the k updates.

    Columns are ordered by singular value, so that trailing ones may be dropped.
    """

    left: np.ndarray  # A, m × d, output side
    right: np.ndarray  # B, n × d, input side
    singular_values: np.ndarray  # (d,): of C = Σ w_i dW_i (irls, svd), or √eigenvalues of Σ w_i (Aᵀ dW_i B)(Aᵀ dW_i B)ᵀ
    mean: np.ndarray  # d × d: Aᵀ C B
    weights: np.ndarray  # (k,), sum 1
    residuals: np.ndarray  # (k,): ‖dW_i − A (Aᵀ dW_i B) Bᵀ‖ / ‖dW_i‖; 0 for a zero update
    energy_inside: np.ndarray  # (k,): ‖Aᵀ dW_i B‖² / ‖dW_i‖² = 1 − residual²; 0 for a zero update
    iterations: int
    converged: bool
    objective: float
    objectives: tuple[float, ...]  # per iteration, falling


def extract(core: Core, dimension: int, name: str, options: Options) -> Subspace:
    """Return the ``dimension``-dimensional subspace that extractor ``name`` (settings.EXTRACTORS) finds in a core.

    There are at most min(m, n, ΣR). Directions beyond the updates' rank, in which no update has energy, are arbitrary:
    their singular value is 0.
    ValueError for an unknown name or a dimension below 1.
    """
    return _described(core, solve(core, dimension, name, options))


def solve(core: Core, dimension: int, name: str, options: Options) -> Solution:
    """Return what ``extract`` finds in core coordinates, with its singular values and without the description."""
    if name not in _EXTRACTORS or dimension < 1:
        raise ValueError(f"extractor {name!r} with {dimension} dimensions: one of {', '.join(_EXTRACTORS)}, at least 1")
    room = min(core.left.shape[1], core.right.shape[1])
    solution = _EXTRACTORS[name](core, min(dimension, room), options)
    return solution if solution.singular_values is not None else _by_energy(core, solution)


def _by_energy(core: Core, solution: Solution) -> Solution:
    """Return the same subspaces with columns rotated to the principal directions of the weighted updates inside."""
    inside = core.svds.coefficients(solution.left, solution.right)  # k × d × d
    inside = inside * np.sqrt(solution.weights)[:, None, None]
    d = inside.shape[1]
    turn_left, values, _ = np.linalg.svd(inside.transpose(1, 0, 2).reshape(d, -1), full_matrices=False)
    turn_right, _, _ = np.linalg.svd(inside.transpose(2, 0, 1).reshape(d, -1), full_matrices=False)
    left, right = solution.left @ turn_left, solution.right @ turn_right
    return Solution(left, right, solution.weights, solution.objectives, solution.converged, values)


def _described(core: Core, solution: Solution) -> Subspace:
    """Return the solution in the layer's own coordinates, with every update's residual and energy."""
    assert solution.singular_values is not None
    inside = core.svds.coefficients(solution.left, solution.right)
    norms = np.where(core.norms > 0, core.norms, 1.0)
    return Subspace(
        left=core.left @ solution.left,
        right=core.right @ solution.right,
        singular_values=solution.singular_values,
        mean=np.tensordot(solution.weights, inside, axes=1),
        weights=solution.weights,
        residuals=core.svds.residuals(solution.left, solution.right) / norms,
        energy_inside=np.sum(inside**2, axis=(1, 2)) / norms**2,
        iterations=len(solution.objectives),
        converged=solution.converged,
        objective=solution.objectives[-1],
        objectives=solution.objectives,
    )
