"""The folder an export goes to: claimed for one layout, filled scene by scene, resumable.

``<out>/.megasynth-export/<dataset>.json`` says what was exported and how; ``<out>/.megasynth-export/tmp`` holds
what is being written. Several datasets may share one ``out`` if layout and options agree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_attr.core.files import read_json, storage_errors
from megasynth_attr.core.run_folder import Kind, require_same, share
from megasynth_attr.core.temporary import TMP, publish, remove_leftovers, working_folder
from megasynth_attr.dataset.archive import Member
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.reader import Dataset
from megasynth_attr.dataset.scene_files import File

MARKER = ".megasynth-export"
EXPORT_FORMAT = "megasynth-attr export 1"


@contextmanager
def new_piece(out: Path, name: str) -> Iterator[Path]:
    """Yield a path for a new file or folder, which becomes ``out/name`` when the block ends without an error."""
    final = out / name
    with storage_errors("the export", final):
        stem = name.replace("/", "_").replace(".", "_")
        with working_folder(out / MARKER / TMP, stem) as folder:
            yield folder / final.name
            publish(folder / final.name, final)


def claim(out: Path, dataset: Dataset, layout: str, options: Mapping[str, Any]) -> None:
    """Mark ``out`` as the target of this export.

    Raises ConfigError, with nothing changed, if ``out`` holds foreign files, another layout or options, or another
    dataset of the same name; EnvironmentProblem if it cannot be written.
    """
    if out.resolve() == dataset.path.resolve() or dataset.path.resolve() in out.resolve().parents:
        raise ConfigError(f"out={out} lies inside the dataset; choose a folder outside of it")
    marker = out / MARKER
    mine = {
        "format": EXPORT_FORMAT,
        "layout": layout,
        "options": dict(options),
        "dataset": dataset.name,
        "fingerprint": str(dataset.record.get("fingerprint", "")),
    }
    kind = Kind("export", f"{MARKER}/{dataset.name}.json", EXPORT_FORMAT, known_by=lambda folder: marker.is_dir())

    def same(theirs: dict[str, Any]) -> dict[str, Any]:
        keys = {"layout": "layout", "options": "options"}
        if theirs.get("dataset") == dataset.name:
            keys["fingerprint"] = f"the fingerprint of {dataset.name}"
        before, now = ({words: record.get(key) for key, words in keys.items()} for record in (theirs, mine))
        require_same(out, kind, before, now)
        return theirs

    for other in sorted(marker.glob("*.json")):
        same(read_json(other, EXPORT_FORMAT))
    share(out, kind, mine, same)
    remove_leftovers(marker / TMP)


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
