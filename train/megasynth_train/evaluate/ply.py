"""Coloured point clouds as binary PLY files, which every viewer reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.temporary import replace_atomically

_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])  # packed: 15 bytes a point


def write_ply(path: Path, points: np.ndarray, colours: np.ndarray) -> None:
    """Write ``path`` whole or not at all; arguments and errors as ``ply_bytes``, EnvironmentProblem if it cannot be."""
    content = ply_bytes(points, colours)
    with storage_errors("the point cloud", path):
        replace_atomically(path, content)


def ply_bytes(points: np.ndarray, colours: np.ndarray) -> bytes:
    """Return the binary little-endian PLY of ``points`` [N, 3] (float32) and ``colours`` [N, 3] (uint8 RGB).

    Raises ValueError for other shapes and for points that are not finite, on which viewers fail.
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
