"""Pictures of a scene from a folder, resized to what the network takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.pictures import PICTURE_SUFFIXES, left_out, picture_files, read_picture
from megasynth_train.data.sizes import check_width

MODES = ("crop", "pad")
_WHITE = 255
_HIGHEST = 100  # of what is cut to a square, in its widths: a few bytes would ask for all memory


@dataclass(frozen=True)
class Picture:
    """One picture as the network sees it, and where its pixels come from.

    ``rgb`` uint8 [H, W, 3]; ``visible`` bool [H, W]: false in padding and where the file is mostly transparent. A point
    (x, y) of the file as it is shown, origin at the corner, lies at (x, y) * ``scale_xy`` + ``offset_xy`` of ``rgb``.
    """

    path: Path
    rgb: np.ndarray
    visible: np.ndarray
    file_size_wh: tuple[int, int]
    scale_xy: tuple[float, float]
    offset_xy: tuple[int, int]
    frames: int = 1  # in the file; the first one is shown


@dataclass(frozen=True)
class ImageFiles:
    """The pictures of a folder: those that are used, and a note on those in unsupported formats ("" without any).

    ``turn``: as their EXIF tags say; pictures that come with cameras are taken as stored.
    """

    used: tuple[Path, ...]
    note: str
    turn: bool = True


def image_files(folder: Path, *, stride: int = 1, max_views: int = 0) -> ImageFiles:
    """Return the pictures in ``folder`` in natural order (2.png before 10.png), every ``stride``-th, at most
    ``max_views`` (0: all). Hidden files and subfolders are skipped; ConfigError if nothing is left.
    """
    if not folder.is_dir():
        raise ConfigError(f"images={folder}: there is no such folder")
    found, others = picture_files(folder)
    if not found:
        looked = f"looked for {', '.join(PICTURE_SUFFIXES)}, not in subfolders"
        raise ConfigError(f"images={folder}: no picture in it ({looked}){left_out(others, ', but ')}")
    found = sorted(found, key=lambda path: natural_key(path.name))[::stride]
    return ImageFiles(tuple(found[:max_views] if max_views else found), left_out(others, f"left out of {folder}: "))


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Return a sorting key that compares runs of digits as numbers and ignores case; the name itself breaks ties."""
    parts = re.split(r"([0-9]+)", name.casefold())  # text and digits in turn
    return tuple((int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)), name


def load_pictures(files: ImageFiles, mode: str, width_px: int, patch_px: int) -> list[Picture]:
    """Return the pictures, all of one size; ConfigError, naming two of them, if their sizes differ."""
    pictures = [load_picture(path, mode, width_px, patch_px, files.turn) for path in files.used]
    for picture in pictures:
        if picture.rgb.shape != pictures[0].rgb.shape:
            first, other = (f"{p.path.name} becomes {p.rgb.shape[1]}×{p.rgb.shape[0]}" for p in (pictures[0], picture))
            raise ConfigError(
                f"the pictures in {picture.path.parent} differ in shape: {first}, {other} px; the network takes one "
                "shape at a time: use mode=pad, or put them in separate folders"
            )
    return pictures


def load_picture(path: Path, mode: str, width_px: int, patch_px: int, turn: bool = True) -> Picture:
    """Return the picture of a file, bicubically resized, transparency on white, ``turn``ed upright by its EXIF tag.

    ``crop``: ``width_px`` wide; the height follows the aspect, rounded to the patch size, and is cut to ``width_px``
    around the middle if larger. ``pad``: the longer side is ``width_px``, the shorter one rounded to the patch size
    and padded with white to a square. ConfigError if ``width_px`` is not a multiple of ``patch_px``, DatasetError for a
    file that cannot be read.
    """
    if mode not in MODES:
        raise ConfigError(f"mode={mode}: must be one of {', '.join(MODES)}")
    check_width("width_px", width_px, patch_px)
    decoded = read_picture(path, "remove or replace it", turn)
    rgb, alpha = _on_white(decoded.image)
    width, height = rgb.size
    factor = width_px / (max(width, height) if mode == "pad" else width)
    size = (_whole_patches(width * factor, patch_px), _whole_patches(height * factor, patch_px))
    if size[1] > _HIGHEST * size[0]:
        raise DatasetError(
            f"{path} is {width}×{height} px, more than {_HIGHEST} times as high as wide; cut or remove it"
        )
    pixels = np.asarray(rgb.resize(size, Image.Resampling.BICUBIC))
    visible = np.asarray(alpha.resize(size, Image.Resampling.BILINEAR)) > _WHITE // 2
    offset = (0, 0)
    if mode == "crop" and size[1] > width_px:
        top = (size[1] - width_px) // 2
        pixels, visible, offset = pixels[top : top + width_px], visible[top : top + width_px], (0, -top)
    elif mode == "pad":
        before = ((width_px - size[0]) // 2, (width_px - size[1]) // 2)
        margins = [(b, width_px - b - s) for b, s in zip(before, size, strict=True)][::-1]
        pixels = np.pad(pixels, [*margins, (0, 0)], constant_values=_WHITE)
        visible, offset = np.pad(visible, margins), before
    return Picture(path, pixels, visible, (width, height), (size[0] / width, size[1] / height), offset, decoded.frames)


def _whole_patches(length_px: float, patch_px: int) -> int:
    return max(1, round(length_px / patch_px)) * patch_px


def _on_white(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Return a picture's colours on white (RGB) and its opacity (L)."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB"), image.getchannel("A")
