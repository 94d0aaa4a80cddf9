"""nerfstudio's ``transforms.json`` with depth supervision.

::

    <out>/<attribute>_<kk>/<tttsss>/transforms.json
    <out>/<attribute>_<kk>/<tttsss>/images/0000.png
    <out>/<attribute>_<kk>/<tttsss>/depth/0000.png|npy

Conventions as nerfstudio documents them: ``transform_matrix`` is world-from-camera with OpenGL axes (x right, y up,
z backwards), world z up, rays through pixel centres, so cx = w/2 as in the dataset. Depth is planar z. nerfstudio
multiplies what it reads by ``depth_unit_scale_factor``, 0.001 unless told otherwise; both depth formats therefore
hold thousandths of a scene unit: 16-bit PNG rounded to whole ones, npy as exact float32. 0 = no surface.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, write_durably
from megasynth_attr.dataset.export.target import place_file
from megasynth_attr.dataset.images import write_png
from megasynth_attr.dataset.reader import SceneData, View

UNITS_PER_SCENE_UNIT = 1000
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def write_scene(folder: Path, scene: SceneData, link: bool, depth: str) -> None:
    """Write one scene as ``folder``, ``depth`` "png" or "npy"; DatasetError if depth exceeds 16 bit."""
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    frames = []
    for view in scene.views:
        image_name, depth_name = f"images/{view.index:04d}.png", f"depth/{view.index:04d}.{depth}"
        place_file(view.file("rgb"), folder / image_name, link)
        _write_depth(folder / depth_name, view)
        world_from_camera = np.linalg.inv(view.camera_from_world) @ OPENGL_FROM_OPENCV
        frames.append(
            {"file_path": image_name, "depth_file_path": depth_name, "transform_matrix": world_from_camera.tolist()}
        )
    view = scene.views[0]
    header = {
        "camera_model": "OPENCV",
        "w": view.width_px,
        "h": view.height_px,
        **dict(zip(("fl_x", "fl_y", "cx", "cy"), view.pinhole, strict=True)),
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "depth_unit_scale_factor": 1 / UNITS_PER_SCENE_UNIT,
        # 3×4; from the dataset's world to this file's: none was needed, both have z up
        "applied_transform": np.eye(4)[:3].tolist(),
    }
    write_durably(folder / "transforms.json", json_bytes(header | {"frames": frames}))


def _write_depth(path: Path, view: View) -> None:
    thousandths = view.depth_z.astype(np.float64) * UNITS_PER_SCENE_UNIT
    if path.suffix == ".npy":
        np.save(path, thousandths.astype(np.float32))
        return
    if thousandths.max() > np.iinfo(np.uint16).max:
        raise DatasetError(
            f"{view.file('depth')}: depth up to {view.depth_z.max():.1f} does not fit 16-bit PNG; use depth=npy"
        )
    write_png(path, np.rint(thousandths).astype(np.uint16))
