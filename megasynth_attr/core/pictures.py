"""Picture files of any colour mode as eight-bit RGB or RGBA, upright; the one place where such files are decoded.

What is shown is the file's first frame, turned as its EXIF orientation says. Sixteen bits a channel are scaled by their
largest value, floating-point grey is taken as 0 … 1. CMYK (a JPEG's is stored inverted, as Adobe does it), YCbCr and
HSV and CIE L*a*b* are converted by formula; embedded colour profiles are not applied.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import StoredFile, read_regular, refuse_web_page
from megasynth_attr.core.pages.words import listed

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # what is looked for in a folder of pictures
OTHER_SUFFIXES = (  # pictures that are left out, and reported
    ".heic", ".heif", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".jxl", ".tga",
    ".ppm", ".pgm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf",
)  # fmt: skip
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM")  # by content; Pillow lets Ghostscript run PostScript
_ALPHA_MODES = ("LA", "PA", "RGBA", "RGBa")
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose "I" (32 bits in memory) holds 16 bits of the file
_FLOAT_TOLERANCE = 1e-3  # beyond 0 … 1: the overshoot of resampling
_UPRIGHT = {  # EXIF orientation → what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """A picture file: ``image`` has mode RGB, or RGBA (straight alpha) if the file has transparency."""

    image: Image.Image
    is_as_stored: bool  # the file's own pixels: eight bits of grey, RGB or RGBA, not turned
    frames: int  # of an animation, or pages; only the first one is here


def read_picture(path: StoredFile, advice: str, turn: bool = True) -> Decoded:
    """Return the picture in a file; DatasetError, ending with ``advice``, if it is missing or cannot be read.

    ``turn``: as its EXIF orientation says.
    """
    return decode_picture(read_content(path, advice), str(path), advice, turn)


def decode_picture(content: bytes, name: str, advice: str, turn: bool = True) -> Decoded:
    """Return the picture in a file's bytes; DatasetError, with ``name`` and ``advice``, if it cannot be read."""
    file = _opened(content, name, advice, turn)
    if (levels := _deep_levels(file, name, advice)) is not None:
        grey = Image.fromarray(np.rint(levels * 255).astype(np.uint8))
        return Decoded(grey.convert("RGB"), is_as_stored=False, frames=file.frames)
    is_plain = file.image.mode in ("L", "RGB", "RGBA") and "transparency" not in file.image.info
    return Decoded(_eight_bit(file.image, name, advice), is_plain and not file.turned, file.frames)


def decode_levels(content: bytes, name: str, advice: str, turn: bool = True) -> np.ndarray:
    """Return the first channel of a picture's bytes as H×W float32 in 0 … 1, scaled by the type of the numbers.

    Eight bits are divided by 255, sixteen by 65535, floating point is taken as it is. DatasetError as in
    ``decode_picture``.
    """
    file = _opened(content, name, advice, turn)
    if (levels := _deep_levels(file, name, advice)) is not None:
        return levels
    return np.asarray(_eight_bit(file.image, name, advice).getchannel(0), np.float32) / np.float32(255)


def decode_whole_numbers(content: bytes, name: str, advice: str) -> np.ndarray:
    """Return a grey picture's numbers as H×W uint16, neither scaled nor turned.

    DatasetError as in ``decode_picture``.
    """
    image = _opened(content, name, advice, turn=False).image
    if image.mode not in ("L", "I") and not image.mode.startswith("I;16"):
        raise DatasetError(f"{name} has the colour mode {image.mode} and holds no grey numbers; {advice}")
    numbers = np.asarray(image)
    if numbers.min() < 0 or numbers.max() > np.iinfo(np.uint16).max:
        raise DatasetError(f"{name} holds numbers from {numbers.min()} to {numbers.max()}, beyond 16 bits; {advice}")
    return numbers.astype(np.uint16)


def open_picture(file: Path | BinaryIO) -> Image.Image:
    """Return a picture file as Pillow opens it; nothing else opens one. Raises what Pillow does for damaged files, and
    for other formats: some are decoded by other programs, or are programs."""
    return Image.open(file, formats=_FORMATS)


