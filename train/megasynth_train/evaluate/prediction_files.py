"""The files of a prediction: arrays, cameras, a point cloud for any viewer, and an overview picture.

::

    <out>/predictions.npz   PredictedScene's arrays and ``visible`` [S, H, W]
    <out>/cameras.json      files, poses, intrinsics and the map from the files' pixels to the network's
    <out>/points.ply        the visible points above the confidence threshold, coloured
    <out>/overview.png      input, depth and confidence by view, the points from two sides
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.files import json_bytes, storage_errors, sync_folder, write_durably
from megasynth_attr.core.run_folder import Kind, check, is_one
from megasynth_attr.core.temporary import TMP, remove_leftovers, working_folder
from megasynth_train.data.images import Picture
from megasynth_train.evaluate.overview import save_overview
from megasynth_train.evaluate.prediction import PredictedScene

FORMAT = "megasynth-attr prediction 1"
PREDICTION = Kind("prediction", "cameras.json", FORMAT, alone=False)  # other files may be in its folder
ARRAYS, CAMERAS, POINTS, OVERVIEW = "predictions.npz", PREDICTION.record, "points.ply", "overview.png"
WORLD = "the first camera (OpenCV axes: x right, y down, z forward); lengths in the network's unit"
_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])  # packed: 15 bytes per point


def check_out(out: Path, overview: bool) -> None:
    """Raise ConfigError if ``out`` is a file, or holds one that would be replaced but belongs to no prediction."""
    check(out, PREDICTION)
    written = (ARRAYS, CAMERAS, POINTS, *([OVERVIEW] if overview else []))
    if not is_one(out, PREDICTION) and (lost := [name for name in written if (out / name).exists()]):
        raise ConfigError(
            f"out={out} holds {lost[0]}, which belongs to no prediction and would be lost; choose another out="
        )


def write_prediction(
    out: Path,
    scene: PredictedScene,
    pictures: Sequence[Picture],
    keep: np.ndarray,
    record: dict[str, Any],
    *,
    overview: bool = True,
) -> None:
    """Write all files into a temporary folder inside ``out``, then put them in place of older ones.

    ``keep`` [S, H, W]: the points of points.ply; ``record``: added to cameras.json. EnvironmentProblem, with an
    earlier prediction untouched, if writing fails.
    """
    rgb = np.stack([picture.rgb for picture in pictures])
    visible = np.stack([picture.visible for picture in pictures])
    with storage_errors("the prediction", out):
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out / TMP)
        replaces = is_one(out, PREDICTION)
        with working_folder(out / TMP, "prediction") as work:
            with io.BytesIO() as buffer:  # in memory first, because NumPy's writer does not handle a full disk well
                np.savez(buffer, **asdict(scene), visible=visible)
                write_durably(work / ARRAYS, buffer.getvalue())
            write_durably(work / POINTS, ply_bytes(scene.points_world[keep], rgb[keep]))
            if overview:
                save_overview(work / OVERVIEW, scene, rgb, keep, [picture.path.name for picture in pictures])
            write_durably(work / CAMERAS, json_bytes({**record, **_cameras(scene, pictures)}))
            for path in sorted(work.iterdir()):
                path.replace(out / path.name)
            if replaces and not overview:
                (out / OVERVIEW).unlink(missing_ok=True)  # it would show an earlier prediction
        sync_folder(out)


def _cameras(scene: PredictedScene, pictures: Sequence[Picture]) -> dict[str, Any]:
    height, width = scene.depth_z.shape[1:]
    frames = [
        {
            "file": picture.path.name,
            "file_size_wh": picture.file_size_wh,
            "scale_xy": picture.scale_xy,
            "offset_xy": picture.offset_xy,
            "camera_from_world": pose.tolist(),
            "intrinsics": intrinsics.tolist(),
            "fov_x_deg": math.degrees(2 * math.atan(0.5 * width / intrinsics[0, 0])),
            "fov_y_deg": math.degrees(2 * math.atan(0.5 * height / intrinsics[1, 1])),
        }
        for picture, pose, intrinsics in zip(pictures, scene.camera_from_world, scene.intrinsics, strict=True)
    ]
    return {"width_px": width, "height_px": height, "world": WORLD, "frames": frames}


def ply_bytes(points: np.ndarray, colours: np.ndarray) -> bytes:
    """Return the binary little-endian PLY of ``points`` [N, 3] (float32) and ``colours`` [N, 3] (uint8 RGB).

    Raises ValueError for other shapes and for points that are not finite, which viewers cannot read.
    """
    if points.ndim != 2 or points.shape[1] != 3 or colours.shape != points.shape or colours.dtype != np.uint8:
        raise ValueError(f"points {points.shape} and colours {colours.dtype} {colours.shape}: need [N, 3] and uint8")
    if not np.isfinite(points).all():
        raise ValueError("a point is not finite")
    vertices = np.empty(len(points), _VERTEX)
    vertices["xyz"], vertices["rgb"] = points, colours
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {colour}" for colour in ("red", "green", "blue")),
        "end_header",
    ]
    return "\n".join(header).encode() + b"\n" + vertices.tobytes()
