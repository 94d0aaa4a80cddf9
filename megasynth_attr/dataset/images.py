"""Image files: PNG for colour and ids, EXR for depth, normals and positions. Equal arrays give equal bytes.

Compression is a measured choice (docs/formats.md, ``benchmarks/disk_formats.py``): PNG level 4 is within a few percent
of level 9 in a fraction of its time; ZIP is the smallest lossless EXR compression that every reader knows.

Nothing here waits for the disk: ``sync_tree`` does, once for the folder that holds the files.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.exr import ExrError, decode_exr, encode_exr
from megasynth_attr.core.files import StoredFile, storage_errors
from megasynth_attr.core.pictures import decode_whole_numbers, read_content, read_picture
from megasynth_attr.dataset.paths import RENDER_ANEW

Decoder = Callable[[bytes], dict[str, np.ndarray]]  # of EXR files: decode_exr, or what does the same

PNG_LEVEL = 4
EXR_COMPRESSION = "zip"


def png_bytes(array: np.ndarray, level: int = PNG_LEVEL) -> bytes:
    """Return the PNG of an uint8 H×W×4 or H×W×3 or uint16 H×W array."""
    with io.BytesIO() as buffer:
        Image.fromarray(array).save(buffer, "PNG", compress_level=level)
        return buffer.getvalue()


def exr_bytes(channels: Mapping[str, np.ndarray]) -> bytes:
    """Return the scanline EXR of H×W float32 or float16 arrays."""
    return encode_exr(channels, EXR_COMPRESSION)


def depth_bytes(depth_z: np.ndarray, precision: str) -> bytes:
    """Return the EXR of H×W depth, as the single channel Z; ``precision`` is "float32" or "float16"."""
    return exr_bytes({"Z": depth_z.astype(precision)})


def vector_bytes(vectors: np.ndarray, precision: str = "float32") -> bytes:
    """Return the EXR of an H×W×3 array, as the channels X, Y, Z."""
    return exr_bytes({axis: vectors[..., i].astype(precision) for i, axis in enumerate("XYZ")})


def write_png(path: Path, array: np.ndarray) -> None:
    """Write an uint8 H×W×4 or uint16 H×W array; EnvironmentProblem if the disk refuses."""
    _write(path, png_bytes(array))


def write_exr(path: Path, channels: Mapping[str, np.ndarray]) -> None:
    """Write what ``exr_bytes`` returns; EnvironmentProblem if the disk refuses."""
    _write(path, exr_bytes(channels))


def write_depth(path: Path, depth_z: np.ndarray, precision: str) -> None:
    """Write what ``depth_bytes`` returns; EnvironmentProblem if the disk refuses."""
    _write(path, depth_bytes(depth_z, precision))


def write_vectors(path: Path, vectors: np.ndarray, precision: str = "float32") -> None:
    """Write what ``vector_bytes`` returns; EnvironmentProblem if the disk refuses."""
    _write(path, vector_bytes(vectors, precision))


def read_image(path: StoredFile, advice: str = RENDER_ANEW) -> np.ndarray:
    """Return a picture as uint8 H×W×3, or H×W×4 if it has transparency; DatasetError, ending with ``advice``, if it is
    missing or damaged. ``core/pictures.py`` says how unusual ones are converted.
    """
    return np.array(read_picture(path, advice).image)


def read_ids(path: StoredFile, advice: str = RENDER_ANEW) -> np.ndarray:
    """Return the numbers in a grey PNG as uint16 H×W, not scaled; DatasetError as in ``read_image``."""
    return decode_whole_numbers(read_content(path, advice), str(path), advice)


def read_exr(path: StoredFile, advice: str = RENDER_ANEW, decode: Decoder = decode_exr) -> dict[str, np.ndarray]:
    """Return the channels of an EXR file by name, H×W; DatasetError as in ``read_image``."""
    content = read_content(path, advice)
    try:
        return decode(content)
    except (ExrError, MemoryError) as error:  # a damaged header can ask for any amount of memory
        raise DatasetError(f"{path} cannot be read ({error}); {advice}") from None


def read_depth(path: StoredFile, decode: Decoder = decode_exr) -> np.ndarray:
    """Return H×W float32 depth (channel Z); DatasetError if the file is missing, damaged or holds something else."""
    return _channels(path, "Z", decode)[0]


def read_vectors(path: StoredFile) -> np.ndarray:
    """Return an H×W×3 float32 array from the channels X, Y, Z; DatasetError if that is not what the file holds."""
    return np.stack(_channels(path, "XYZ"), axis=-1)


def _write(path: Path, content: bytes) -> None:
    with storage_errors("an image", path):
        path.write_bytes(content)


def _channels(path: StoredFile, names: str, decode: Decoder = decode_exr) -> list[np.ndarray]:
    channels = read_exr(path, decode=decode)
    if missing := [name for name in names if name not in channels]:
        held = ", ".join(sorted(channels)) or "none at all"
        raise DatasetError(f"{path} has no channel {missing[0]}, which this layer needs, but {held}; {RENDER_ANEW}")
    return [channels[name].astype(np.float32, copy=False) for name in names]
