"""MatSynth → a disk bank: choose materials by class and licence, scale them once, record where they come from.

MatSynth: G. Vecchio and V. Deschaintre, "MatSynth: A Modern PBR Materials Dataset", CVPR 2024. Its materials are CC0 or
CC-BY; the index keeps licence, source, authors and link of each, so that a CC-BY material can be credited.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem, importing, run_main
from megasynth_attr.core.fields import REQUIRED, check, setting
from megasynth_attr.core.files import read_json
from megasynth_attr.core.pictures import decode_levels, decode_picture
from megasynth_attr.core.srgb import linear_from_srgb, srgb_from_linear
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.textures.records import (
    CATEGORIES,
    INDEX_NAME,
    check_category,
    read_index,
    write_index,
    write_material,
)
from megasynth_attr.textures.surface import COLOR_MAPS, MAPS, Bytes, to_bytes

HELP = Help(
    usage="python -m megasynth_attr.textures.matsynth source=FOLDER out=FOLDER [key=value ...]",
    explanation="""
Chooses materials of MatSynth by class and licence, scales them once and records where they come from.
source is a folder of parquet shards, a glob of them, or the hub id gvecchio/MatSynth, which is streamed over the
network (about 80 MB per material; the network is used in this case only).
A killed run loses nothing: the same command continues where it stopped. A later run can add other materials.
""",
    examples=(
        "python -m megasynth_attr.textures.matsynth source=gvecchio/MatSynth out=banks/matsynth "
        "categories=[wood,metal] licenses=[CC0] size_px=512 limit=100",
        "python -m megasynth_attr.textures.matsynth source=downloads/matsynth out=banks/matsynth",
    ),
)
HUB_ID = "gvecchio/MatSynth"
LICENSES = ("CC0", "CC-BY", "CC-BY-SA", "CC-BY-NC", "CC-BY-NC-SA", "CC-BY-ND")
MATERIAL_NAME = "material.json"  # written last in a material's folder: the material is complete


@dataclass(frozen=True)
class MatsynthOptions:
    """Where materials come from, which are chosen, and where they go."""

    source: str = setting(REQUIRED, "folder or glob of parquet shards, or gvecchio/MatSynth (network)")
    out: str = setting(REQUIRED, "folder of the bank, e.g. banks/matsynth")
    categories: tuple[str, ...] = setting((), "only these classes, e.g. [wood,metal]; empty: all 13")
    licenses: tuple[str, ...] = setting((), "only these licences, e.g. [CC0]; empty: all")
    size_px: int = setting(512, "width and height of the maps in the bank (MatSynth: 4096)", minimum=16, maximum=4096)
    limit: int = setting(0, "stop after this many materials; 0: no limit", minimum=0)
    split: str = setting("train", "split on the hub, train (5700) or test (89); local shards are read as they are")


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    written: int  # new materials
    kept: int  # chosen materials that were complete already
    skipped: tuple[str, ...]  # names of chosen rows with a missing or corrupt image
    in_bank: int  # materials in the index now


def license_family(text: str) -> str:
    """Return the family of a licence without version and spelling: "CC0-1.0" → "CC0", "CC BY 4.0" → "CC-BY"."""
    words = re.findall(r"CC0|[A-Z]+", text.upper().replace("CCBY", "CC BY"))
    known = [word for word in words if word in ("CC0", "CC", "BY", "SA", "NC", "ND")]
    return "CC0" if "CC0" in known else "-".join(known) or text


def _check(options: MatsynthOptions) -> None:
    for category in options.categories:
        check_category(category)
    for name in options.licenses:
        if license_family(name) not in LICENSES:
            raise ConfigError(f"unknown licence {name!r}{nearest(name, LICENSES)}; known: {', '.join(LICENSES)}")
    check(options, "")


def _shards(source: str) -> list[str]:
    """Return the parquet files of a folder (and its subfolders) or a glob, sorted; DatasetError if there is none."""
    folder = Path(source)
    if folder.is_dir():
        found = sorted(str(path) for path in folder.rglob("*.parquet"))
    else:
        found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    if not found:
        raise DatasetError(
            f"no parquet file in {source!r}; give a folder or a glob of MatSynth shards, or {HUB_ID} for the hub"
        )
    return found


def open_rows(source: str, split: str) -> Iterator[Mapping[str, Any]]:
    """Return the rows of MatSynth one by one, images as undecoded bytes, so that a corrupt one harms only its row.

    Only the needed columns are read. Raises EnvironmentProblem when the package ``datasets`` or the hub is missing,
    DatasetError for shards that cannot be read or lack a column.
    """
    with importing(
        "reading MatSynth needs the package datasets, which cannot be imported ({error}); install it with "
        "pip install 'megasynth-attr[matsynth]' (NumPy 1, which bpy needs, goes with pyarrow below 26)"
    ):
        import datasets
    columns = ["name", "category", "metadata", *MAPS]
    is_hub = source == HUB_ID
    files = [] if is_hub else _shards(source)
    try:
        if is_hub:
            table = datasets.load_dataset(HUB_ID, split=split, streaming=True)
        else:
            table = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        features = table.features or table._resolve_features().features
        missing = [column for column in columns if column not in features]
        if missing:
            raise DatasetError(f"{source} lacks the columns {missing}; it is not MatSynth (has {sorted(features)})")
        table = table.select_columns(columns)
        for column in MAPS:
            if isinstance(features[column], datasets.Image):
                table = table.cast_column(column, datasets.Image(decode=False))
        labels = features["category"].names if isinstance(features["category"], datasets.ClassLabel) else CATEGORIES
        for row in table:
            category = row["category"]
            yield {**row, "category": labels[category] if isinstance(category, int) else category}
    except DatasetError:
        raise
    except Exception as error:  # datasets raises very different types for a broken file and for a dead connection
        if is_hub:
            raise EnvironmentProblem(
                f"cannot read {HUB_ID} from the hub ({type(error).__name__}: {error}); check the network and run the "
                "same command again, which continues where it stopped, or download the shards and give their folder"
            ) from error
        raise DatasetError(
            f"cannot read the shards in {source} ({type(error).__name__}: {error}); download the broken one again"
        ) from error


def _resized(image: np.ndarray, size_px: int) -> np.ndarray:
    """Return float32 (size_px, size_px, C) from (N, N, C), Lanczos with wrap-around borders: it still tiles."""
    n = image.shape[0]
    if n == size_px:
        return image
    margin = min(n, int(np.ceil(3 * max(1.0, n / size_px))))  # as far as the filter reaches
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="wrap").astype(np.float32)
    context = int(np.floor(margin * size_px / n))  # whole pixels of the result that are scaled with it, on every side
    full, first, last = size_px + 2 * context, margin - context * n / size_px, margin + n + context * n / size_px
    planes = [
        np.asarray(Image.fromarray(plane).resize((full, full), Image.Resampling.LANCZOS, (first, first, last, last)))
        for plane in np.moveaxis(padded, -1, 0)
    ]
    return np.stack(planes, axis=-1)[context : context + size_px, context : context + size_px]


def _decoded(cell: Any, name: str) -> np.ndarray:
    """Return the map ``name`` as float32 in 0 … 1, (N, N, 3) or (N, N, 1); raises DatasetError when it cannot.

    What is 1 depends on the file's type alone: 255, 65535, or 1 in floating point.
    """
    title, advice = f"the {name} map", "download its shard again"
    if not isinstance(cell, Mapping) or not cell.get("bytes"):
        raise DatasetError(f"{title} is missing")
    if name in COLOR_MAPS:
        image = decode_picture(cell["bytes"], title, advice).image.convert("RGB")
        pixels = np.asarray(image).astype(np.float32) / np.float32(255)
    else:
        pixels = decode_levels(cell["bytes"], title, advice)[..., None]
    if pixels.shape[0] != pixels.shape[1]:
        raise DatasetError(f"{title} is not square ({pixels.shape[1]} × {pixels.shape[0]})")
    return pixels


def bank_maps(row: Mapping[str, Any], size_px: int) -> dict[str, Bytes]:
    """Return the five 8-bit maps of a row; raises DatasetError naming the map that is missing or does not decode.

    Base colour is scaled in linear light, normals are made unit vectors again after scaling.
    """
    maps: dict[str, Bytes] = {}
    for name in MAPS:
        pixels = _decoded(row.get(name), name)
        if name == "basecolor":
            linear = _resized(linear_from_srgb(pixels).astype(np.float32), size_px)
            maps[name] = to_bytes(srgb_from_linear(linear))
        elif name == "normal":
            vector = _resized(pixels * 2 - 1, size_px)
            length = np.linalg.norm(vector, axis=-1, keepdims=True)
            vector = np.where(length > 1e-3, vector / np.maximum(length, 1e-3), np.array([0.0, 0.0, 1.0]))
            maps[name] = to_bytes(vector * 0.5 + 0.5)
        else:
            maps[name] = to_bytes(_resized(pixels, size_px)[..., 0])
    return maps


def _safe_name(name: str) -> str:
    """Return a file-safe name; names that needed a change get a short hash so that they stay different."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:100]
    return safe if safe == name else f"{safe or 'material'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _source_text(metadata: Mapping[str, Any]) -> str:
    """Return "MatSynth; <source>; <authors>; <link>", leaving out what is unknown."""
    authors = ", ".join(str(author) for author in metadata.get("authors") or [] if author)
    parts = ("MatSynth", metadata.get("source"), authors, metadata.get("link"))
    return "; ".join(str(part) for part in parts if part)


