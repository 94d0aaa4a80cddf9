"""The layout of the paper's training code.

::

    <out>/<attribute>_<kk>/<tttsss>/opencv_cameras.json
    <out>/<attribute>_<kk>/<tttsss>/renderings/00000000_rgba.png
    <out>/<attribute>_<kk>/<tttsss>/renderings/00000000_depth.exr   float32, channels R = G = B, background 1e10

``frames[]`` holds file_path, w, h, fx, fy, cx, cy (pixels) and w2c (4×4, OpenCV). The centre of the first pixel is
(0.5, 0.5) as in the dataset; ``pixel_centre=0``, for code that takes whole numbers for pixel centres, writes cx and cy
half a pixel less. The released loader takes every folder in ``out`` for a category, so there is nothing else in it, and
it skips scenes with fewer than ten frames.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megasynth_attr.core.files import json_bytes, write_durably
from megasynth_attr.dataset.export.target import place_file
from megasynth_attr.dataset.images import write_exr
from megasynth_attr.dataset.reader import SceneData

BACKGROUND = np.float32(1e10)


def write_scene(folder: Path, scene: SceneData, link: bool, pixel_centre: float) -> None:
    """Write one scene as ``folder``, its pictures hard-linked or copied; ``pixel_centre`` is 0.5 or 0."""
    (folder / "renderings").mkdir(parents=True)
    frames = []
    for view in scene.views:
        name = f"renderings/{view.index:08d}_rgba.png"
        place_file(view.file("rgb"), folder / name, link)
        depth = view.depth_z
        depth = np.where(depth > 0, depth, BACKGROUND)
        write_exr(folder / f"renderings/{view.index:08d}_depth.exr", {channel: depth for channel in "RGB"})
        size = {"w": view.width_px, "h": view.height_px}
        fx, fy, cx, cy = view.pinhole
        pinhole = {"fx": fx, "fy": fy, "cx": cx - 0.5 + pixel_centre, "cy": cy - 0.5 + pixel_centre}
        frames.append({"file_path": name, **size, **pinhole, "w2c": view.camera_from_world.tolist()})
    write_durably(folder / "opencv_cameras.json", json_bytes({"frames": frames}))
