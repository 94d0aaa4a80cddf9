"""A tiny dataset, and ways to spoil a copy of it, for the fuzzers. Everything follows from a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import synthetic

from megasynth_attr.core.codec import content_hash
from megasynth_attr.core.files import json_bytes, sha256_of
from megasynth_attr.dataset.record_file import sealed

NAMES = (
    "../../x", "/etc/passwd", "/tmp/x", "a/b", ".", "..", "", "x\0y", "x" * 300, "CON", "nul.txt", "a\nb", "\\\\h",
    "a\\b", "\ud800", "~", "x/../../../y", "//x", "./x", "\x1b[2J",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *NAMES, None, True, 0, -1, 1, 0.5, 10**9, 2**63, -(2**64), 10**400, 1e308, -1e308, 5e-324, float("nan"),
    float("inf"), [], {}, [[]], [1, "two"], {"a": {"b": []}}, "text", "1e400", [0.0] * 4, "0" * 64,
)  # fmt: skip
RECORDS = ("scene.json", "cameras.json", "render.json", "checksums.json")


def tiny(out: Path) -> Path:
    """Write a dataset of one scene, as small as it gets."""
    words = ("scene_count=1", "frames=2", "render.width_px=14", "render.height_px=14")
    return synthetic.write_dataset(synthetic.config(*words), out)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) inside nested lists and tables."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


def spoil(record: Any, draw: random.Random) -> Any:
    """Return a copy of a record with one or two places changed, removed, renamed or nested deeply."""
    spoilt = copy.deepcopy(record)
    for _ in range(draw.choice((1, 1, 1, 2))):
        found = list(places(spoilt))
        if not found:
            return spoilt
        container, key = draw.choice(found)
        kind = draw.random()
        if kind < 0.7:
            container[key] = draw.choice(VALUES)
        elif kind < 0.8:
            del container[key]
        elif kind < 0.9 and isinstance(container, dict):
            container[draw.choice(NAMES)] = container.pop(key)
        else:
            for _ in range(draw.choice((3, 70, 400))):
                container[key] = [container[key]]
    return spoilt


def spoil_a_file(dataset: Path, draw: random.Random) -> None:
    """Spoil one of a dataset's records, often with its hashes and checksums made to fit again."""
    scene = dataset / "scenes/000/000000"
    file = draw.choice([dataset / "dataset.json", *(scene / name for name in RECORDS)])
    record = spoil(json.loads(file.read_text()), draw)
    if draw.random() < 0.7:
        record = resealed(file.name, record)
    file.write_text(json.dumps(record))
    if file.name != "checksums.json" and file.parent == scene:
        reseal_checksums(scene, file.name)


def resealed(name: str, record: Any) -> Any:
    """Return a record with the hashes in it made to fit, where that is possible."""
    try:
        if name == "dataset.json":
            return sealed(record)
        if name == "scene.json":
            hashes = {factor: content_hash(data) for factor, data in record["factors"].items()}
            return record | {"hashes": hashes | {"noise": content_hash(record["noise_seed"])}}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        pass
    return record


def reseal_checksums(scene: Path, name: str) -> None:
    """Make checksums.json agree with one of its files, which was changed."""
    record = json.loads((scene / "checksums.json").read_text())
    record["files"][name] = {"bytes": (scene / name).stat().st_size, "sha256": sha256_of(scene / name)}
    (scene / "checksums.json").write_bytes(json_bytes(record))


class Spoilt:
    """A dataset that is spoilt and made whole again, file by file, which is faster than copying it."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.path = folder / original.name
        self.files = {p.relative_to(original): p.read_bytes() for p in sorted(original.rglob("*")) if p.is_file()}

    def restore(self) -> Path:
        """Return the folder, as it was."""
        for name, content in self.files.items():
            file = self.path / name
            if not file.is_file() or file.read_bytes() != content:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        return self.path
