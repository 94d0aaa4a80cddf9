"""Image files: PNG for colour and ids, EXR for depth, normals and positions. Equal arrays give equal bytes.

Compression is a measured choice (docs/formats.md, ``benchmarks/disk_formats.py``): PNG level 4 is within a few percent
of level 9 in a fraction of its time; ZIP is the smallest lossless EXR compression that every reader knows.

Nothing here waits for the disk: ``sync_tree`` does, once for the folder that holds the files.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.exr import ExrError, decode_exr, encode_exr
from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.pictures import decode_whole_numbers, read_content, read_picture
from megasynth_attr.dataset.paths import RENDER_ANEW

PNG_LEVEL = 4
EXR_COMPRESSION = "zip"


def png_bytes(array: np.ndarray, level: int = PNG_LEVEL) -> bytes:
    """Return the PNG of an uint8 H×W×4 or H×W×3 or uint16 H×W array."""
    with io.BytesIO() as buffer:
        Image.fromarray(array).save(buffer, "PNG", compress_level=level)
        return buffer.getvalue()


def write_png(path: Path, array: np.ndarray) -> None:
    """Write an uint8 H×W×4 or uint16 H×W array; EnvironmentProblem if the disk refuses."""
    with storage_errors("an image", path):
        path.write_bytes(png_bytes(array))


def write_exr(path: Path, channels: Mapping[str, np.ndarray]) -> None:
    """Write H×W float32 or float16 arrays as the channels of a scanline EXR; EnvironmentProblem if the disk refuses."""
    with storage_errors("an image", path):
        path.write_bytes(encode_exr(channels, EXR_COMPRESSION))


def read_image(path: Path, advice: str = RENDER_ANEW) -> np.ndarray:
    """Return a picture as uint8 H×W×3, or H×W×4 if it has transparency; DatasetError, ending with ``advice``, if it is
    missing or damaged. ``core/pictures.py`` says how unusual ones are converted.
    """
    return np.array(read_picture(path, advice).image)


def read_ids(path: Path, advice: str = RENDER_ANEW) -> np.ndarray:
    """Return the numbers in a grey PNG as uint16 H×W, not scaled; DatasetError as in ``read_image``."""
    return decode_whole_numbers(read_content(path, advice), str(path), advice)


def read_exr(path: Path, advice: str = RENDER_ANEW) -> dict[str, np.ndarray]:
    """Return the channels of an EXR file by name, H×W; DatasetError as in ``read_image``."""
    content = read_content(path, advice)
    try:
        return decode_exr(content)
    except (ExrError, MemoryError) as error:  # a damaged header can ask for any amount of memory
        raise DatasetError(f"{path} cannot be read ({error}); {advice}") from None


def write_depth(path: Path, depth_z: np.ndarray, precision: str) -> None:
    """Write H×W depth as the single channel Z, ``precision`` "float32" or "float16"."""
    write_exr(path, {"Z": depth_z.astype(precision)})


def write_vectors(path: Path, vectors: np.ndarray, precision: str = "float32") -> None:
    """Write an H×W×3 array as the channels X, Y, Z."""
    write_exr(path, {axis: vectors[..., i].astype(precision) for i, axis in enumerate("XYZ")})


def read_depth(path: Path) -> np.ndarray:
    """Return H×W float32 depth (channel Z); DatasetError if the file is missing, damaged or holds something else."""
    return _channels(path, "Z")[0]


def read_vectors(path: Path) -> np.ndarray:
    """Return an H×W×3 float32 array from the channels X, Y, Z; DatasetError if that is not what the file holds."""
    return np.stack(_channels(path, "XYZ"), axis=-1)


def _channels(path: Path, names: str) -> list[np.ndarray]:
    channels = read_exr(path)
    if missing := [name for name in names if name not in channels]:
        held = ", ".join(sorted(channels)) or "none at all"
        raise DatasetError(f"{path} has no channel {missing[0]}, which this layer needs, but {held}; {RENDER_ANEW}")
    return [channels[name].astype(np.float32) for name in names]
