"""The layout of the paper's training code.

::

    <out>/<attribute>_<kk>/<tttsss>/opencv_cameras.json
    <out>/<attribute>_<kk>/<tttsss>/renderings/00000000_rgba.png
    <out>/<attribute>_<kk>/<tttsss>/renderings/00000000_depth.exr   float32, channels R = G = B, background 1e10

``frames[]`` holds file_path, w, h, fx, fy, cx, cy (pixels, centre of the first pixel at 0.5) and w2c (4×4, OpenCV).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from megasynth_attr.core.files import json_bytes, write_durably
from megasynth_attr.dataset.export.target import Target, place_file
from megasynth_attr.dataset.images import write_exr
from megasynth_attr.dataset.reader import Dataset, SceneData, View

BACKGROUND = np.float32(1e10)


def export_scene(dataset: Dataset, scene: SceneData, target: Target, link: bool) -> None:
    """Write one scene; nothing is done if it exists."""
    with target.new_folder(f"{dataset.name}/{scene.name}") as folder:
        if folder is None:
            return
        (folder / "renderings").mkdir()
        frames = []
        for view in scene.views:
            name = f"renderings/{view.index:08d}_rgba.png"
            place_file(view.file("rgb"), folder / name, link)
            depth = view.depth_z
            depth = np.where(depth > 0, depth, BACKGROUND)
            write_exr(folder / f"renderings/{view.index:08d}_depth.exr", {channel: depth for channel in "RGB"})
            frames.append(_frame_record(view, name))
        write_durably(folder / "opencv_cameras.json", json_bytes({"frames": frames}))


def _frame_record(view: View, name: str) -> dict[str, Any]:
    return {
        "file_path": name,
        "w": view.width_px,
        "h": view.height_px,
        "fx": float(view.intrinsics[0, 0]),
        "fy": float(view.intrinsics[1, 1]),
        "cx": float(view.intrinsics[0, 2]),
        "cy": float(view.intrinsics[1, 2]),
        "w2c": view.camera_from_world.tolist(),
    }
