"""How far apart two subspaces are: principal angles, the paper's λ, and the overlap of operators.

The paper's distance d(S, S') = min ‖Sx − S'x'‖ / (‖Sx‖ + ‖S'x'‖) depends on the two column spaces only: it is
sin(θ₁/2), θ₁ their smallest principal angle. Its generalised eigenvalue problem has the eigenvalues λ = 1 − cos θ_j and
1 + cos θ_j (and 1, as often as the dimensions differ), so the smallest is 2 d². Everything here comes from the angles:
solving the eigenvalue problem loses small ones to rounding.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import orth

from megasynth_train.subspace.core import Core

_ORTHONORMAL = 1e-13  # largest error of BᵀB up to which a basis is used as it is; those of float32 files are larger


def principal_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the principal angles in radians, smallest first, between the column spaces of m × d and m × d' matrices.

    There are min(d, d') of them; columns need not be orthonormal, and linearly dependent ones (to rounding) count once.
    Errors are about 1e-15 even for tiny angles: sines and cosines come from singular values, each angle from both.
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(f"both subspaces must lie in the same space, got matrices {first.shape} and {second.shape}")
    large, small = sorted((_orthonormal(first), _orthonormal(second)), key=lambda basis: -basis.shape[1])
    if not small.shape[1]:
        return np.zeros(0)
    overlap = large.T @ small
    cosines = np.linalg.svd(overlap, compute_uv=False)
    sines = np.linalg.svd(small - large @ overlap, compute_uv=False)
    return np.arctan2(sines[::-1], cosines)


def lambdas(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 − cos θ and 1 + cos θ of angles in radians: the eigenvalues of the paper's problem, in that order."""
    return 2.0 * np.sin(angles / 2.0) ** 2, 2.0 * np.cos(angles / 2.0) ** 2


def operator_cosines(angles_out: np.ndarray, angles_in: np.ndarray) -> np.ndarray:
    """Return the principal cosines, largest first, between the operator spaces {A M Bᵀ} and {A' M' B'ᵀ}.

    They are all products cos θ_i cos φ_j of the angles θ of the output side (A, A') and φ of the input side (B, B'),
    both in radians.
    """
    return np.sort(np.outer(np.cos(angles_out), np.cos(angles_in)), axis=None)[::-1]


def energy_overlap(core: Core, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return ‖Aᵀ dW_i B‖² / ‖dW_i‖² of every adapter of a layer, 0 for a zero update.

    ``left`` A (m × d) and ``right`` B (n × d') are orthonormal bases of the output and input side, of any attribute.
    """
    outputs, inputs = left.T @ core.left, right.T @ core.right
    inside = np.array(
        [
            np.linalg.norm((outputs @ factor_left) @ (inputs @ factor_right).T) ** 2
            for factor_left, factor_right in zip(core.factors_left, core.factors_right, strict=True)
        ]
    )
    energy = core.norms**2
    return np.divide(inside, energy, out=np.zeros_like(inside), where=energy > 0)


def _orthonormal(basis: np.ndarray) -> np.ndarray:
    """Return orthonormal columns with the column space of ``basis``; ``basis`` itself if it is orthonormal."""
    basis = np.asarray(basis, dtype=np.float64)
    error = np.abs(basis.T @ basis - np.eye(basis.shape[1])).max(initial=0.0)
    return basis if error <= _ORTHONORMAL else np.asarray(orth(basis))
