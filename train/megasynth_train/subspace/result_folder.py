"""The folder of mined subspaces: recognising one, what it was mined from, and whether it is complete.

::

    <out>/<attribute>.safetensors    the basis of one attribute
    <out>/all.safetensors            the attributes' columns side by side
    <out>/analysis.json              all numbers (subspace/analysis.py)
    <out>/report/index.html          figures, and <out>/chapter.json for the summary page of an experiment
    <out>/settings.json              the settings, and what was mined
    <out>/done.json                  written last: the checksums of all results
    <out>/layers/                    during a run: the finished layers
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import json_bytes, sha256_of, storage_errors
from megasynth_attr.core.pages.chapters import FILE as CHAPTER
from megasynth_attr.core.run_folder import Identity, Kind, check, claim, differences, is_one, read_record
from megasynth_attr.core.temporary import TMP, remove_if_empty, remove_leftovers, replace_atomically
from megasynth_train.subspace.analysis import FILE as ANALYSIS
from megasynth_train.subspace.layer_file import layer_file
from megasynth_train.subspace.mine_layer import WHOLE
from megasynth_train.subspace.settings import MiningSettings

SETTINGS, DONE, LAYERS, REPORT = "settings.json", "done.json", "layers", "report"
FINISHED = Kind(
    "finished set of subspaces",
    DONE,
    "megasynth-attr finished mining 1",
    tables=("identity", "files"),
    paths=("files",),
    advice=f"remove {DONE} to mine again, or choose another out=",
)
SUBSPACES = Kind(  # unfinished ones of another identity are replaced, see begin
    "set of subspaces",
    SETTINGS,
    "megasynth-attr mining settings 1",
    defaults={"mining": to_plain(MiningSettings())},
    done=FINISHED,
)


@contextmanager
def held(out: Path, identity: Identity) -> Iterator[bool]:
    """Hold the folder, made if needed, and yield whether it has all results of ``identity``, each of them whole.

    ConfigError if another run holds it, or if it holds something else; DatasetError if a result is missing or damaged.
    """
    check_is_ours(out)
    with claim(out, SUBSPACES, identity) as done:
        remove_leftovers(out / LAYERS / TMP)
        if done:
            _check_results(out)
        yield done


def check_is_ours(out: Path) -> None:
    """Raise ConfigError unless ``out`` is free or a folder of subspaces, and is not inside another such folder."""
    for parent in out.parents:
        if is_one(parent, SUBSPACES):
            raise ConfigError(f"out={out} lies inside {parent}, which holds subspaces already; choose another out=")
    check(out, SUBSPACES)


def _check_results(out: Path) -> None:
    for name, digest in read_record(out, FINISHED)["files"].items():
        if not (out / name).is_file():
            raise DatasetError(f"{out / DONE} says that all is done, but {out / name} is missing; {FINISHED.advice}")
        if sha256_of(out / name) != digest:
            raise DatasetError(f"{out / name} is damaged: its checksum is not that in {DONE}; {FINISHED.advice}")


def begin(out: Path, settings: Mapping[str, Any], identity: Identity) -> None:
    """Write settings.json, after removing what an unfinished run with another identity left here."""
    file = out / SETTINGS
    before = read_record(out, SUBSPACES).get("identity") if file.is_file() else identity
    other = not isinstance(before, Mapping) or differences(before, identity, SUBSPACES.defaults)
    with storage_errors("the folder of subspaces", out):  # settings first: the folder is recognised by them
        if other:
            _remove_results(out, before)
            _remove_layers(out, [*_modules(before), *_modules(identity)])
        replace_atomically(file, json_bytes({"format": SUBSPACES.format, "settings": settings, "identity": identity}))
        (out / LAYERS).mkdir(exist_ok=True)


def _remove_results(out: Path, identity: Any) -> None:
    """Remove what a run with this identity writes, and nothing else: the user may keep other files there."""
    mining = identity.get("mining") if isinstance(identity, Mapping) else None
    attributes = mining.get("attributes") if isinstance(mining, Mapping) else None
    bases = {WHOLE, *(attributes if isinstance(attributes, list) else ())}
    if (out / REPORT).is_dir():
        shutil.rmtree(out / REPORT)
    written = [path for path in out.glob("*.safetensors") if path.stem in bases]
    for path in [*written, out / ANALYSIS, out / CHAPTER]:
        path.unlink(missing_ok=True)


def finish(out: Path, identity: Identity, files: Sequence[Path]) -> None:
    """Write done.json; ``clear`` then removes what only an unfinished run needs."""
    record = {"format": FINISHED.format, "identity": identity, "files": {path.name: sha256_of(path) for path in files}}
    with storage_errors("the end of the mining", out):
        replace_atomically(out / DONE, json_bytes(record))


def clear(out: Path, identity: Identity) -> None:
    """Remove the layers of a finished run and what its processes left; other files stay."""
    with storage_errors("the folder of subspaces", out):
        _remove_layers(out, _modules(identity))
        for folder in (out / LAYERS / TMP, out / LAYERS, out / TMP):
            remove_if_empty(folder)


def _remove_layers(out: Path, modules: Iterable[str]) -> None:
    for module in modules:
        file = layer_file(out / LAYERS, module)
        if file.parent == out / LAYERS:  # a damaged settings.json may name any path
            file.unlink(missing_ok=True)


def _modules(identity: Any) -> tuple[str, ...]:
    layers = identity.get("layers") if isinstance(identity, Mapping) else None
    return tuple(layers) if isinstance(layers, Mapping) else ()
