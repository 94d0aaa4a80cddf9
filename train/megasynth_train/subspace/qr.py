"""The thin QR with a unique sign, and the triangular factor of random columns."""

from __future__ import annotations

import numpy as np


def positive_qr(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Q (m × p) and R (p × d) of the thin QR whose diagonal is not negative, p = min(m, d).

    Orthonormal columns are then their own Q, nearly orthonormal ones are close to it, and the Q of Gaussian columns is
    uniformly (Haar) distributed.
    """
    q, r = np.linalg.qr(columns)
    signs = np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return q * signs, r * signs[:, None]


def gaussian_triangles(rows: int, columns: int, draws: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return draws × columns × columns: R of the thin QR of rows × columns Gaussian matrices, rows ≥ columns.

    The distribution of R is known (Bartlett's decomposition), so the large matrices themselves are never drawn.
    """
    triangles = np.triu(rng.standard_normal((*draws, columns, columns)), 1)
    diagonal = np.arange(columns)
    triangles[..., diagonal, diagonal] = np.sqrt(rng.chisquare(rows - diagonal, size=(*draws, columns)))
    return triangles
