"""What is known about materials without their pixels, and the index file that holds it for a bank on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import from_plain, to_plain
from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import read_json
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.textures.surface import MAPS, Bytes, png_bytes, statistics_of

FORMAT = "megasynth-attr-bank"
FORMAT_VERSION = 1
INDEX_NAME = "index.json"
CATEGORIES = (
    "ceramic", "concrete", "fabric", "ground", "leather", "marble", "metal", "misc", "plaster", "plastic", "stone",
    "terracotta", "wood",
)  # fmt: skip
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_AGAIN = "build the bank again"


@dataclass(frozen=True)
class MaterialRecord:
    """What is known about a material without its pixels."""

    name: str  # unique in its bank, safe as a file name
    category: str  # one of CATEGORIES, the 13 classes of MatSynth
    license: str  # e.g. "CC0-1.0"
    source: str  # e.g. "megasynth-attr procedural", or source, authors and link as text
    identity: str  # SHA-256 (hex) of the recipe (procedural) or of the map files (disk bank)
    mean_linear_rgb: tuple[float, float, float]  # mean base colour in linear Rec.709
    std_luminance: float  # standard deviation of the linear luminance of the base colour
    mean_roughness: float
    mean_metallic: float


class Bank(ABC):
    """A set of materials. The ``records``, sorted by name, need no pixels; files are made or checked on demand."""

    def __init__(self, records: Iterable[MaterialRecord]) -> None:
        self.records = tuple(sorted(records, key=lambda record: record.name))

    @property
    def identity(self) -> str:
        """Return the SHA-256 (hex) over names and identities of the records: equal banks have equal identities."""
        lines = [f"{record.name}:{record.identity}\n" for record in self.records]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def materialise(self, names: Iterable[str]) -> dict[str, dict[str, Path]]:
        """Return name → map → PNG file for the named materials, all existing and whole; makes what is missing.

        basecolor is 8-bit sRGB colour, normal 8-bit colour in OpenGL convention (+y up), roughness, metallic and
        height are 8-bit grey and linear. Safe when several processes do it at once. Raises ConfigError for a name the
        bank does not have, DatasetError for files that are missing or damaged and cannot be made again.
        """
        known = [record.name for record in self.records]
        wanted = list(dict.fromkeys(names))
        if unknown := set(wanted).difference(known):
            name = min(unknown)
            raise ConfigError(f"the bank has no material {name!r}{nearest(name, known)}")
        return self._files(wanted)

    @abstractmethod
    def _files(self, names: list[str]) -> dict[str, dict[str, Path]]:
        """Return name → map → file for names that the bank has."""


def check_category(category: str) -> None:
    """Raise ConfigError, naming the nearest, for a class of materials that does not exist."""
    if category not in CATEGORIES:
        raise ConfigError(
            f"unknown category {category!r}{nearest(category, CATEGORIES)}; known: {', '.join(CATEGORIES)}"
        )


def record_of(maps: dict[str, Bytes], **known: Any) -> MaterialRecord:
    """Return the record of a material with these maps; ``known`` are the fields that are not measured."""
    return MaterialRecord(**known, **vars(statistics_of(maps)))


def files_identity(hashes: Mapping[str, str]) -> str:
    """Return the identity of a material on disk: the SHA-256 (hex) over the SHA-256 of its map files."""
    return hashlib.sha256("".join(f"{name}:{hashes[name]}\n" for name in MAPS).encode()).hexdigest()


def write_material(folder: Path, maps: dict[str, Bytes], **known: Any) -> dict[str, Any]:
    """Write the maps of a material into ``folder``, which has its name, and return its entry in the bank's index.

    ``known`` are the fields category, license and source of its record.
    """
    files = {}
    for name in MAPS:
        content = png_bytes(maps[name])
        replace_atomically(folder / f"{name}.png", content)
        files[name] = {"file": f"{folder.name}/{name}.png", "sha256": hashlib.sha256(content).hexdigest()}
    identity = files_identity({name: file["sha256"] for name, file in files.items()})
    return {**to_plain(record_of(maps, name=folder.name, identity=identity, **known)), "files": files}


def write_index(path: Path, entries: Iterable[Mapping[str, Any]], size_px: int, **extra: Any) -> None:
    """Write an index file of ``entries`` (records, and files for a disk bank), sorted by name."""
    index = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "size_px": size_px,
        "maps": {
            "basecolor": "sRGB, 8 bit",
            "normal": "non-colour, 8 bit, OpenGL (+y up)",
            "roughness": "non-colour, 8 bit",
            "metallic": "non-colour, 8 bit",
            "height": "non-colour, 8 bit",
        },
        **extra,
        "materials": sorted(entries, key=lambda entry: str(entry["name"])),
    }
    replace_atomically(path, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())


def read_index(path: Path, what_to_do: str) -> dict[str, Any]:
    """Return the parsed index file; raises DatasetError saying what is wrong with it and ``what_to_do``."""
    try:
        index = read_json(path, FORMAT)
    except DatasetError as error:
        raise DatasetError(f"{error}; {what_to_do}") from error
    if (found := index.get("format_version")) != FORMAT_VERSION:
        raise DatasetError(f"{path} has format version {found!r}, this program reads {FORMAT_VERSION}; {what_to_do}")
    if not isinstance(index.get("materials"), list) or not index["materials"]:
        raise DatasetError(f"{path} lists no material; {what_to_do}")
    return index


def read_record(entry: Any, path: Path) -> MaterialRecord:
    """Return the record in an entry of the index ``path``; raises DatasetError saying which field is wrong."""
    fields = [field.name for field in dataclasses.fields(MaterialRecord)]
    data = {name: entry[name] for name in fields if name in entry} if isinstance(entry, dict) else entry
    name = data.get("name", "an entry") if isinstance(entry, dict) else "an entry"
    try:
        record: MaterialRecord = from_plain(MaterialRecord, data, f"{path}: {name}")
    except DatasetError as error:
        raise DatasetError(f"{error}; {_AGAIN}") from error
    if not _SAFE_NAME.fullmatch(record.name):
        raise DatasetError(f"{path}: {record.name!r} is not a safe file name; rename the material in the index")
    try:
        check_category(record.category)
    except ConfigError as error:
        raise DatasetError(f"{path}: {record.name}: {error}") from error
    numbers = (*record.mean_linear_rgb, record.std_luminance, record.mean_roughness, record.mean_metallic)
    if not all(map(math.isfinite, numbers)):
        raise DatasetError(f"{path}: the statistics of {record.name} are not finite numbers; {_AGAIN}")
    return record
