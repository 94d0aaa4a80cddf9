"""The sRGB curve (IEC 61966-2-1), in NumPy: linear light to display values and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def linear_from_srgb(encoded: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return linear light from sRGB-encoded values in 0 … 1, of any shape."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return display values in 0 … 1 from linear Rec.709 values of any shape; values outside 0 … 1 are clipped."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055)
