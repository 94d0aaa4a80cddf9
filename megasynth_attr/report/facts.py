"""What is known about a dataset from its files, for the page: counts, hashes, checks, licences, sizes. No pictures."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import Part, from_plain, hints_of, plain_text
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import read_json
from megasynth_attr.dataset.paths import (
    DATASET_FILE,
    FAILURES,
    LAYERS,
    RENDER_FILE,
    VERIFY_FILE,
    finished_scenes,
    scene_path,
)
from megasynth_attr.dataset.reader import Dataset
from megasynth_attr.dataset.scene_files import file_sizes, scene_file
from megasynth_attr.report.checks import Verification, read_verification
from megasynth_attr.scene.factor import registered


@dataclass(frozen=True)
class LayerSize:
    """Bytes on disk of one kind of file."""

    name: str
    files: int
    size_bytes: int

    @property
    def bytes_per_file(self) -> float:
        return self.size_bytes / self.files if self.files else 0.0


@dataclass(frozen=True)
class Facts:
    """The measured facts of one dataset. ``isolation`` and ``verification`` are None where the stage has not run."""

    folder: Path
    record: Mapping[str, Any]  # dataset.json
    scene_indices: tuple[int, ...]  # scenes that are complete
    factors: tuple[str, ...]  # in drawing order
    varying: tuple[str, ...]  # factors configured to be drawn anew for every scene
    hashes: Mapping[str, Mapping[str, str]]  # scene name → factor → SHA-256; empty before the dataset is finalised
    isolation: Mapping[str, Any] | None
    verification: Verification | None
    materials: tuple[Mapping[str, Any], ...]
    failures: tuple[Mapping[str, Any], ...]
    layers: tuple[LayerSize, ...]
    renderers: Mapping[str, int]  # "Blender 5.0.1 · cpu · default" → scenes rendered that way
    meshes: Mapping[str, str]  # scene name → the mesh file that it shows; empty unless scenes show meshes

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def planned(self) -> int:
        return int(self.record["scene_count"])

    @property
    def frames(self) -> int:
        """Return the number of frames of all complete scenes: their RGB files."""
        return sum(layer.files for layer in self.layers if layer.name == "rgb")

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self.layers)

    def distinct(self, factor: str) -> int:
        """Return how many different values ``factor`` takes among the scenes with known hashes."""
        return len({scene.get(factor) for scene in self.hashes.values()})

    @property
    def hashed_factors(self) -> tuple[str, ...]:
        """Return the names under which hashes are known: the factors, then "noise" (Cycles' own seed)."""
        known = {name for scene in self.hashes.values() for name in scene}
        return tuple(f for f in self.factors if f in known) + tuple(sorted(known - set(self.factors)))


@dataclass(frozen=True)
class _Isolation(Part):
    """What pages show of a row of the isolation matrix."""

    reference: str
    scenes: int
    relative: dict[str, float | None]


@dataclass(frozen=True)
class _Shown(Part):
    """What pages show of dataset.json, besides what is checked when it is opened."""

    fingerprint: str
    conventions: dict[str, str]
    isolation: _Isolation | None = None


def read_facts(dataset: Dataset) -> Facts:
    """Return the facts of ``dataset``; DatasetError if a file is damaged or its record incomplete."""
    folder, record = dataset.path, dataset.record
    try:
        settings = record["config"]["factors"]
        scopes = {name: str(value["scope"]) for name, value in settings.items()}
        int(record["scene_count"])
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{folder / DATASET_FILE}: the record is incomplete ({type(error).__name__}: {error}); "
            "was it edited? run the generate stage again with the same settings"
        ) from None
    isolation = record.get("isolation") or None
    from_plain(_Shown, {**record, "isolation": isolation}, f"{folder / DATASET_FILE}: record")
    indices = tuple(finished_scenes(folder))
    factors = factor_order(scopes)
    return Facts(
        folder=folder,
        record=record,
        scene_indices=indices,
        factors=factors,
        varying=tuple(f for f in factors if scopes[f] == "scene"),
        hashes={
            name: from_plain(dict[str, str], entry.get("hashes"), f"{folder / DATASET_FILE}: scenes.{name}")
            for name, entry in dataset.listed() or ()
        },
        isolation=isolation,
        verification=read_verification(folder / VERIFY_FILE),
        materials=tuple(record.get("materials") or ()),
        failures=tuple(read_json(path) for path in sorted((folder / FAILURES).glob("*.json"))),
        layers=_layer_sizes(folder, indices),
        renderers=_renderers(folder, indices),
        meshes=_meshes(dataset) if settings.get("geometry", {}).get("layout") == "scan" else {},
    )


def factor_order(names: Mapping[str, Any]) -> tuple[str, ...]:
    """Return factor names in drawing order; those this process does not know (a plugin's) come last, by name."""
    known = [name for name in registered() if name in names]
    return tuple(known + sorted(set(names) - set(known)))


def _layer_sizes(folder: Path, indices: Sequence[int]) -> tuple[LayerSize, ...]:
    files: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for index in indices:
        for name, size in file_sizes(scene_path(folder, index)).items():
            folder_name = name.partition("/")[0]
            layer = folder_name if folder_name in LAYERS else "json"
            files[layer] += 1
            sizes[layer] += size
    return tuple(LayerSize(name, files[name], sizes[name]) for name in (*LAYERS, "json") if files[name])


def _renderers(folder: Path, indices: Sequence[int]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for index in indices:
        record = read_json(scene_file(scene_path(folder, index), RENDER_FILE))
        shown = [f"Blender {record['blender']}" if "blender" in record else "unknown renderer"]
        counts[" · ".join(shown + [str(record[k]) for k in ("device", "quality") if k in record])] += 1
    return dict(sorted(counts.items()))


def _meshes(dataset: Dataset) -> dict[str, str]:
    scans = {scene.name: scene.scene.factors["geometry"].scan for scene in dataset.each_scene()}
    return {name: scan.name for name, scan in scans.items() if scan is not None}


def settings_text(config: Mapping[str, Any]) -> str:
    """Return a record's settings, one key a line, with the ranges of the known factors in words: 45 … 70."""
    factors = {name: _ranges_in_words(name, values) for name, values in config["factors"].items()}
    return "\n".join(_lines({**config, "factors": factors}))


def _lines(table: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in sorted(table.items()):
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {plain_text(value)}"


def _ranges_in_words(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    shown, known = dict(values), registered()
    kind: Any = known[name].settings if name in known else None
    for field in dataclasses.fields(kind) if kind else ():
        if "pair" in field.metadata and (given := values.get(field.name)):
            hint = hints_of(kind)[field.name]
            shown[field.name] = str(from_plain(hint, given, f"{name}.{field.name}", field.metadata["pair"]))
    return shown


def licence_counts(materials: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Return (licence, number of materials under it), most frequent first."""
    counts = Counter(str(m.get("license") or "not stated") for m in materials)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def hash_rows(facts: Facts, limit: int) -> tuple[list[str], list[tuple[str, int, list[tuple[str, int]]]]]:
    """Return the scenes shown, and per factor (name, distinct values, one (hash, rank) per scene shown).

    The rank counts the different hashes of one factor in order of appearance, from 0: equal rank, equal hash.
    """
    scenes = sorted(facts.hashes)[:limit]
    rows = []
    for factor in facts.hashed_factors:
        ranks: dict[str, int] = {}
        cells = [facts.hashes[s].get(factor, "") for s in scenes]
        rows.append((factor, facts.distinct(factor), [(h, ranks.setdefault(h, len(ranks))) for h in cells]))
    return scenes, rows
