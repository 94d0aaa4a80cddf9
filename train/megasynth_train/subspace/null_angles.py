"""Angles and overlaps of random subspaces: the chance baseline of every comparison.

Two random 64-dimensional subspaces of 1024 dimensions have λ_min near 0.53: "above 0.5" alone shows nothing.
"""

from __future__ import annotations

import numpy as np

from megasynth_train.subspace.qr import gaussian_triangles


def expected_squared_cosine(dimension: int, first: int, second: int) -> float:
    """Return the mean of cos² θ over the min(first, second) angles of random subspaces (exact): max / dimension."""
    _check(dimension, first, second)
    return max(first, second) / dimension


def expected_energy_overlap(outputs: int, inputs: int, left: int, right: int) -> float:
    """Return the mean of ‖Aᵀ dW B‖² / ‖dW‖² over random bases A (outputs × left), B (inputs × right) (exact)."""
    return left * right / (outputs * inputs)


def null_angles(dimension: int, first: int, second: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return draws × min(first, second) principal angles, radians, smallest first, of independent random subspaces.

    Only their relation matters, so the first may be fixed. With G a dimension × d Gaussian basis of the second, G₁ its
    rows inside the first and G₂ the rest, tan θ are the singular values of G₂ G₁⁺, and triangular factors are enough.
    """
    _check(dimension, first, second)
    large, small = max(first, second), min(first, second)
    if large + small > dimension:  # they intersect; the other angles are those between the complements
        rest = null_angles(dimension, dimension - large, dimension - small, draws, rng)
        return np.concatenate([np.zeros((draws, large + small - dimension)), rest], axis=1)
    if not small:
        return np.zeros((draws, 0))
    inside = gaussian_triangles(large, small, (draws,), rng)
    outside = gaussian_triangles(dimension - large, small, (draws,), rng)
    # cot θ: singular values of one factor times the inverse of the other
    cotangents = np.linalg.svd(np.linalg.solve(outside.swapaxes(1, 2), inside.swapaxes(1, 2)), compute_uv=False)
    return np.arctan2(1.0, cotangents)


class Chance:
    """Principal angles of two random subspaces, drawn once for every combination of sizes.

    Each combination of sizes has its own seed, so that its draws do not depend on the others.
    """

    def __init__(self, seed: int = 0, draws: int = 100) -> None:
        self._seed, self._draws = seed, draws
        self._known: dict[tuple[int, int, int], np.ndarray] = {}

    def angles(self, size: int, first: int, second: int) -> np.ndarray:
        """Return draws × min(first, second) angles of random subspaces of R^size, radians, smallest first."""
        key = (size, min(first, second), max(first, second))
        if key not in self._known:
            self._known[key] = null_angles(*key, self._draws, np.random.default_rng((self._seed, *key)))
        return self._known[key]

    def smallest(self, size: int, first: int, second: int) -> float:
        """Return the median over the draws of the smallest angle, radians."""
        return float(np.median(self.angles(size, first, second)[:, 0]))


def _check(dimension: int, first: int, second: int) -> None:
    if not (0 <= first <= dimension and 0 <= second <= dimension):
        raise ValueError(f"no subspaces of {first} and {second} dimensions fit into {dimension}")
