"""One frame as training sees it, and the checks that frames of every layout must pass.

Transparent pixels show white. The released loader trains on black and evaluates on white; here both see white.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import StoredFile

_SKEW = 1e-3  # of the focal length: half a pixel at the edge of a usual picture
_FOCAL = (0.01, 1000.0)  # of a side of the picture: fields of view of 179° and of 0.06°
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


class StoredFrame(Protocol):
    """One view on disk, of any layout."""

    @property
    def picture(self) -> StoredFile: ...
    @property
    def image_size_hw(self) -> tuple[int, int]: ...
    @property
    def intrinsics(self) -> np.ndarray: ...
    @property
    def camera_from_world(self) -> np.ndarray: ...

    def decode(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ``rgb`` and ``depth_z``; DatasetError naming the file that is missing, damaged or of another size."""

    def stamp(self) -> str:
        """Return what identifies the content of both files if ``is_intact``; "" if that is not known."""

    def is_intact(self) -> bool:
        """Return whether the files hold what ``stamp`` says."""


def over_background(image: Image.Image) -> np.ndarray:
    """Return H×W×3 uint8: a picture of mode RGB as it is, one of mode RGBA (straight alpha) over white, rounded to
    nearest.
    """
    if image.mode == "RGBA":
        coloured, image = image, Image.new("RGB", image.size, "white")
        image.paste(coloured, mask=coloured)
    return np.asarray(image)


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
    for name, focal, side in zip("xy", np.diag(intrinsics), image_size_hw[::-1], strict=False):
        if not _FOCAL[0] * side <= focal <= _FOCAL[1] * side:
            raise DatasetError(
                f"{where}: the focal length {name} is {focal:g} px in a picture of {side} px, as no camera's is; give "
                "it in pixels of the picture"
            )
    if abs(intrinsics[0, 1]) > _SKEW * intrinsics[0, 0]:
        raise DatasetError(
            f"{where}: the pixels are skewed (row 1, column 2 of the intrinsics is {intrinsics[0, 1]:g}), and only "
            "cameras with rectangular pixels are read; undistort the pictures first"
        )
    distance = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if distance > _ROTATION_TOLERANCE:
        square = rotation @ rotation.T
        is_scaled = np.abs(square / max(square[0, 0], 1e-12) - np.eye(3)).max() <= _ROTATION_TOLERANCE
        advice = f" but one times {square[0, 0] ** 0.5:.4g}; scaled_rotation=true divides that out" if is_scaled else ""
        raise DatasetError(
            f"{where}: the 3×3 part of world-to-camera is not a rotation (R Rᵀ: off by {distance:.2g}){advice}"
        )
    check_last_row(camera_from_world, where)
    if np.linalg.det(rotation) < 0:
        raise DatasetError(
            f"{where}: the 3×3 part of world-to-camera is not a rotation: it mirrors, so the axes of the world or of "
            "the camera are left-handed; turn one of them round"
        )
    height, width = image_size_hw
    if not (0 < intrinsics[0, 2] < width and 0 < intrinsics[1, 2] < height):
        raise DatasetError(
            f"{where}: the principal point ({intrinsics[0, 2]:g}, {intrinsics[1, 2]:g}) is outside the "
            f"{width}×{height} image"
        )


def check_last_row(pose: np.ndarray, where: str) -> None:
    """Raise DatasetError, beginning with ``where``, unless the last row of a 4×4 pose is 0 0 0 1."""
    if np.abs(pose[3] - (0, 0, 0, 1)).max() > _ROTATION_TOLERANCE:
        row = " ".join(f"{number:g}" for number in pose[3])
        turned = ": rows and columns are exchanged" if np.abs(pose[:, 3] - (0, 0, 0, 1)).max() == 0 else ""
        raise DatasetError(f"{where}: the last row of the pose is {row} instead of 0 0 0 1{turned}")