def picture_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures in ``folder`` that can be read, and those whose format is not read, both sorted by name.

    Subfolders, hidden files and other files are in neither. OSError if the folder cannot be listed.
    """
    files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    read = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    return read, [path for path in files if path.suffix.lower() in OTHER_SUFFIXES]


def left_out(files: Sequence[Path], before: str) -> str:
    """Return ``before`` and the first few names of ``files``, whose formats are not read; "" if there are none."""
    if not files:
        return ""
    names = listed(path.name for path in files)
    return f"{before}{names} (only {', '.join(PICTURE_SUFFIXES)} are read; convert them to one of these)"


def read_content(path: StoredFile, advice: str) -> bytes:
    """Return a file's bytes; DatasetError, ending with ``advice``, if it is missing or cannot be read."""
    try:
        content = read_regular(path)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing; {advice}") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); {advice}") from None
    refuse_web_page(content, path)
    return content


@dataclass(frozen=True)
class _Opened:
    image: Image.Image  # the first frame, upright, in memory, in the file's mode
    turned: bool
    frames: int
    is_sixteen: bool  # mode "I" that holds 16 bits


def _opened(content: bytes, name: str, advice: str, turn: bool) -> _Opened:
    try:
        with open_picture(io.BytesIO(content)) as file:
            # a JPEG of several pictures (MPO) holds previews of the first one, not an animation
            frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
            # ImageOps.exif_transpose also rewrites all other tags, and fails on malformed ones
            is_upright = file.getexif().get(ExifTags.Base.Orientation, 1) not in _UPRIGHT
            is_sixteen = file.mode == "I" and file.format in _SIXTEEN_BITS
            file.load()  # which turns TIFFs, and drops the tag
            way = _UPRIGHT.get(file.getexif().get(ExifTags.Base.Orientation, 1)) if turn else None
            # as it is where nothing more can be read into it: a copy takes a fifth of the time of decoding
            image = file.transpose(way) if way is not None else file.copy() if frames > 1 else file
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise many types for damaged bytes
        why = str(error).partition(" <_io.")[0] or type(error).__name__  # without the address of a buffer
        raise DatasetError(f"{name} cannot be read as a picture ({why}); {advice}") from None
    if 0 in image.size:
        raise DatasetError(f"{name} has no pixels ({image.width}×{image.height}); {advice}")
    return _Opened(image, turn and not is_upright, frames, is_sixteen)


def _deep_levels(file: _Opened, name: str, advice: str) -> np.ndarray | None:
    """Return grey of more than eight bits as H×W float32 in 0 … 1; None for any other picture."""
    image = file.image
    if image.mode.startswith("I;16") or file.is_sixteen:
        return (np.asarray(image).astype(np.float64) / 65535).astype(np.float32)
    if image.mode == "I":
        raise DatasetError(
            f"{name} holds whole numbers of 32 bits, whose largest value is not known; save it with 8 or 16 bits, or "
            f"{advice}"
        )
    if image.mode != "F":
        return None
    values = np.asarray(image, np.float32)
    if not (values.min() >= -_FLOAT_TOLERANCE and values.max() <= 1 + _FLOAT_TOLERANCE):  # NaN fails both
        raise DatasetError(
            f"{name} holds floating-point numbers from {values.min():g} to {values.max():g}; they must be in 0 … 1: "
            f"scale them, or {advice}"
        )
    return values.clip(0, 1)


def _eight_bit(image: Image.Image, name: str, advice: str) -> Image.Image:
    """Return a picture of any mode but the deep grey ones as RGB or RGBA."""
    wanted = "RGBA" if image.mode in _ALPHA_MODES or "transparency" in image.info else "RGB"
    if image.mode == wanted:
        return image
    try:
        return image.convert(wanted)
    except (ValueError, ImportError) as error:  # L*a*b* needs a part of Pillow that may have been left out
        raise DatasetError(
            f"{name} has the colour mode {image.mode}, which cannot be shown ({error}); {advice}"
        ) from None
