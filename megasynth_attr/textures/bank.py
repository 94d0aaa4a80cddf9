"""Banks of materials: what there is (records), and where its image files are (materialise).

A record is known without any pixel being computed, so scenes can be sampled before a single image exists. Files are
made or checked only when asked for.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.textures.command_line import nearest
from megasynth_attr.textures.procedural.recipe import BANK_VERSION, CATEGORIES
from megasynth_attr.textures.surface import MAPS as MAPS

FORMAT = "megasynth-attr-bank"
FORMAT_VERSION = 1
INDEX_NAME = "index.json"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class MaterialRecord:
    """What is known about a material without its pixels."""

    name: str  # unique in its bank, safe as a file name
    category: str  # one of the 13 classes of MatSynth, see recipe.CATEGORIES
    license: str  # e.g. "CC0-1.0"
    source: str  # e.g. "megasynth-attr procedural", or source, authors and link as text
    identity: str  # SHA-256 (hex) of the recipe (procedural) or of the map files (disk bank)
    mean_linear_rgb: tuple[float, float, float]  # mean base colour in linear Rec.709
    std_luminance: float  # standard deviation of the linear luminance of the base colour
    mean_roughness: float
    mean_metallic: float


class Bank(Protocol):
    """A set of materials."""

    @property
    def records(self) -> tuple[MaterialRecord, ...]:
        """Return all records, sorted by name; costs no pixel."""

    @property
    def identity(self) -> str:
        """Return the SHA-256 (hex) over the records' identities: equal banks have equal identities."""

    def materialise(self, names: Iterable[str]) -> dict[str, dict[str, Path]]:
        """Return name → map → PNG file for the named materials, all existing and whole; makes what is missing.

        basecolor is 8-bit sRGB colour, normal 8-bit colour in OpenGL convention (+y up), roughness, metallic and
        height are 8-bit grey and linear. Safe when several processes do it at once. Raises ConfigError for a name the
        bank does not have, DatasetError for files that are missing or damaged and cannot be made again.
        """


def bank_identity(records: Iterable[MaterialRecord]) -> str:
    """Return the SHA-256 (hex) over the names and identities of ``records`` in order of name."""
    lines = sorted(f"{record.name}:{record.identity}\n" for record in records)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files_identity(hashes: Mapping[str, str]) -> str:
    """Return the identity of a material on disk: the SHA-256 (hex) over the SHA-256 of its map files."""
    return hashlib.sha256("".join(f"{name}:{hashes[name]}\n" for name in MAPS).encode()).hexdigest()


def checked_names(bank: Bank, names: Iterable[str]) -> list[str]:
    """Return ``names`` without repetitions, in order; raises ConfigError naming the nearest for an unknown one."""
    known = [record.name for record in bank.records]
    have = set(known)
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in have:
            raise ConfigError(f"the bank has no material {name!r}{nearest(name, known)}")
    return wanted


def record_to_json(record: MaterialRecord) -> dict[str, Any]:
    """Return the JSON object of a record, as it stands in an index."""
    return {
        "name": record.name,
        "category": record.category,
        "license": record.license,
        "source": record.source,
        "identity": record.identity,
        "mean_linear_rgb": list(record.mean_linear_rgb),
        "std_luminance": record.std_luminance,
        "mean_roughness": record.mean_roughness,
        "mean_metallic": record.mean_metallic,
    }


