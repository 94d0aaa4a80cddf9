"""A folder of pictures (png, jpg, webp) for the plane layout, checked before anything is rendered."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.pictures import PICTURE_SUFFIXES, decode_picture, left_out, picture_files, read_content

_LOOKED_FOR = ", ".join(PICTURE_SUFFIXES)
REMEDY = "replace it or remove it from the folder"


@dataclass(frozen=True)
class PictureRecord:
    """One picture file that is known to decode."""

    name: str  # file name without its ending
    path: Path
    sha256: str  # hex, of the file's bytes
    width_px: int  # as seen, upright
    height_px: int


def list_pictures(folder: Path) -> tuple[PictureRecord, ...]:
    """Return the pictures in ``folder`` sorted by file name; sub-folders and hidden files are not read.

    Every file is decoded once. Warns of pictures in other formats, which are left out. Raises DatasetError when the
    folder is missing or has no picture, when a file does not decode (it is named), and when two files differ only in
    their extension, because scenes refer to pictures by name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"the picture folder {folder} is not a folder; give one with {_LOOKED_FOR} files")
    paths, others = picture_files(folder)
    if not paths:
        raise DatasetError(
            f"the picture folder {folder} has no {_LOOKED_FOR} file{left_out(others, ' but ')}; add some"
        )
    if others:
        warnings.warn(f"{folder}: left out{left_out(others, ' ')}", stacklevel=2)
    records: dict[str, PictureRecord] = {}
    for path in paths:
        record = _read(path)
        if record.name in records:
            raise DatasetError(f"{path} and {records[record.name].path.name} have the same name; rename one of them")
        records[record.name] = record
    return tuple(records.values())


def _read(path: Path) -> PictureRecord:
    content = read_content(path, REMEDY)
    image = decode_picture(content, f"the picture {path}", REMEDY).image
    return PictureRecord(path.stem, path, hashlib.sha256(content).hexdigest(), image.width, image.height)
