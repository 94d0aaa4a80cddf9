"""Scans with a depth camera, in the layout that ScanNet's reader exports.

::

    <scene>/color/<n>.jpg    depth/<n>.png    pose/<n>.txt    intrinsic/intrinsic_{color,depth}.txt

Depth is in millimetres, 16 bits; a pose is 4×4, world-from-camera, OpenCV axes, −inf where the camera was lost: such
frames are left out. Where depth is smaller than colour, frames have the size of the depth and its intrinsics, and
pictures are brought to that size: depth is never made up.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.pages.words import count_text
from megasynth_attr.core.pictures import picture_files, read_content
from megasynth_train.data.depth_files import RESTORE, DepthFile
from megasynth_train.data.images import natural_key
from megasynth_train.data.layouts.view import (
    FileView,
    Layout,
    Reading,
    SceneViews,
    inverse,
    matrix,
    size_in_header,
    usable,
)  # fmt: skip

FOLDERS = ("color", "depth", "pose", "intrinsic")
MILLIMETRES = 0.001
_SAME_SHAPE = 0.02  # relative difference of the aspects; ScanNet's own differ by 0.4 %


def read_scene(folder: Path, reading: Reading) -> SceneViews:
    """Return a scene, its frames in the order of their numbers; DatasetError if something is missing or damaged."""
    pictures, _ = picture_files(folder / "color")
    if not pictures:
        raise DatasetError(f"{folder / 'color'} holds no picture; export the scan's frames into it")
    pictures.sort(key=lambda path: natural_key(path.name))
    depths = {path.stem: path for path in (folder / "depth").iterdir() if path.suffix.lower() == ".png"}
    first_depth = next((depths[path.stem] for path in pictures if path.stem in depths), None)
    colour_size = size_in_header(pictures[0])
    size = size_in_header(first_depth) if first_depth else colour_size
    if abs(size[0] * colour_size[1] / (size[1] * colour_size[0]) - 1) > _SAME_SHAPE:
        raise DatasetError(
            f"{folder}: depth {size} and colour {colour_size} (height, width) have different shapes, so they are not "
            "of one camera; register depth to colour first"
        )
    intrinsics = _intrinsics(folder, colour_size, size)
    views, lost, unposed = [], 0, 0
    for picture in pictures:
        file = folder / "pose" / f"{picture.stem}.txt"
        if not file.is_file():
            unposed += 1
            continue
        pose = _numbers(file)
        if not np.isfinite(pose).all():
            lost += 1
            continue
        depth = depths.get(picture.stem)
        stored = DepthFile(depth, reading.depth_unit or MILLIMETRES) if depth else None
        views.append(FileView(picture, size, intrinsics, inverse(pose, str(file)), stored, None, size != colour_size))
    counted = ((lost, "whose pose is not finite: the camera was lost"), (unposed, "without a pose"))
    skipped = [f"{count_text(count, 'frame')} {why}" for count, why in counted if count]
    return usable(views, str(folder), reading, skipped)


def _intrinsics(folder: Path, colour_hw: tuple[int, int], size_hw: tuple[int, int]) -> np.ndarray:
    """Return 3×3 intrinsics for frames of ``size_hw``: of colour, or of depth where that has its own size."""
    own = folder / "intrinsic" / "intrinsic_depth.txt"
    if size_hw != colour_hw and own.is_file():
        return _numbers(own)[:3, :3]
    found = _numbers(folder / "intrinsic" / "intrinsic_color.txt")[:3, :3]
    return np.diag([size_hw[1] / colour_hw[1], size_hw[0] / colour_hw[0], 1.0]) @ found


def _numbers(file: Path) -> np.ndarray:
    """Return the 4×4 table in a text file; DatasetError if it is missing or none."""
    words = read_content(file, RESTORE).split()
    try:
        return matrix(np.array([float(word) for word in words]).reshape(-1, 4), (4, 4), str(file))
    except ValueError:
        raise DatasetError(f"{file} is damaged: it holds no 4×4 numbers; {RESTORE}") from None


LAYOUT = Layout(
    "scannet",
    "ScanNet's",
    "color/, depth/, pose/, intrinsic/",
    read_scene,
    lambda folder: all((folder / name).is_dir() for name in FOLDERS),
)
