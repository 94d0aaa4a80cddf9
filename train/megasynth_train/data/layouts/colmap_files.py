"""Are the binary files of a COLMAP model whole? COLMAP's reader does not look: it goes on with whatever is in memory.

Each file is a number of records and the records (https://colmap.github.io/format.html); only their lengths are read.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import open_regular
from megasynth_train.data.depth_files import RESTORE

STRAIGHT = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")  # if they do not distort
_PARAMETERS = {0: 3, 1: 4, 2: 4, 3: 5, 4: 8, 6: 12}  # of these, by COLMAP's numbers of them
_UNKNOWN = -1


def require_whole(model: Path) -> None:
    """Raise DatasetError naming the first binary file in the folder ``model`` that is cut off or goes on too long."""
    for name, after in _RECORDS.items():
        file = model / name
        if not file.exists():
            continue
        try:
            with open_regular(file) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                whole = _end(content, after) in (len(content), _UNKNOWN)
        except (OSError, ValueError, IndexError, OverflowError, struct.error):  # ValueError: empty, no end of a name
            whole = False
        if not whole:
            raise DatasetError(f"{file} is cut off or damaged; {RESTORE}")


def _end(content: mmap.mmap, after: Callable[[mmap.mmap, int], int]) -> int:
    """Return where the last record ends, ``_UNKNOWN`` behind one of unknown length."""
    at = 8
    for _ in range(struct.unpack_from("<Q", content)[0]):
        at = after(content, at)
        if at == _UNKNOWN:
            break
    return at


def _after_camera(content: mmap.mmap, at: int) -> int:
    (model,) = struct.unpack_from("<i", content, at + 4)
    if model not in _PARAMETERS:  # which is refused, and said, by the reader
        return _UNKNOWN
    return at + 24 + 8 * _PARAMETERS[model]


def _after_image(content: mmap.mmap, at: int) -> int:
    end = content.find(b"\0", at + 64)  # of the name
    if end < 0:
        raise ValueError("a name without an end")
    return end + 9 + 24 * int(struct.unpack_from("<Q", content, end + 1)[0])


def _after_point(content: mmap.mmap, at: int) -> int:
    return at + 51 + 8 * int(struct.unpack_from("<Q", content, at + 43)[0])


def _after_rig(content: mmap.mmap, at: int) -> int:
    (sensors,) = struct.unpack_from("<I", content, at + 4)
    at += 16 if sensors else 8
    for _ in range(1, sensors):
        at += 65 if content[at + 8] else 9  # with a pose or without
    return at


def _after_frame(content: mmap.mmap, at: int) -> int:
    return at + 68 + 16 * int(struct.unpack_from("<I", content, at + 64)[0])


_RECORDS = {
    "cameras.bin": _after_camera,
    "rigs.bin": _after_rig,
    "frames.bin": _after_frame,
    "images.bin": _after_image,
    "points3D.bin": _after_point,
}
