"""The interface of all readers: a source gives scenes, a scene gives views, a view names its files and its camera."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, open_regular, sha256_of
from megasynth_attr.core.pages.words import count_text
from megasynth_attr.core.pictures import decode_levels, open_picture, read_content, read_picture
from megasynth_train.data.depth_files import RESTORE, DepthFile
from megasynth_train.data.frames import check_camera, check_last_row, over_background

_MOST_PIXELS = 1_000_000  # along a side
STAMP = "files 3"  # part of what a cached frame is known by: another number where files are read in another way


@dataclass(frozen=True)
class Reading:
    """What only the owner of the data can say about it.

    ``depth_unit``: scene units per stored number, 0 for what the layout says. ``scaled_rotation``: divide the scale out
    of rotations instead of refusing them. ``needs_depth``: leave out views without a depth file, and refuse scenes
    without any.
    """

    depth_unit: float = 0.0
    scaled_rotation: bool = False
    needs_depth: bool = True


@dataclass(frozen=True)
class FileView:
    """One view in files of its own; a ``StoredFrame``.

    ``intrinsics`` 3×3 in pixels of ``image_size_hw``, the centre of the first pixel at (0.5, 0.5);
    ``camera_from_world`` 4×4, OpenCV axes, scene units; no lens distortion. ``depth``: None if there is none. ``mask``:
    a grey picture, what is black has no depth. ``picture_is_scaled``: it is brought to ``image_size_hw``. Cameras are
    those of the pixels as stored, as all programs that write these layouts take them: EXIF orientation turns nothing.
    """

    picture: Path
    image_size_hw: tuple[int, int]
    intrinsics: np.ndarray
    camera_from_world: np.ndarray
    depth: DepthFile | None = None
    mask: Path | None = None
    picture_is_scaled: bool = False

    def decode(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rgb H×W×3 uint8 and depth H×W float32, 0 where unknown; DatasetError naming the file at fault."""
        image = read_picture(self.picture, RESTORE, turn=False).image
        height, width = self.image_size_hw
        if self.picture_is_scaled:
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        rgb = over_background(image)
        depth = np.zeros((height, width), np.float32) if self.depth is None else self.depth.read()
        for file, array in ((self.picture, rgb), (self.depth and self.depth.path, depth)):
            if array.shape[:2] != self.image_size_hw:
                expected = f"its camera is for {self.image_size_hw}"
                raise DatasetError(f"{file} has {array.shape[:2]} pixels (height, width), {expected}")
        if self.mask is not None:
            kept = decode_levels(read_content(self.mask, RESTORE), str(self.mask), RESTORE, turn=False) > 0
            if kept.shape != self.image_size_hw:
                raise DatasetError(f"{self.mask} has {kept.shape} pixels (height, width), the picture {depth.shape}")
            depth[~kept] = 0
        return rgb, depth

    def stamp(self) -> str:
        """Return the checksums of the files and how they are read; "" if one of them is missing."""
        unit = self.depth.unit if self.depth else 0
        files = [self.picture, *([self.depth.path] if self.depth else []), *([self.mask] if self.mask else [])]
        try:
            return f"{STAMP}|{'|'.join(map(sha256_of, files))}|{unit}|{self.picture_is_scaled}"
        except OSError:
            return ""

    def is_intact(self) -> bool:
        return True