def record_from_json(entry: Mapping[str, Any], where: str) -> MaterialRecord:
    """Return the record of a JSON object; raises DatasetError saying which field of ``where`` is wrong."""
    try:
        values = {key: entry[key] for key in ("name", "category", "license", "source", "identity")}
        numbers = [float(entry[key]) for key in ("std_luminance", "mean_roughness", "mean_metallic")]
        color = [float(value) for value in entry["mean_linear_rgb"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: an entry lacks or garbles a field ({error!r}); build the bank again") from error
    for key, value in values.items():
        if not isinstance(value, str):
            raise DatasetError(f"{where}: {key} should be text but is {value!r}; build the bank again")
    if not _SAFE_NAME.fullmatch(values["name"]):
        raise DatasetError(f"{where}: {values['name']!r} is not a safe file name; rename the material in the index")
    if values["category"] not in CATEGORIES:
        raise DatasetError(
            f"{where}: {values['name']} has the unknown category {values['category']!r}"
            f"{nearest(values['category'], CATEGORIES)}"
        )
    if len(color) != 3 or not all(math.isfinite(value) for value in (*color, *numbers)):
        raise DatasetError(f"{where}: the statistics of {values['name']} are not finite numbers; build the bank again")
    return MaterialRecord(
        **values,
        mean_linear_rgb=(color[0], color[1], color[2]),
        std_luminance=numbers[0],
        mean_roughness=numbers[1],
        mean_metallic=numbers[2],
    )


def read_index(path: Path, what_to_do: str) -> dict[str, Any]:
    """Return the parsed index file; raises DatasetError saying what is wrong with it and ``what_to_do``."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist; {what_to_do}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read as JSON ({error}); {what_to_do}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DatasetError(f"{path} is not the index of a material bank (no format {FORMAT!r}); {what_to_do}")
    if index.get("format_version") != FORMAT_VERSION:
        raise DatasetError(
            f"{path} has format version {index.get('format_version')!r}, this program reads {FORMAT_VERSION}; "
            f"{what_to_do}"
        )
    if not isinstance(index.get("materials"), list) or not index["materials"]:
        raise DatasetError(f"{path} lists no material; {what_to_do}")
    return index


def index_json(entries: Iterable[Mapping[str, Any]], size_px: int, **extra: Any) -> bytes:
    """Return the bytes of an index file for ``entries`` (records, and files for a disk bank), sorted by name."""
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
    return (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode()


class DiskBank:
    """A bank in a folder: ``index.json`` and the files it names, made for example from MatSynth."""

    def __init__(self, folder: Path) -> None:
        """Read the index; raises DatasetError when the folder or the index is missing or invalid."""
        remedy = "make the bank first (python -m megasynth_attr.textures.matsynth --help) or use bank=procedural"
        if not folder.is_dir():
            raise DatasetError(f"the material bank {folder} is not a folder; {remedy}")
        path = folder / INDEX_NAME
        index = read_index(path, remedy)
        self._folder = folder
        self._hashes: dict[str, dict[str, str]] = {}
        self._files: dict[str, dict[str, Path]] = {}
        self._checked: set[str] = set()
        records = []
        for entry in index["materials"]:
            record = record_from_json(entry if isinstance(entry, dict) else {}, str(path))
            if record.name in self._files:
                raise DatasetError(f"{path}: {record.name} stands there twice; build the bank again")
            files = entry.get("files")
            if not isinstance(files, dict) or any(
                not isinstance(files.get(name), dict) or not {"file", "sha256"} <= set(files[name]) for name in MAPS
            ):
                raise DatasetError(f"{path}: {record.name} does not name a file and its sha256 for every map of {MAPS}")
            hashes = {name: str(files[name]["sha256"]) for name in MAPS}
            if files_identity(hashes) != record.identity:
                raise DatasetError(
                    f"{path}: the identity of {record.name} does not fit its files; build the bank again"
                )
            for name in MAPS:
                part = Path(str(files[name]["file"]))
                if part.is_absolute() or ".." in part.parts:
                    raise DatasetError(f"{path}: {record.name} names the file {part}, which lies outside the bank")
            self._hashes[record.name] = hashes
            self._files[record.name] = {name: folder / str(files[name]["file"]) for name in MAPS}
            records.append(record)
        self._records = tuple(sorted(records, key=lambda record: record.name))

    @property
    def records(self) -> tuple[MaterialRecord, ...]:
        """Return all records, sorted by name."""
        return self._records

    @property
    def identity(self) -> str:
        """Return the SHA-256 (hex) over the records' identities."""
        return bank_identity(self._records)

    def materialise(self, names: Iterable[str]) -> dict[str, dict[str, Path]]:
        """Return the files of the named materials after comparing each with its hash in the index (once per bank)."""
        wanted = checked_names(self, names)
        for name in wanted:
            if name not in self._checked:
                self._check(name)
                self._checked.add(name)
        return {name: dict(self._files[name]) for name in wanted}

    def _check(self, name: str) -> None:
        for map_name, path in self._files[name].items():
            try:
                found = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise DatasetError(
                    f"the {map_name} map of {name} cannot be read: {path} ({error.strerror}); "
                    f"copy it again or build the bank {self._folder} again"
                ) from error
            if found != self._hashes[name][map_name]:
                raise DatasetError(
                    f"the {map_name} map of {name} is damaged or was changed: {path} does not have the sha256 of the "
                    f"index; copy it again or build the bank {self._folder} again"
                )


def open_bank(spec: str, *, cache_dir: Path, size_px: int) -> Bank:
    """Return the bank named by ``spec``: "procedural", or the path of a folder with an index.json.

    The procedural bank makes its files on demand, ``size_px`` square, under ``cache_dir`` in a folder named after the
    bank's version and the size; a disk bank has the size it was built with. Raises DatasetError when the folder, the
    index or its entries are missing or invalid, ConfigError for a size outside 16 … 8192.
    """
    if not 16 <= size_px <= 8192:
        raise ConfigError(f"texture size {size_px} px is outside 16 … 8192; 512 is the default, 256 is quick")
    if spec == "procedural":
        from megasynth_attr.textures.procedural.bank import ProceduralBank  # imports this module

        return ProceduralBank(Path(cache_dir) / f"procedural-v{BANK_VERSION}-{size_px}px", size_px)
    return DiskBank(Path(spec))
