"""A folder of pictures (png, jpg, webp) for the plane layout, checked before anything is rendered."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from megasynth_attr.core.errors import DatasetError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class PictureRecord:
    """One picture file that is known to decode."""

    name: str  # file name without its ending
    path: Path
    sha256: str  # hex, of the file's bytes
    width_px: int  # as seen: an EXIF rotation is not applied, Blender does not apply it either
    height_px: int


def list_pictures(folder: Path) -> tuple[PictureRecord, ...]:
    """Return the pictures in ``folder`` sorted by file name; sub-folders and hidden files are not read.

    Every file is decoded once. Raises DatasetError when the folder is missing or has no picture, when a file does not
    decode (it is named), and when two files differ only in their ending, because scenes refer to pictures by name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"the picture folder {folder} is not a folder; give one with {', '.join(SUFFIXES)} files")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise DatasetError(f"the picture folder {folder} has no {', '.join(SUFFIXES)} file; add some or give another")
    records: dict[str, PictureRecord] = {}
    for path in paths:
        record = _read(path)
        if record.name in records:
            raise DatasetError(f"{path} and {records[record.name].path.name} have the same name; rename one of them")
        records[record.name] = record
    return tuple(records.values())


def _read(path: Path) -> PictureRecord:
    remedy = "replace it or remove it from the folder"
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.verify()  # checks the structure, but leaves the image unusable
        with Image.open(io.BytesIO(content)) as image:
            image.load()  # finds a picture that ends early
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise DatasetError(f"the picture {path} has too many pixels ({error}); scale it down") from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DatasetError(f"the picture {path} cannot be decoded ({error}); {remedy}") from error
    return PictureRecord(path.stem, path, hashlib.sha256(content).hexdigest(), width, height)
