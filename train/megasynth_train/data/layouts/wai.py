"""WAI, the layout of MapAnything's training data.

::

    <scene>/scene_meta.json
        {"camera_convention": "opencv", "camera_model": "PINHOLE", ["w", "h", "fl_x", "fl_y", "cx", "cy"],
         "frames": [{"file_path", "transform_matrix": 4×4, "depth", …}, …], "frame_modalities": {"depth": …}}
    <scene>/depth/….exr                     planar z, scene units

``transform_matrix`` is world-from-camera with OpenCV axes. The centre of the first pixel is (0, 0) there, so half a
pixel is added to cx and cy. The camera's numbers stand for the whole file or, which has precedence, in each frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import read_json
from megasynth_train.data.depth_files import DepthFile
from megasynth_train.data.layouts.nerfstudio import path_in, pinhole_camera
from megasynth_train.data.layouts.paper import frames_of
from megasynth_train.data.layouts.view import FileView, Layout, Reading, SceneViews, inverse, matrix, usable

SCENE_META, DISTORTED = "scene_meta.json", "scene_meta_distorted.json"  # the second: before they are undistorted
_CENTRE = 0.5  # of the first pixel with us; 0 there
_IMAGE, _DEPTH = "image", "depth"


def read_scene(folder: Path, reading: Reading) -> SceneViews:
    """Return a scene, its frames in the file's order; DatasetError if something is missing, ambiguous or distorted."""
    file = folder / SCENE_META
    if not file.exists() and (distorted := folder / DISTORTED).exists():
        raise DatasetError(
            f"{distorted}: these pictures are as the lens took them, and only pinhole cameras are read; undistort them "
            f"first by the tools of WAI (MapAnything), which write {SCENE_META}"
        )
    header = read_json(file)
    if (convention := header.get("camera_convention", "opencv")) != "opencv":
        raise DatasetError(f"{file}: camera_convention is {convention!r}; WAI's is opencv: convert the poses")
    modalities = header.get("frame_modalities")
    modalities = modalities if isinstance(modalities, Mapping) else {}
    key = _depth_key(modalities, str(file))
    image_key = _frame_key(modalities, _IMAGE)
    views = []
    for entry, where in frames_of(file):
        values = {**header, **entry}
        intrinsics, size = pinhole_camera(values, where)
        intrinsics[:2, 2] += _CENTRE
        pose = matrix(values.get("transform_matrix"), (4, 4), f"{where}: transform_matrix")
        picture = path_in(folder, values, image_key, where) or path_in(folder, values, "file_path", where)
        if picture is None:
            raise DatasetError(f"{where} is damaged: it has neither {image_key} nor file_path")
        depth = path_in(folder, values, key, where)
        views.append(
            FileView(
                picture,
                size,
                intrinsics,
                inverse(pose, f"{where}: transform_matrix"),
                DepthFile(depth, reading.depth_unit or 1.0) if depth else None,
            )
        )
    return usable(views, str(file), reading)


def _depth_key(modalities: Mapping[str, Any], where: str) -> str:
    """Return a frame's key for its depth file: that of the modality called depth, or of the only one of that format."""
    keys = {
        name: _frame_key(modalities, name)
        for name, one in modalities.items()
        if isinstance(one, Mapping) and one.get("format") == _DEPTH
    }
    if _DEPTH in keys or not keys:
        return keys.get(_DEPTH, _DEPTH)
    if len(keys) > 1:
        raise DatasetError(f"{where}: several modalities are depth ({', '.join(keys)}); call the true one depth")
    return next(iter(keys.values()))


def _frame_key(modalities: Mapping[str, Any], name: str) -> str:
    """Return under which key of a frame the modality ``name`` is."""
    one = modalities.get(name)
    return str(one.get("frame_key", name)) if isinstance(one, Mapping) else name


def _is_scene(folder: Path) -> bool:
    """Return whether a folder is a scene, one that cannot be read yet included: none is left out silently."""
    return any((folder / name).is_file() for name in (SCENE_META, DISTORTED))


LAYOUT = Layout("wai", "WAI's", SCENE_META, read_scene, _is_scene)
