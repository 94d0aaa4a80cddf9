"""The layout of the paper's training data: one folder per scene, cameras in ``opencv_cameras.json``.

::

    <root>/<category>/<scene>/opencv_cameras.json     or  <root>/<scene>/…  or  <scene>/…
        {"frames": [{"file_path", "w2c": 4×4, "fx", "fy", "cx", "cy", "w", "h"}, …]}
    <scene>/<file_path>                               e.g. renderings/00000000_rgba.png, RGB or RGBA
    <scene>/<file_path with rgba → depth, .exr>       first channel: planar z; background > 1e9 or not finite

Pixels and axes are as in our own datasets: OpenCV, the centre of the first pixel at (0.5, 0.5). The released loader
reads cx, cy in the same way (it adds the half pixel), but unprojects without the half pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.exr import ExrError, decode_rarer_exr
from megasynth_attr.core.files import read_json, sha256_of
from megasynth_attr.core.names import inside
from megasynth_attr.core.pictures import read_content, read_picture
from megasynth_train.data.frames import check_camera, check_depth, over_background

CAMERAS_FILE = "opencv_cameras.json"
_FARTHEST = 1e9  # larger depths mean background
_DEPTH_CHANNELS = ("R", "Z", "V", "Y", "G", "B")  # in this order; the three colours are equal where all exist
RESTORE = "restore it, or train with data.on_bad_file=skip"
_NUMBERS = ("fx", "fy", "cx", "cy", "w", "h")


@dataclass(frozen=True)
class PaperFrame:
    """One entry of the cameras file, checked; a ``StoredFrame``."""

    image: Path
    depth: Path
    image_size_hw: tuple[int, int]
    intrinsics: np.ndarray
    camera_from_world: np.ndarray

    def decode(self) -> tuple[np.ndarray, np.ndarray]:
        rgb = over_background(read_picture(self.image, RESTORE).image)
        depth = _read_depth(self.depth)
        for file, array in ((self.image, rgb), (self.depth, depth)):
            if array.shape[:2] != self.image_size_hw:
                expected = f"{CAMERAS_FILE} says {self.image_size_hw}"
                raise DatasetError(f"{file} has {array.shape[:2]} pixels (height, width), {expected}")
        return rgb, depth

    def stamp(self) -> str:
        """Return the checksums of both files: nothing that this layout stores could stand for them."""
        try:
            return f"paper|{sha256_of(self.image)}|{sha256_of(self.depth)}"
        except OSError:
            return ""

    def is_intact(self) -> bool:
        return True


def find_scenes(root: Path) -> list[Path]:
    """Return the scene folders at ``root`` or one or two levels below it, sorted; hidden folders are left out."""
    found = [path.parent for pattern in ("", "*/", "*/*/") for path in root.glob(pattern + CAMERAS_FILE)]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts))


def read_cameras(folder: Path) -> tuple[PaperFrame, ...]:
    """Return the frames of a scene; DatasetError if the file is missing or damaged, or the frames differ in size."""
    file = folder / CAMERAS_FILE
    entries = read_json(file).get("frames")
    if not isinstance(entries, list) or not entries:
        raise DatasetError(f"{file} is damaged: it has no list of frames")
    frames = tuple(_frame(folder, entry, f"{file}, frame {i}") for i, entry in enumerate(entries))
    if len(sizes := {f.image_size_hw for f in frames}) > 1:
        raise DatasetError(f"{file}: its frames differ in size {sorted(sizes)} (height, width); make them equal")
    return frames


def _frame(folder: Path, entry: Any, where: str) -> PaperFrame:
    try:
        name = inside(PurePosixPath(), str(PurePosixPath(entry["file_path"])), where)
        fx, fy, cx, cy, width, height = (float(entry[key]) for key in _NUMBERS)
        pose = np.array(entry["w2c"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where} is damaged ({type(error).__name__}: {error})") from None
    if pose.shape != (4, 4):
        raise DatasetError(f"{where}: w2c has shape {pose.shape}, expected (4, 4)")
    intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    size = int(height), int(width)
    check_camera(intrinsics, pose, size, where)
    depth = str(name.with_suffix(".exr")).replace("rgba", "depth")
    return PaperFrame(folder / name, folder / depth, size, intrinsics, pose)


def _read_depth(file: Path) -> np.ndarray:
    """Return H×W float32 depth with 0 for the background; DatasetError if it is missing, damaged or negative."""
    content = read_content(file, RESTORE)
    try:
        channels = decode_rarer_exr(content, file)
    except (ExrError, MemoryError) as error:  # a damaged header can ask for any amount of memory
        raise DatasetError(f"{file} cannot be read ({error}); {RESTORE}") from None
    present = [name for name in _DEPTH_CHANNELS if name in channels] or list(channels)[: len(channels) == 1]
    if not present:
        raise DatasetError(
            f"{file}: none of its {len(channels)} channels ({', '.join(sorted(channels))}) is known to be depth"
        )
    depth = channels[present[0]].astype(np.float32)
    return check_depth(np.where(depth <= _FARTHEST, depth, np.float32(0)), file)  # NaN fails the comparison, too
