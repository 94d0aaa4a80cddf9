"""The options and the result of every extractor, and the weights that make irls and joint robust."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.core import Core


@dataclass(frozen=True)
class Options:
    """How the iterative extractors (irls, joint) weigh and stop; the others ignore these."""

    power: float = 1.0  # α of Σ (ε² + ρ_i²)^(α/2), in (0, 2]; 2: least squares
    epsilon: float = 1e-3  # ε relative to the median norm of the updates
    tolerance: float = 1e-10  # stop when the objective falls by less than this, relatively
    max_iterations: int = 100

    def __post_init__(self) -> None:
        if not (0 < self.power <= 2 and self.epsilon >= 0 and self.tolerance >= 0 and self.max_iterations >= 1):
            raise ValueError(f"{self}: power in (0, 2], epsilon and tolerance not negative, at least one iteration")


@dataclass(frozen=True)
class Solution:
    """A subspace in core coordinates."""

    left: np.ndarray  # p × d orthonormal
    right: np.ndarray  # q × d orthonormal
    weights: np.ndarray  # (k,), sum 1
    objectives: tuple[float, ...]  # one per iteration, falling
    converged: bool
    singular_values: np.ndarray | None = None  # (d,) if left and right are singular vectors of one matrix


def equal_weights(core: Core) -> np.ndarray:
    """Return weights (k,) that sum to 1, equal over updates that are not zero (over all, if all are)."""
    counts = core.norms > 0
    counts = counts if counts.any() else ~counts
    return counts / counts.sum()


def smoothing(epsilon: float, norms: np.ndarray) -> float:
    """Return ε in units of the updates: ``epsilon`` times the median norm of those that are not zero.

    It is never below rounding, so that a residual of exactly 0 cannot get infinite weight when ``epsilon`` is 0.
    """
    norms = norms[norms > 0]
    return max(epsilon, float(np.finfo(float).eps)) * (float(np.median(norms)) if len(norms) else 1.0)


def robust_objective(residuals: np.ndarray, smooth: float, power: float) -> float:
    """Return Σ (ε² + ρ_i²)^(α/2)."""
    return float(np.sum((smooth**2 + residuals**2) ** (power / 2)))


def robust_weights(residuals: np.ndarray, smooth: float, power: float) -> np.ndarray:
    """Return (ε² + ρ_i²)^((α−2)/2) / Σ: with these, weighted least squares majorise the robust objective at ρ."""
    smoothed = smooth**2 + residuals**2
    weights = (smoothed / smoothed.min()) ** (power / 2 - 1)  # at most 1: no overflow
    return weights / weights.sum()


def squares(rows: np.ndarray) -> np.ndarray:
    """Return the squared length of every row of a matrix."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows))


def settled(objectives: list[float], tolerance: float) -> bool:
    """Return whether the last step lowered the objective by no more than the share ``tolerance``."""
    return len(objectives) > 1 and objectives[-2] - objectives[-1] <= tolerance * objectives[-2]