def _write_material(folder: Path, row: Mapping[str, Any], maps: dict[str, Bytes], size_px: int) -> None:
    """Write the maps and, last, material.json, which says that the folder is complete."""
    metadata = row.get("metadata") or {}
    terms = str(metadata.get("license") or "unknown")
    entry = {
        **write_material(
            folder,
            maps,
            category=row["category"],
            license="CC0-1.0" if license_family(terms) == "CC0" else terms,
            source=_source_text(metadata),
        ),
        "size_px": size_px,
        "original_name": row["name"],
        "authors": list(metadata.get("authors") or []),
        "link": metadata.get("link"),
        "physical_size": metadata.get("physical_size"),
        "tags": list(metadata.get("tags") or []),
    }
    replace_atomically(folder / MATERIAL_NAME, (json.dumps(entry, indent=1, ensure_ascii=False) + "\n").encode())


def _complete(folder: Path, size_px: int) -> dict[str, Any] | None:
    """Return the entry of a finished material, or None; raises ConfigError when it has another size."""
    try:
        entry = read_json(folder / MATERIAL_NAME)
    except DatasetError:
        return None
    if "files" not in entry:
        return None
    if entry.get("size_px") != size_px:
        raise ConfigError(
            f"{folder} holds a material of {entry.get('size_px')} px, not {size_px}; give another out= or that size_px"
        )
    return entry if all((folder / f"{name}.png").is_file() for name in MAPS) else None