@dataclass(frozen=True)
class SceneViews:
    """The views of a scene, in order, and one sentence for each kind of thing that was left out."""

    views: tuple[FileView, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How one kind of folder is recognised and read.

    ``name`` is what ``format=`` takes, ``marker`` what a scene's folder holds, a file unless ``known_by`` tells whether
    a folder is a scene. ``read`` returns the scene in a folder; DatasetError naming what is missing, damaged or not
    supported.
    """

    name: str
    title: str
    marker: str
    read: Callable[[Path, Reading], SceneViews]
    known_by: Callable[[Path], bool] | None = None
    digested: str = ""  # the file whose SHA-256 is the scene's digest; empty: what was read from all files

    def is_scene(self, folder: Path) -> bool:
        """Return whether a folder is a scene of this layout."""
        return self.known_by(folder) if self.known_by else (folder / self.marker).is_file()

    def digest(self, folder: Path, scene: SceneViews) -> str:
        """Return the SHA-256 (hex) of a scene's cameras and of which files belong to them."""
        return sha256_of(folder / self.digested) if self.digested else _digest(folder, scene)


def usable(views: Iterable[FileView], where: str, reading: Reading, skipped: Sequence[str] = ()) -> SceneViews:
    """Return a scene of these views, checked; DatasetError, beginning with ``where``, if they cannot be used."""
    kept = list(views)
    reasons = list(skipped)
    if not kept:
        raise DatasetError(f"{where}: no view is left{'; '.join(['', *reasons])}")
    if reading.scaled_rotation:
        kept = [replace(view, camera_from_world=without_scale(view.camera_from_world)) for view in kept]
    if twice := next((p for p, count in Counter(view.picture for view in kept).items() if count > 1), None):
        raise DatasetError(f"{where}: two of its frames are the same picture, {twice}; leave one of them out")
    if len(sizes := {view.image_size_hw for view in kept}) > 1:
        raise DatasetError(f"{where}: its frames differ in size {sorted(sizes)} (height, width); make them equal")
    for i, view in enumerate(kept):
        check_camera(view.intrinsics, view.camera_from_world, view.image_size_hw, f"{where}, frame {i}")
    if reading.needs_depth:
        with_depth = [view for view in kept if view.depth is not None]
        if not with_depth:
            raise DatasetError(
                f"{where}: none of its {count_text(len(kept), 'view')} has a depth file; training and evaluation need "
                "depth, python -m megasynth_train.predict does not"
            )
        if missing := len(kept) - len(with_depth):
            reasons.append(f"{count_text(missing, 'view')} without depth")
        kept = with_depth
    return SceneViews(tuple(kept), tuple(reasons))


def without_scale(camera_from_world: np.ndarray) -> np.ndarray:
    """Return the 4×4 pose with its rotation divided by its scale, the cube root of the determinant."""
    scale = np.cbrt(np.linalg.det(camera_from_world[:3, :3]))
    pose = camera_from_world.copy()
    if scale > 0 and np.isfinite(scale):  # the check of the camera refuses the others
        pose[:3, :3] /= scale
    return pose


def matrix(value: Any, shape: tuple[int, int], where: str) -> np.ndarray:
    """Return numbers from a file as a float64 matrix; DatasetError, beginning with ``where``, for any other shape."""
    try:
        if np.iscomplexobj(value):
            raise TypeError("complex numbers")
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DatasetError(f"{where} is no table of numbers") from None
    if found.shape != shape:
        raise DatasetError(f"{where} has shape {found.shape}, expected {shape}")
    return found


def inverse(world_from_camera: np.ndarray, where: str) -> np.ndarray:
    """Return the inverse of a 4×4 or 3×4 pose as 4×4; DatasetError, beginning with ``where``, if it has none."""
    if len(world_from_camera) == 4:
        check_last_row(world_from_camera, where)
    pose = np.vstack([world_from_camera[:3], [0, 0, 0, 1.0]])
    if not np.isfinite(pose).all() or abs(np.linalg.det(pose)) < 1e-12:
        raise DatasetError(f"{where} is no pose: its numbers are not finite, or its rotation is singular")
    return np.linalg.inv(pose)


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """Return 3×3 intrinsics."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def pixels(width: float, height: float, where: str) -> tuple[int, int]:
    """Return (height, width); DatasetError, beginning with ``where``, unless both are whole numbers of pixels."""
    if not all(1 <= side <= _MOST_PIXELS and side == int(side) for side in (width, height)):
        raise DatasetError(f"{where}: {width:g}×{height:g} is no size of a picture in whole pixels")
    return int(height), int(width)


def size_in_header(picture: Path) -> tuple[int, int]:
    """Return (height, width) of a picture as its file says; DatasetError if it is missing or no picture."""
    try:
        with open_regular(picture) as stored, open_picture(stored) as file:
            return file.height, file.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        image = read_picture(picture, RESTORE, turn=False).image  # which says what is wrong
        return image.height, image.width


def _digest(folder: Path, scene: SceneViews) -> str:
    record = [
        {
            "picture": view.picture.relative_to(folder).as_posix(),
            "size": view.image_size_hw,
            "intrinsics": view.intrinsics.tolist(),
            "camera_from_world": view.camera_from_world.tolist(),
            "depth": [view.depth.path.relative_to(folder).as_posix(), view.depth.unit] if view.depth else None,
            "mask": view.mask.relative_to(folder).as_posix() if view.mask else None,
        }
        for view in scene.views
    ]
    return hashlib.sha256(json_bytes({"views": record})).hexdigest()
