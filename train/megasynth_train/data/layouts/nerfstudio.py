"""nerfstudio's ``transforms.json``, as ``ns-process-data`` writes it.

::

    <scene>/transforms.json
        {"w", "h", "fl_x", "fl_y", "cx", "cy", ["k1" … "p2": 0], "frames": [{"file_path", "transform_matrix": 4×4,
         ["depth_file_path", "mask_path"]}, …], ["applied_transform": 3×4, "applied_scale", "depth_unit_scale_factor"]}

``transform_matrix`` is world-from-camera with OpenGL axes (x right, y up, z backwards). Numbers of the camera stand for
the whole file or in each frame. ``applied_transform`` is undone, so that the world is that of the original cameras;
positions were multiplied by ``applied_scale``, and so is depth, which is in 0.001 unless ``depth_unit_scale_factor``
says otherwise. A mask's black pixels have no depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import read_json
from megasynth_attr.core.names import inside
from megasynth_train.data.depth_files import DepthFile
from megasynth_train.data.layouts.paper import frames_of
from megasynth_train.data.layouts.view import (
    FileView,
    Layout,
    Reading,
    SceneViews,
    inverse,
    matrix,
    pinhole,
    pixels,
    usable,
)  # fmt: skip

TRANSFORMS = "transforms.json"
MILLIMETRES = 0.001
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_FISHEYE = "is_fisheye"  # of instant-ngp, which writes the same file
UNDISTORT = "undistort the pictures first, e.g. with colmap image_undistorter, and name its result"


def read_scene(folder: Path, reading: Reading) -> SceneViews:
    """Return a scene, its frames in the order of their names; DatasetError if something is missing or distorted."""
    file = folder / TRANSFORMS
    header = read_json(file)
    scale, stored = (
        number(header, *factor)
        for factor in (("applied_scale", str(file), 1.0), ("depth_unit_scale_factor", str(file), MILLIMETRES))
    )
    if min(scale, stored) <= 0:
        raise DatasetError(f"{file}: applied_scale={scale:g} and depth_unit_scale_factor={stored:g} must be positive")
    unit = reading.depth_unit or scale * stored
    applied = matrix(header.get("applied_transform", np.eye(4)[:3]), (3, 4), f"{file}: applied_transform")
    if np.abs(applied[:, :3] @ applied[:, :3].T - np.eye(3)).max() > 1e-3:
        raise DatasetError(
            f"{file}: applied_transform is no rotation and shift; write poses that it was not applied to"
        )
    undo = inverse(applied, f"{file}: applied_transform")
    views = []
    for entry, where in frames_of(file):
        values = {**entry, **header}  # the file's numbers come first, as there
        intrinsics, size = pinhole_camera(values, where)
        pose = matrix(values.get("transform_matrix"), (4, 4), f"{where}: transform_matrix")
        depth, mask = (path_in(folder, values, key, where) for key in ("depth_file_path", "mask_path"))
        picture = path_in(folder, values, "file_path", where)
        if picture is None:
            raise DatasetError(f"{where} is damaged: it has no file_path")
        world_from_camera = undo @ pose @ OPENCV_FROM_OPENGL
        views.append(
            FileView(
                picture,
                size,
                intrinsics,
                inverse(world_from_camera, f"{where}: transform_matrix"),
                DepthFile(depth, unit) if depth else None,
                mask,
            )
        )
    return usable(sorted(views, key=lambda view: view.picture), str(file), reading)


def pinhole_camera(values: Mapping[str, Any], where: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Return 3×3 intrinsics and (height, width) of ``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``, ``h``.

    DatasetError, beginning with ``where``, if one is missing or the lens is no pinhole.
    """
    model = values.get("camera_model", _PINHOLES[0])
    bent = [key for key in _DISTORTION if number(values, key, where, 0.0) != 0]
    if model not in _PINHOLES or bent or values.get(_FISHEYE):
        found = f"{bent[0]}={values[bent[0]]:g}" if bent else f"camera_model={model}"
        found = _FISHEYE if values.get(_FISHEYE) else found
        raise DatasetError(f"{where}: the lens distorts ({found}), and only pinhole cameras are read; {UNDISTORT}")
    fx, fy, cx, cy, width, height = (number(values, key, where) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"))
    return pinhole(fx, fy, cx, cy), pixels(width, height, where)


def number(values: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    """Return a number of a JSON table; DatasetError, beginning with ``where``, if it is missing or none."""
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DatasetError(f"{where}: {key} is {'missing' if value is None else f'{value!r}, no number'}")
    return float(value)


def path_in(folder: Path, values: Mapping[str, Any], key: str, where: str) -> Path | None:
    """Return the file in ``folder`` that a JSON table names, None if it names none; DatasetError if it leads out."""
    if (named := values.get(key)) is None:
        return None
    if not isinstance(named, str):
        raise DatasetError(f"{where}: {key} is {named!r}, no path of a file")
    return inside(folder, str(PurePosixPath(named)), f"{where}: {key}")


LAYOUT = Layout("nerfstudio", "nerfstudio's", TRANSFORMS, read_scene)
