"""Cameras and points in the world, as arrays: what trajectory plots and 3-D pages draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megasynth_attr.core.pages.clouds import Cloud
from megasynth_attr.dataset.reprojection import camera_centre


def frustum(
    intrinsics: np.ndarray, camera_from_world: np.ndarray, width_px: int, height_px: int, depth: float
) -> np.ndarray:
    """Return 5×3 world points: the camera centre, then the image's corners pushed out to planar depth ``depth``.

    Corners are the outer corners of the image, pixel coordinates (0, 0), (W, 0), (W, H), (0, H): top left first and
    clockwise as the camera sees them. ``intrinsics`` 3×3 in pixels, ``camera_from_world`` 4×4 (OpenCV), scene units.
    """
    corners = np.array([[0, 0], [width_px, 0], [width_px, height_px], [0, height_px]], dtype=np.float64)
    return np.concatenate(
        [camera_centre(camera_from_world)[None], lift(corners, np.full(4, depth), intrinsics, camera_from_world)]
    )


def lift(pixels: np.ndarray, depth_z: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray) -> np.ndarray:
    """Return N×3 world points of N×2 pixel coordinates (u, v) at planar depths (N,)."""
    rays = (pixels - intrinsics[:2, 2]) / np.array([intrinsics[0, 0], intrinsics[1, 1]])
    camera = np.concatenate([rays * depth_z[:, None], depth_z[:, None]], axis=1)
    return camera @ camera_from_world[:3, :3] + camera_centre(camera_from_world)


def view_points(
    depth_z: np.ndarray, rgb: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray, limit: int
) -> Cloud:
    """Return at most ``limit`` points of one view, evenly spread over its valid pixels; depth is at pixel centres."""
    rows, columns = np.nonzero(depth_z > 0)
    step = max(1, -(-len(rows) // limit))
    # A stride prime to the row length would still align in columns for some sizes; a fixed shuffle never does.
    chosen = np.random.default_rng(0).permutation(len(rows))[::step]
    rows, columns = rows[chosen], columns[chosen]
    pixels = np.stack([columns + 0.5, rows + 0.5], axis=1)
    points = lift(pixels, depth_z[rows, columns].astype(np.float64), intrinsics, camera_from_world)
    return Cloud(points, rgb[rows, columns])


def joined(clouds: Sequence[Cloud]) -> Cloud:
    """Return all points of at least one cloud, in their order."""
    return Cloud(np.concatenate([c.points for c in clouds]), np.concatenate([c.colours for c in clouds]))


def is_closed(centres: np.ndarray) -> bool:
    """Return whether a path of N×3 positions ends where it began: its gap is no longer than its longest steps."""
    if len(centres) < 3:
        return False
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    return bool(np.linalg.norm(centres[0] - centres[-1]) <= 1.5 * steps.max())
