"""The thin QR that makes orthonormal columns out of others in one way only, and that of random columns."""

from __future__ import annotations

import numpy as np


def positive_qr(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Q (m × p) and R (p × d) of the thin QR whose diagonal is not negative, p = min(m, d).

    So orthonormal columns are their own Q, nearly orthonormal ones have theirs next to them, and that of Gaussian
    columns is uniformly (Haar) distributed.
    """
    q, r = np.linalg.qr(columns)
    signs = np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return q * signs, r * signs[:, None]


def gaussian_triangles(rows: int, columns: int, draws: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return draws × columns × columns: R of the thin QR of rows × columns Gaussian matrices, rows ≥ columns.

    R has a law of its own (Bartlett's decomposition), so the matrices, large as a layer's, are never drawn.
    """
    triangles = np.triu(rng.standard_normal((*draws, columns, columns)), 1)
    diagonal = np.arange(columns)
    triangles[..., diagonal, diagonal] = np.sqrt(rng.chisquare(rows - diagonal, size=(*draws, columns)))
    return triangles
