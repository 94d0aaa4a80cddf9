"""The thin QR that makes orthonormal columns out of others in one way only."""

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
