"""The layout of the paper's training code.

::

    <out>/<attribute>_<kk>/<tttsss>/opencv_cameras.json
    <out>/<attribute>_<kk>/<tttsss>/renderings/00000000_rgba.png
    <out>/<attribute>_<kk>/<tttsss>/renderings/00000000_depth.exr   float32, channels R = G = B, background 1e10

``frames[]`` holds file_path, w, h, fx, fy, cx, cy (pixels, centre of the first pixel at 0.5) and w2c (4×4, OpenCV).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megasynth_attr.core.files import json_bytes, write_durably
from megasynth_attr.dataset.export.target import place_file
from megasynth_attr.dataset.images import write_exr
from megasynth_attr.dataset.reader import SceneData

BACKGROUND = np.float32(1e10)


def write_scene(folder: Path, scene: SceneData, link: bool) -> None:
    """Write one scene as ``folder``, its pictures hard-linked or copied."""
    (folder / "renderings").mkdir(parents=True)
    frames = []
    for view in scene.views:
        name = f"renderings/{view.index:08d}_rgba.png"
        place_file(view.file("rgb"), folder / name, link)
        depth = view.depth_z
        depth = np.where(depth > 0, depth, BACKGROUND)
        write_exr(folder / f"renderings/{view.index:08d}_depth.exr", {channel: depth for channel in "RGB"})
        size = {"w": view.width_px, "h": view.height_px}
        pinhole = dict(zip(("fx", "fy", "cx", "cy"), view.pinhole, strict=True))
        frames.append({"file_path": name, **size, **pinhole, "w2c": view.camera_from_world.tolist()})
    write_durably(folder / "opencv_cameras.json", json_bytes({"frames": frames}))
