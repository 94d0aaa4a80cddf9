"""The embedded bank of procedural materials: records from a shipped index, files painted on demand.

The index holds name, class, licence, recipe identity and statistics (measured at 256 px), so opening the bank paints
nothing. Renew it after every change of a recipe; a test compares it with the recipes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, DatasetError, run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.textures.procedural.recipes import BANK_SEED, BANK_VERSION, Recipe, read_recipes, recipes_path
from megasynth_attr.textures.records import (
    INDEX_NAME,
    Bank,
    check_category,
    read_index,
    read_record,
    record_of,
    write_index,
    write_material,
)
from megasynth_attr.textures.surface import MAPS, png_bytes

HELP = Help(
    usage="python -m megasynth_attr.textures.procedural.bank out=FOLDER|index=FILE [key=value ...]",
    explanation="Writes the procedural materials as a disk bank, or renews the shipped index of them.",
    examples=(
        "python -m megasynth_attr.textures.procedural.bank out=banks/procedural size_px=512",
        "python -m megasynth_attr.textures.procedural.bank index=assets/materials/procedural_index.json",
    ),
)
LICENSE = "CC0-1.0"
SOURCE = "megasynth-attr procedural"
STATISTICS_SIZE_PX = 256
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def _is_whole_png(path: Path) -> bool:
    """Return whether ``path`` is a PNG file with both its ends; a file cut short by a full disk has no end."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(_PNG_END)


def _painting_code() -> str:
    """Return the SHA-256 (hex) of the source files beside this one, so that changed code does not use old files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class ProceduralBank(Bank):
    """The embedded bank; its files are made when first asked for and kept under ``cache_dir``."""

    def __init__(self, cache_dir: Path, size_px: int) -> None:
        """Read the shipped recipes and index; raises DatasetError when they do not belong to each other."""
        self._recipes = read_recipes(recipes_path())
        path = recipes_path().with_name("procedural_index.json")
        remedy = f"renew it with python -m megasynth_attr.textures.procedural.bank index={path}"
        records = [read_record(entry, path) for entry in read_index(path, remedy)["materials"]]
        if {r.name: r.identity for r in records} != {name: recipe.identity for name, recipe in self._recipes.items()}:
            raise DatasetError(f"{path} does not fit the recipes; {remedy}")
        self._folder = cache_dir / f"procedural-v{BANK_VERSION}-{size_px}px"
        self._size_px = size_px
        self._code = _painting_code()
        super().__init__(records)

    def _files(self, names: list[str]) -> dict[str, dict[str, Path]]:
        """Return the files, painting those that are missing or cut short.

        Every file is moved into place whole, and every process would write the same bytes, so concurrent calls are
        harmless. A material's folder is named after its recipe and the code: after a change of either it is a new one.
        """
        with ThreadPoolExecutor(os.cpu_count()) as painters:  # NumPy and zlib let go of the interpreter lock
            return dict(zip(names, painters.map(self._files_of, names), strict=True))

    def _files_of(self, name: str) -> dict[str, Path]:
        """Return the files of one material, painted if need be."""
        recipe = self._recipes[name]
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
    entries = [
        write_material(
            folder / recipe.name, recipe.maps(size_px), category=recipe.category, license=LICENSE, source=SOURCE
        )
        for recipe in tqdm(list(recipes), desc="materials", unit="material", disable=None)
    ]
    write_index(folder / INDEX_NAME, entries, size_px, bank_version=BANK_VERSION, seed=BANK_SEED)
    return len(entries)


def renew_index(path: Path, recipes: Iterable[Recipe]) -> int:
    """Write the index of ``recipes``, with statistics measured at 256 px, and return their number."""
    entries = [
        to_plain(
            record_of(
                recipe.maps(STATISTICS_SIZE_PX),
                name=recipe.name,
                category=recipe.category,
                license=LICENSE,
                source=SOURCE,
                identity=recipe.identity,
            )
        )
        for recipe in tqdm(list(recipes), desc="materials", unit="material", disable=None)
    ]
    write_index(path, entries, STATISTICS_SIZE_PX, bank_version=BANK_VERSION, seed=BANK_SEED)
    return len(entries)


@dataclass(frozen=True)
class ProceduralOptions:
    """What is written: the materials as a disk bank, or the shipped index."""

    out: str = setting("", "folder of the disk bank to write, e.g. banks/procedural")
    index: str = setting("", "index file to write instead, e.g. assets/materials/procedural_index.json")
    size_px: int = setting(512, "width and height of the maps of the disk bank", minimum=1)
    categories: tuple[str, ...] = setting((), "only these classes, e.g. [wood,metal]; empty: all")


def main(argv: list[str]) -> None:
    """Write the disk bank or the index; raises ConfigError for wrong arguments."""
    options = parse(ProceduralOptions, argv, HELP)
    if bool(options.out) == bool(options.index):
        raise ConfigError("give either out=<folder> (write the bank) or index=<file> (renew the shipped index)")
    recipes = read_recipes(recipes_path()).values()
    if options.index:
        print(f"wrote {renew_index(Path(options.index), recipes)} records to {options.index}")
        return
    for category in options.categories:
        check_category(category)
    chosen = [recipe for recipe in recipes if not options.categories or recipe.category in options.categories]
    print(f"wrote {write_bank(Path(options.out), options.size_px, chosen)} materials to {options.out}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
