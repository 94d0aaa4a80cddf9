"""The embedded bank of procedural materials: records from a shipped index, files painted on demand.

    python -m megasynth_attr.textures.procedural.bank out=banks/procedural size_px=512    write it as a disk bank
    python -m megasynth_attr.textures.procedural.bank index=assets/materials/procedural_index.json    renew the index

The index holds name, class, licence, recipe identity and statistics (measured at 256 px), so opening the bank paints
nothing. Renew it after every change of a recipe; a test compares it with the code.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from megasynth_attr.core.errors import ConfigError, DatasetError, run_main
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.textures.bank import (
    INDEX_NAME,
    MAPS,
    MaterialRecord,
    bank_identity,
    checked_names,
    files_identity,
    index_json,
    read_index,
    record_from_json,
    record_to_json,
)
from megasynth_attr.textures.command_line import parse_arguments
from megasynth_attr.textures.procedural.materials import RECIPES
from megasynth_attr.textures.procedural.recipe import BANK_SEED, BANK_VERSION, Recipe
from megasynth_attr.textures.surface import Bytes, png_bytes, statistics_of

LICENSE = "CC0-1.0"
SOURCE = "megasynth-attr procedural"
STATISTICS_SIZE_PX = 256
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def index_path() -> Path:
    """Return the shipped index file."""
    return resource_dir("assets") / "materials" / "procedural_index.json"


def make_record(recipe: Recipe, maps: dict[str, Bytes], identity: str) -> MaterialRecord:
    """Return the record of a painted recipe."""
    measured = statistics_of(maps)
    return MaterialRecord(
        name=recipe.name,
        category=recipe.category,
        license=LICENSE,
        source=SOURCE,
        identity=identity,
        mean_linear_rgb=measured.mean_linear_rgb,
        std_luminance=measured.std_luminance,
        mean_roughness=measured.mean_roughness,
        mean_metallic=measured.mean_metallic,
    )


def _is_whole_png(path: Path) -> bool:
    """Return whether ``path`` is a PNG file with both its ends; a file cut short by a full disk has no end."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(_PNG_END)


def _painting_code() -> str:
    """Return the SHA-256 (hex) of the source files beside this one: a developer's change must not meet old files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class ProceduralBank:
    """The embedded bank; its files are made when first asked for and kept in ``folder``."""

    def __init__(self, folder: Path, size_px: int) -> None:
        """Read the shipped index; raises DatasetError when it does not belong to this code."""
        path = index_path()
        remedy = f"renew it with python -m megasynth_attr.textures.procedural.bank index={path}"
        index = read_index(path, remedy)
        records = [record_from_json(entry, str(path)) for entry in index["materials"]]
        if {r.name: r.identity for r in records} != {name: recipe.identity for name, recipe in RECIPES.items()}:
            raise DatasetError(f"{path} does not fit the recipes in the code; {remedy}")
        self._folder = folder
        self._size_px = size_px
        self._code = _painting_code()
        self._records = tuple(sorted(records, key=lambda record: record.name))

    @property
    def records(self) -> tuple[MaterialRecord, ...]:
        """Return all records, sorted by name."""
        return self._records

    @property
    def identity(self) -> str:
        """Return the SHA-256 (hex) over the recipes' identities; independent of the size."""
        return bank_identity(self._records)

    def materialise(self, names: Iterable[str]) -> dict[str, dict[str, Path]]:
        """Return the files of the named materials, painting those that are missing or cut short.

        Every file is moved into place whole, and every process would write the same bytes, so concurrent calls are
        harmless. A material's folder is named after its recipe and the code: after a change of either it is a new one.
        """
        with ThreadPoolExecutor(os.cpu_count()) as painters:  # NumPy and zlib let go of the interpreter lock
            names = checked_names(self, names)
            return dict(zip(names, painters.map(self._files_of, names), strict=True))

    def _files_of(self, name: str) -> dict[str, Path]:
        """Return the files of one material, painted if need be."""
        recipe = RECIPES[name]
        version = hashlib.sha256(f"{recipe.identity}{self._code}".encode()).hexdigest()[:12]
        folder = self._folder / f"{name}-{version}"
        files = {map_name: folder / f"{map_name}.png" for map_name in MAPS}
        missing = [map_name for map_name in MAPS if not _is_whole_png(files[map_name])]
        painted = recipe.maps(self._size_px) if missing else {}
        for map_name in missing:
            try:
                replace_atomically(files[map_name], png_bytes(painted[map_name]))
            except OSError as error:
                raise DatasetError(
                    f"cannot write {files[map_name]} ({error.strerror}); "
                    "choose a cache folder that is writable and has room"
                ) from error
        return files


def write_bank(folder: Path, size_px: int, recipes: Iterable[Recipe]) -> int:
    """Write ``recipes`` as a disk bank into ``folder`` and return their number; the index comes last."""
    entries: list[dict[str, Any]] = []
    for recipe in tqdm(list(recipes), desc="materials", unit="material", disable=None):
        maps = recipe.maps(size_px)
        files: dict[str, dict[str, str]] = {}
        for name in MAPS:
            content = png_bytes(maps[name])
            replace_atomically(folder / recipe.name / f"{name}.png", content)
            files[name] = {"file": f"{recipe.name}/{name}.png", "sha256": hashlib.sha256(content).hexdigest()}
        identity = files_identity({name: files[name]["sha256"] for name in MAPS})
        entries.append({**record_to_json(make_record(recipe, maps, identity)), "files": files})
    replace_atomically(folder / INDEX_NAME, index_json(entries, size_px, bank_version=BANK_VERSION, seed=BANK_SEED))
    return len(entries)


def write_index(path: Path) -> int:
    """Write the index of all recipes, with statistics measured at 256 px, and return their number."""
    entries = [
        record_to_json(make_record(recipe, recipe.maps(STATISTICS_SIZE_PX), recipe.identity))
        for recipe in tqdm(list(RECIPES.values()), desc="materials", unit="material", disable=None)
    ]
    content = index_json(entries, STATISTICS_SIZE_PX, bank_version=BANK_VERSION, seed=BANK_SEED)
    replace_atomically(path, content)
    return len(entries)


@dataclass(frozen=True)
class ProceduralOptions:
    """Options of the command."""

    out: str = ""  # folder of the disk bank to write, e.g. banks/procedural
    index: str = ""  # index file to write instead, e.g. assets/materials/procedural_index.json
    size_px: int = 512  # width and height of the maps of the disk bank
    categories: tuple[str, ...] = ()  # only these classes, e.g. [wood,metal]; empty means all


def main(argv: list[str]) -> None:
    """Write the disk bank or the index; raises ConfigError for wrong arguments."""
    options = parse_arguments(ProceduralOptions, argv, "megasynth_attr.textures.procedural.bank", __doc__)
    if options is None:
        return
    if bool(options.out) == bool(options.index):
        raise ConfigError("give either out=<folder> (write the bank) or index=<file> (renew the shipped index)")
    if options.index:
        print(f"wrote {write_index(Path(options.index))} records to {options.index}")
        return
    known = sorted({recipe.category for recipe in RECIPES.values()})
    for category in options.categories:
        if category not in known:
            from megasynth_attr.textures.command_line import nearest

            raise ConfigError(f"unknown category {category!r}{nearest(category, known)}")
    chosen = [r for r in RECIPES.values() if not options.categories or r.category in options.categories]
    print(f"wrote {write_bank(Path(options.out), options.size_px, chosen)} materials to {options.out}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
