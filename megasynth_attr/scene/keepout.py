"""Where cameras may be, as far as this is known before any camera or geometry is drawn.

Geometry is drawn to keep away from this region and cameras stay inside it, so neither factor depends on the other and
the clearance holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OutsideBall:
    """Cameras stay at distance ≥ ``radius`` from the origin (scene units)."""

    radius: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return, for N×3 points, the signed distance to the camera region; positive = outside of it."""
        return self.radius - np.linalg.norm(points, axis=-1)


@dataclass(frozen=True)
class InsideBox:
    """Cameras stay in an axis-aligned box about the origin with these half sizes (scene units)."""

    half_size: tuple[float, float, float]

    def distance(self, centres: np.ndarray, sizes: np.ndarray | float = 0.0) -> np.ndarray:
        """Return, for N points or axis-aligned boxes, the distance to the camera region (0 where they overlap)."""
        gap = np.abs(centres) - sizes / 2 - np.asarray(self.half_size)
        return np.linalg.norm(np.maximum(gap, 0), axis=-1)


CameraRegion = OutsideBall | InsideBox
