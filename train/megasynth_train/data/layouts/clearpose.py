"""ClearPose: photographs of transparent objects, a folder ``set<S>/scene<N>`` per scene.

::

    <scene>/metadata.mat                    "000000": intrinsic_matrix (or camera_intrinsics) 3×3, factor_depth,
                                                      rotation_translation_matrix 3×4, world-from-camera, OpenCV axes
    <scene>/000000-color.png
    <scene>/000000-depth_true.png           16 bits, divided by factor_depth: metres; the true depth of glass, too

As in the paper's preparation, every hundredth frame is read: those whose number ends in 00.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import matfile_version

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import MOST_BYTES
from megasynth_attr.core.pages.words import count_text
from megasynth_attr.core.pictures import read_content
from megasynth_train.data.depth_files import DepthFile
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

METADATA = "metadata.mat"
_LEVEL_5, _HEADER_BYTES, _MATRIX, _COMPRESSED = (1, 0), 128, 14, 15  # of MATLAB's files, and kinds of their elements
_MOST_MATRICES = 1000  # of a variable; ours have ten
_FRAME = re.compile("[0-9]{6}")
_KEPT = "00"  # how the numbers of the frames end that are read
_INTRINSICS = ("intrinsic_matrix", "camera_intrinsics")  # as in the files, and as the data set's page calls it


def read_scene(folder: Path, reading: Reading) -> SceneViews:
    """Return a scene; DatasetError if its metadata is missing or damaged, or no frame's number ends in 00."""
    file = folder / METADATA
    content = read_content(file, "download the scene again")
    try:
        frames = _variables(content)
    except Exception as error:  # SciPy raises many types for damaged bytes
        raise DatasetError(f"{file} is no MATLAB file ({error}); download the scene again") from None
    numbers = sorted(name for name in frames if _FRAME.fullmatch(name))
    if not numbers:
        raise DatasetError(f"{file} holds no frames (variables called 000000, 000001, …)")
    chosen = [number for number in numbers if number.endswith(_KEPT)]
    skipped = [f"{count_text(len(numbers) - len(chosen), 'frame')} whose number does not end in {_KEPT}"]
    present = [number for number in chosen if (folder / f"{number}-color.png").is_file()]
    if len(present) < len(chosen):
        skipped.append(f"{count_text(len(chosen) - len(present), 'frame')} without a picture")
    views = [_view(folder, number, frames[number], f"{file}, {number}", reading) for number in present]
    return usable(views, str(file), reading, skipped)


def _variables(content: bytes) -> dict[str, Any]:
    """Return the variables of a MATLAB file; ValueError or whatever SciPy raises if it is damaged.

    SciPy reads each alone: its C code follows cells in cells into an overflow of the stack, also into the variables
    behind.
    """
    whole: Any = io.BytesIO(content)  # SciPy's stubs know only paths
    if matfile_version(whole) != _LEVEL_5:
        return dict(loadmat(whole, simplify_cells=True))
    order, at = "<" if content[126:128] == b"IM" else ">", _HEADER_BYTES
    found: dict[str, Any] = {}
    while at < len(content):
        kind, size = struct.unpack_from(f"{order}2I", content, at)
        element = inner = content[at : at + 8 + size]
        if kind == _COMPRESSED:
            inner = zlib.decompressobj().decompress(element[8:], MOST_BYTES)
        if len(inner) == MOST_BYTES or inner.count(struct.pack(f"{order}I", _MATRIX)) > _MOST_MATRICES:
            raise ValueError("a variable holds more than a frame does")
        variable: Any = io.BytesIO(content[:_HEADER_BYTES] + element)
        found |= loadmat(variable, simplify_cells=True)
        at += 8 + size
    return found


def _view(folder: Path, number: str, frame: Any, where: str, reading: Reading) -> FileView:
    try:
        intrinsics = next(frame[key] for key in _INTRINSICS if key in frame)
        pose, factor = frame["rotation_translation_matrix"], float(frame["factor_depth"])
    except (KeyError, TypeError, ValueError, IndexError, StopIteration):
        raise DatasetError(
            f"{where} lacks {_INTRINSICS[0]}, rotation_translation_matrix or factor_depth; download the scene again"
        ) from None
    if not (np.isfinite(factor) and factor > 0):
        raise DatasetError(f"{where}: factor_depth={factor:g} is not positive")
    picture, depth = folder / f"{number}-color.png", folder / f"{number}-depth_true.png"
    return FileView(
        picture,
        size_in_header(picture),
        matrix(intrinsics, (3, 3), f"{where}: {_INTRINSICS[0]}"),
        inverse(matrix(pose, (3, 4), f"{where}: rotation_translation_matrix"), where),
        DepthFile(depth, reading.depth_unit or 1 / factor) if depth.is_file() else None,
    )


LAYOUT = Layout("clearpose", "ClearPose's", METADATA, read_scene)
