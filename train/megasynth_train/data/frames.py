"""One frame as training sees it, and the checks that frames of every layout must pass.

Transparent pixels show white. The released loader trains on black and evaluates on white; here both see white.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import StoredFile

BACKGROUND = 255  # white wherever alpha is 0, as in VGGT's own evaluation; the maximum below relies on it
_ROTATION_TOLERANCE = 1e-3  # files with five decimals pass, a scaled or sheared matrix does not


@dataclass(frozen=True)
class FrameArrays:
    """One view: ``rgb`` H×W×3 uint8 on white; ``depth_z`` H×W float32, planar z in scene units, 0 where unknown;
    ``intrinsics`` 3×3 float64 in pixels, the centre of the first pixel at (0.5, 0.5); ``camera_from_world`` 4×4
    float64, OpenCV axes.
    """

    rgb: np.ndarray
    depth_z: np.ndarray
    intrinsics: np.ndarray
    camera_from_world: np.ndarray


def over_background(image: np.ndarray, file: StoredFile) -> np.ndarray:
    """Return H×W×3 uint8: an H×W×3 image as it is, an H×W×4 one (straight alpha) over white, rounded to nearest.

    DatasetError naming ``file`` for anything else.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
        raise DatasetError(
            f"{file} is not an 8-bit RGB or RGBA image (it holds {image.dtype} numbers of shape {image.shape})"
        )
    if image.shape[2] == 3:
        return np.ascontiguousarray(image)
    alpha = image[..., 3]
    white_where_clear = (alpha == 0) * np.uint8(BACKGROUND)
    rgb = np.empty((*alpha.shape, 3), np.uint8)
    for channel in range(3):  # loops along rows: ten times faster than along the three channels
        np.maximum(image[..., channel], white_where_clear, out=rgb[..., channel])
    rows, columns = np.nonzero((alpha > 0) & (alpha < 255))  # silhouettes: few pixels
    weight = alpha[rows, columns, None].astype(np.uint16)
    rgb[rows, columns] = (rgb[rows, columns] * weight + BACKGROUND * (255 - weight) + 127) // 255
    return rgb


def check_depth(depth_z: np.ndarray, file: StoredFile) -> np.ndarray:
    """Return ``depth_z``; DatasetError naming ``file`` if a value is NaN, infinite or negative."""
    if not (depth_z.min(initial=0) >= 0 and depth_z.max(initial=0) < np.inf):  # NaN fails both
        bad = ~np.isfinite(depth_z) | (depth_z < 0)
        raise DatasetError(
            f"{file} holds {np.count_nonzero(bad)} values that are not a depth (NaN, infinite or negative); "
            "repair or leave out this scene, or train with data.on_bad_file=skip"
        )
    return depth_z


def check_camera(
    intrinsics: np.ndarray, camera_from_world: np.ndarray, image_size_hw: tuple[int, int], where: str
) -> None:
    """Raise DatasetError, beginning with ``where``, unless this is a pinhole camera that can have taken the image.

    ``camera_from_world`` must be rigid (no scale, no mirror) and the principal point must lie inside the image.
    """
    rotation = camera_from_world[:3, :3]
    finite = np.isfinite(intrinsics).all() and np.isfinite(camera_from_world).all()
    if not finite or min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise DatasetError(f"{where}: a focal length is not positive or a number is not finite")
    distance = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if distance > _ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise DatasetError(f"{where}: the 3×3 part of world-to-camera is not a rotation (R Rᵀ: off by {distance:.2g})")
    height, width = image_size_hw
    if not (0 < intrinsics[0, 2] < width and 0 < intrinsics[1, 2] < height):
        raise DatasetError(
            f"{where}: the principal point ({intrinsics[0, 2]:g}, {intrinsics[1, 2]:g}) is outside the "
            f"{width}×{height} image"
        )