def build_bank(options: MatsynthOptions) -> Summary:
    """Build or continue the bank and return what was done.

    Raises ConfigError for an unknown category or licence (naming the nearest) and for a bank of another size,
    DatasetError when nothing fits the choice, and what ``open_rows`` raises.
    """
    _check(options)
    out = Path(options.out)
    if (out / INDEX_NAME).exists():
        size = read_index(out / INDEX_NAME, "remove it or give another out=").get("size_px")
        if size != options.size_px:
            raise ConfigError(
                f"{out} is a bank of {size} px, not {options.size_px}; give another out= or size_px={size}"
            )
    wanted_licenses = {license_family(name) for name in options.licenses}
    written, kept, seen = 0, 0, 0
    skipped: list[str] = []
    with tqdm(desc="materials", unit="material", total=options.limit or None, disable=None) as bar:
        for row in open_rows(options.source, options.split):
            seen += 1
            license_text = str((row.get("metadata") or {}).get("license") or "")
            if options.categories and row["category"] not in options.categories:
                continue
            if wanted_licenses and license_family(license_text) not in wanted_licenses:
                continue
            folder = out / _safe_name(str(row["name"]))
            if _complete(folder, options.size_px) is not None:
                kept += 1
            else:
                try:
                    maps = bank_maps(row, options.size_px)
                except DatasetError as error:
                    skipped.append(str(row["name"]))
                    warnings.warn(f"skipped {row['name']}: {error}", stacklevel=2)
                    continue
                _write_material(folder, row, maps, options.size_px)
                written += 1
            bar.update()
            if options.limit and written + kept >= options.limit:
                break
    if written + kept == 0:
        raise DatasetError(
            f"none of the {seen} rows of {options.source} became a material (categories "
            f"{list(options.categories) or 'all'}, licences {list(options.licenses) or 'all'}, {len(skipped)} skipped "
            "as damaged); widen the choice"
        )
    folders = sorted(path for path in out.iterdir() if path.is_dir())
    entries = [entry for entry in (_complete(folder, options.size_px) for folder in folders) if entry is not None]
    write_index(out / INDEX_NAME, entries, options.size_px, source=options.source)
    return Summary(written, kept, tuple(skipped), len(entries))


def main(argv: list[str]) -> None:
    """Build the bank and print a summary."""
    options = parse(MatsynthOptions, argv, HELP)
    warnings.showwarning = lambda message, *_: tqdm.write(f"warning: {message}", file=sys.stderr)
    done = build_bank(options)
    print(
        f"{done.written} materials written, {done.kept} were there, {len(done.skipped)} skipped; "
        f"{options.out} now has {done.in_bank} ({options.size_px} px)"
    )


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
