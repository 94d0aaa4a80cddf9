"""The layout of the paper's training data: one folder per scene, cameras in ``opencv_cameras.json``.

::

    <scene>/opencv_cameras.json
        {"frames": [{"file_path", "w2c": 4×4, "fx", "fy", "cx", "cy", "w", "h"}, …]}
    <scene>/<file_path>                               e.g. renderings/00000000_rgba.png, RGB or RGBA
    <scene>/<file_path with rgba → depth, .exr>       planar z

Pixels and axes are as in our own datasets: OpenCV, the centre of the first pixel at (0.5, 0.5). The released loader
reads cx, cy in the same way (it adds the half pixel), but unprojects without the half pixel.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import read_json
from megasynth_attr.core.names import inside
from megasynth_train.data.depth_files import DepthFile
from megasynth_train.data.layouts.view import FileView, Layout, Reading, SceneViews, matrix, pinhole, pixels, usable

CAMERAS_FILE = "opencv_cameras.json"
_NUMBERS = ("fx", "fy", "cx", "cy", "w", "h")


def read_scene(folder: Path, reading: Reading) -> SceneViews:
    """Return a scene; DatasetError if its cameras file is missing or damaged, or the frames differ in size."""
    file = folder / CAMERAS_FILE
    return usable([_view(folder, *frame, reading) for frame in frames_of(file)], str(file), reading)


def frames_of(file: Path) -> list[tuple[dict[str, Any], str]]:
    """Return the entries of a cameras file's list ``frames``, each with words for where it is; DatasetError for others
    than tables.
    """
    entries = read_json(file).get("frames")
    if not isinstance(entries, list) or not entries:
        raise DatasetError(f"{file} is damaged: it has no list of frames")
    if (bad := next((i for i, entry in enumerate(entries) if not isinstance(entry, dict)), None)) is not None:
        raise DatasetError(f"{file}, frame {bad} is damaged: it is no table of names and values")
    return [(entry, f"{file}, frame {i}") for i, entry in enumerate(entries)]


def _view(folder: Path, entry: dict[str, Any], where: str, reading: Reading) -> FileView:
    try:
        name = inside(PurePosixPath(), str(PurePosixPath(entry["file_path"])), where)
        fx, fy, cx, cy, width, height = (float(entry[key]) for key in _NUMBERS)
        size = pixels(width, height, where)
        pose = entry["w2c"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{where} is damaged ({type(error).__name__}: {error})") from None
    depth = str(name.with_suffix(".exr")).replace("rgba", "depth")
    return FileView(
        folder / name,
        size,
        pinhole(fx, fy, cx, cy),
        matrix(pose, (4, 4), f"{where}: w2c"),
        DepthFile(folder / depth, reading.depth_unit or 1.0),
    )


LAYOUT = Layout("paper", "the paper's", CAMERAS_FILE, read_scene, digested=CAMERAS_FILE)
