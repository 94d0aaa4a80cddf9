"""Depth files from anywhere: OpenEXR, 16-bit PNG, NumPy, COLMAP's maps; what is no depth becomes 0.

No depth are NaN, infinities, zero, negative numbers, a PNG's largest number, and an EXR file's background. Half
precision cannot hold the usual background of 1e10: it becomes 65,504, and the lossy compressions DWAA and DWAB move
that a little. So from 60,000 on, depth is background in a file of half precision, and in a file of single precision
that was made from one: there nothing else lies above a tenth of that.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.exr import ExrError, decode_rarer_exr
from megasynth_attr.core.pictures import decode_whole_numbers, read_content

RESTORE = "restore it, or train with data.on_bad_file=skip"
SUFFIXES = (".exr", ".png", ".npy", ".geometric.bin", ".photometric.bin")
_FARTHEST = 1e9  # larger depths mean background
_LARGEST_HALF = 65_504.0
_CLAMPED = 6e4  # a background that half precision and lossy compression have moved
_GAP = 0.1  # of that: what a scene reaches whose background was clamped
_DEPTH = "depth"
_SAME_COLOUR = 5e-3  # relative difference of R, G and B that a lossy compression may leave


@dataclass(frozen=True)
class DepthFile:
    """A file of planar z. ``unit``: scene units per stored number, e.g. 0.001 for millimetres in a scene in metres."""

    path: Path
    unit: float = 1.0

    def read(self) -> np.ndarray:
        """Return H×W float32 depth in scene units, 0 where there is none; DatasetError naming the file."""
        suffix = self.path.suffix.lower()
        if suffix not in _READERS:
            raise DatasetError(f"{self.path}: depth is read from {', '.join(SUFFIXES)}; convert it to one of these")
        stored = _READERS[suffix](read_content(self.path, RESTORE), self.path)
        if stored.ndim != 2:
            raise DatasetError(f"{self.path} has the shape {stored.shape}; depth is one number per pixel")
        with np.errstate(invalid="ignore", over="ignore"):
            is_depth = (stored > 0) & (stored <= _FARTHEST)  # NaN fails both
            depth = np.where(is_depth, stored * np.float32(self.unit), 0).astype(np.float32)
        if not np.isfinite(depth).all():
            raise DatasetError(
                f"{self.path}: depth in units of {self.unit:g} is too large for 32-bit numbers; give its unit, "
                "e.g. depth_unit=0.001 for millimetres"
            )
        return depth


def depth_channel(channels: Mapping[str, np.ndarray]) -> str:
    """Return the name of the channel that holds depth, ValueError saying why if none or several may.

    In this order: ``depth``, and ``Z`` and ``V`` of a layer without X and Y (those are directions or positions); of
    several the one that is called depth; the only channel; red, green and blue that are equal.
    """
    layers: dict[str, set[str]] = {}
    for name in channels:
        layer, _, last = name.rpartition(".")
        layers.setdefault(layer, set()).add(last)
    found = [
        f"{layer}.{last}" if layer else last
        for layer, of_layer in layers.items()
        for last in of_layer
        if last.lower() == _DEPTH
        or (last in ("Z", "V") and not of_layer & {"X", "Y", "U", "H", "S"} and not layer.endswith("Mist"))
    ]
    if len(found) > 1:
        named = [name for name in found if _DEPTH in name.lower().split(".")[-2:]]
        found = named or [name for name in found if _DEPTH in name.lower()] or found
    if len(found) > 1 and not all(np.array_equal(channels[found[0]], channels[name]) for name in found[1:]):
        raise ValueError(f"the channels {', '.join(sorted(found))} may all be depth; leave one of them in the file")
    if found:
        return found[0]
    if len(channels) == 1:
        return next(iter(channels))
    for layer, of_layer in layers.items():
        red, green, blue = (f"{layer}.{c}" if layer else c for c in "RGB")
        if {"R", "G", "B"} <= of_layer and all(
            np.allclose(channels[red], channels[other], rtol=_SAME_COLOUR, atol=0, equal_nan=True)
            for other in (green, blue)
        ):
            return red
    raise ValueError(
        f"none of its {len(channels)} channels ({', '.join(sorted(channels))}) is known to be depth: a channel Z or V, "
        "or equal R, G and B"
    )


def _read_exr(content: bytes, path: Path) -> np.ndarray:
    try:
        channels = decode_rarer_exr(content, path)
    except (ExrError, MemoryError) as error:  # a damaged header can ask for any amount of memory
        raise DatasetError(f"{path} cannot be read ({error}); {RESTORE}") from None
    try:
        stored = channels[depth_channel(channels)]
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from None
    depth = stored.astype(np.float32)
    rest = depth[(depth > 0) & (depth < _CLAMPED)]
    was_half = stored.dtype == np.float16 or rest.max(initial=0) < _GAP * _CLAMPED
    depth[(depth >= _CLAMPED) if was_half else (depth == _LARGEST_HALF)] = 0
    return depth


def _read_png(content: bytes, path: Path) -> np.ndarray:
    numbers = decode_whole_numbers(content, str(path), "save depth as a grey PNG of 16 bits")
    if not content.startswith(b"\x89PNG"):
        raise DatasetError(f"{path} is no PNG, whatever its name says; save depth as a grey PNG of 16 bits")
    if content[24] != 16:  # bits per channel, of the header
        raise DatasetError(f"{path} has {content[24]} bits per pixel and is a picture of depth, not depth; use 16 bits")
    return np.where(numbers < np.iinfo(np.uint16).max, numbers, 0).astype(np.float32)


def _read_npy(content: bytes, path: Path) -> np.ndarray:
    try:
        stored = np.load(io.BytesIO(content), allow_pickle=False)
        if not (isinstance(stored, np.ndarray) and stored.dtype.kind in "fiu"):
            raise ValueError("it is no array of real numbers")
        with np.errstate(over="ignore"):  # what is too large is no depth
            return stored.astype(np.float32).squeeze()
    except (ValueError, TypeError, EOFError, OSError, AttributeError, MemoryError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); {RESTORE}") from None


def _read_colmap(content: bytes, path: Path) -> np.ndarray:
    """Return a map of COLMAP's: "width&height&1&" and float32, row by row."""
    try:
        width, height, channels, values = content.split(b"&", 3)
        shape = int(height), int(width)
        if int(channels) != 1 or len(values) != 4 * shape[0] * shape[1]:
            raise ValueError("its size does not fit its header")
        return np.frombuffer(values, "<f4").reshape(shape)
    except ValueError as error:
        raise DatasetError(f"{path} is no depth map of COLMAP's ({error}); {RESTORE}") from None


_READERS = {".exr": _read_exr, ".png": _read_png, ".npy": _read_npy, ".bin": _read_colmap}
