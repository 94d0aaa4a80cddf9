"""The folder an export goes to: claimed for one layout, filled piece by piece, resumable, divisible.

A piece, a scene's folder or a file of several scenes, appears as a whole. A killed run leaves pieces that a later one
skips; several machines fill one folder, each every n-th piece of it. Pieces are made one after another, so what is in
memory does not grow with their number.

The control folder, ``<out>/.megasynth-export``, holds ``<dataset>.json``, which says what was exported and how, and
``tmp``, in which pieces are written. Several datasets may share one ``out`` if layout and options agree. A loader that
takes every folder in ``out`` for data gets it beside: ``<out>.megasynth-export`` (``Layout.only_data``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_attr.core.files import read_json, storage_errors
from megasynth_attr.core.run_folder import Kind, is_free, require_same, share
from megasynth_attr.core.selection import as_ranges
from megasynth_attr.core.temporary import TMP, publish, remove_leftovers, working_folder
from megasynth_attr.dataset.archive import Member
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.reader import Dataset, SceneData
from megasynth_attr.dataset.scene_files import File

MARKER = ".megasynth-export"
EXPORT_FORMAT = "megasynth-attr export 1"


@dataclass(frozen=True)
class Piece:
    """What appears in one step: its path in ``out``, the scenes in it, and what writes it to a path it is given."""

    name: str
    scenes: Sequence[SceneData]
    write: Callable[[Path], None]


@dataclass(frozen=True)
class Target:
    """A claimed folder."""

    out: Path
    control: Path

    def fill(self, pieces: Iterable[Piece], shard: tuple[int, int], count: int, what: str, progress: bool) -> None:
        """Write those of the ``count`` pieces that are missing, of shard (i, n) every n-th from the i-th on.

        DatasetError, with nothing of that piece left, if a scene is not what was written.
        """
        index, shards = shard
        mine = islice(pieces, index, None, shards)
        total = len(range(index, count, shards))
        for piece in tqdm(mine, desc=f"export {what}", total=total, unit="piece", disable=not progress):
            if not (self.out / piece.name).exists():
                for scene in piece.scenes:
                    scene.require_intact()
                with self.new_piece(piece.name) as path:
                    piece.write(path)

    @contextmanager
    def new_piece(self, name: str) -> Iterator[Path]:
        """Yield a path for a file or folder, which becomes ``out/name`` when the block ends without an error.

        A file takes the place of one that is there.
        """
        final = self.out / name
        with storage_errors("the export", final):
            stem = name.replace("/", "_").replace(".", "_")
            with working_folder(self.control / TMP, stem) as folder:
                yield folder / final.name
                publish(folder / final.name, final)


def claim(out: Path, dataset: Dataset, layout: str, options: Mapping[str, Any], only_data: bool) -> Target:
    """Return ``out`` as the target of this export; ``only_data``: all that is in it must be data.

    Raises ConfigError, with nothing changed, if ``out`` holds foreign files, another layout or options, or another
    dataset of the same name; EnvironmentProblem if it cannot be written.
    """
    if out.resolve() == dataset.path.resolve() or dataset.path.resolve() in out.resolve().parents:
        raise ConfigError(f"out={out} lies inside the dataset; choose a folder outside of it")
    control = _control(out, only_data)
    mine = {
        "format": EXPORT_FORMAT,
        "layout": layout,
        "options": dict(options),
        "dataset": dataset.name,
        "fingerprint": str(dataset.record.get("fingerprint", "")),
    }
    record = str(control.absolute() / f"{dataset.name}.json")
    kind = Kind("export", record, EXPORT_FORMAT, known_by=lambda folder: control.is_dir())

    def same(theirs: dict[str, Any]) -> dict[str, Any]:
        is_this = theirs.get("dataset") == dataset.name
        before, now = (_identity(record, dataset.name if is_this else "") for record in (theirs, mine))
        require_same(out, kind, before, now)
        return theirs

    for other in sorted(control.glob("*.json")):
        same(read_json(other, EXPORT_FORMAT))
    share(out, kind, mine, same)
    remove_leftovers(control / TMP)
    return Target(out, control)


def _control(out: Path, only_data: bool) -> Path:
    """Return the control folder that is there, inside of ``out`` or beside it, or where it is to be."""
    whole = out.resolve()
    inside, beside = out / MARKER, whole.parent / f"{whole.name}{MARKER}"
    if is_free(out):  # the export was removed, and this folder forgotten
        for record in beside.glob("*.json"):
            record.unlink(missing_ok=True)
    return beside if beside.is_dir() or (only_data and not inside.is_dir()) else inside


def _identity(record: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Return what an export must agree in with an earlier one of this ``dataset``, or of another ("")."""
    options = record.get("options")
    options = dict(options) if isinstance(options, dict) else {}
    scenes = options.pop("scenes", None)
    if not dataset:  # each is cut into files for itself
        return {"layout": record.get("layout"), "options": options}
    if isinstance(scenes, list) and all(isinstance(index, int) for index in scenes):  # until version 0.1.0
        scenes = as_ranges(scenes)
    if scenes is not None:
        options["scenes"] = scenes
    fingerprint = {f"the fingerprint of {dataset}": record.get("fingerprint")}
    return {"layout": record.get("layout"), "options": options} | fingerprint


def batches(items: Iterable[SceneData], size: int) -> Iterator[list[SceneData]]:
    """Yield the items in lists of ``size``; the last may be shorter."""
    for _, batch in groupby(enumerate(items), lambda numbered: numbered[0] // size):
        yield [item for _, item in batch]


def place_file(source: File, destination: Path, link: bool) -> None:
    """Copy ``source`` byte by byte, or hard-link it: that takes no space, but editing one then changes the other."""
    if not source.is_file():
        raise DatasetError(f"{source} is missing; {RENDER_ANEW}")
    if not link:
        destination.write_bytes(source.read_bytes())
        return
    if isinstance(source, Member):
        raise ConfigError(
            f"{source} is inside an archive and cannot be hard-linked; use link=false, or unpack the dataset first: "
            "python -m megasynth_attr.dataset.pack dataset=<dir> to=folder"
        )
    try:
        os.link(source, destination)
    except OSError as error:
        raise EnvironmentProblem(
            f"{source} cannot be hard-linked to {destination} ({error.strerror}); "
            "use link=false, or an out= on the same file system"
        ) from error
