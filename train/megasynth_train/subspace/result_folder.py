"""The folder of mined subspaces: whether it is one, what it was mined from, and whether it is complete.

::

    <out>/<attribute>.safetensors    the basis of one attribute
    <out>/all.safetensors            the attributes' columns beside each other
    <out>/analysis.json              all numbers (subspace/analysis.py)
    <out>/report/index.html          figures, and <out>/chapter.json for the summary page of an experiment
    <out>/settings.json              the settings, and what was mined
    <out>/done.json                  written last: the checksums of all results
    <out>/layers/                    while it runs: what is done already
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import json_bytes, read_json, sha256_of, storage_errors
from megasynth_attr.core.lock import LOCK, take_lock
from megasynth_attr.core.pages.chapters import FILE as CHAPTER
from megasynth_attr.core.temporary import remove_leftovers, replace_atomically
from megasynth_attr.dataset.paths import TMP
from megasynth_train.subspace.analysis import FILE as ANALYSIS
from megasynth_train.subspace.layer_file import layer_file
from megasynth_train.subspace.mine_layer import WHOLE
from megasynth_train.subspace.settings import MiningSettings

SETTINGS, DONE, LAYERS, REPORT = "settings.json", "done.json", "layers", "report"
SETTINGS_FORMAT = "megasynth-attr mining settings 1"
DONE_FORMAT = "megasynth-attr finished mining 1"

_LEFTOVER = re.compile(r"file\..+\.\d+\.\d+")  # what a run killed before its settings stood here leaves in tmp

Identity = Mapping[str, Any]  # everything that decides the result: settings, adapters, base model


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder, made if need be; ConfigError if another run holds it or it is something else."""
    check_is_ours(out)
    with closing(take_lock(out, "the folder of subspaces")):
        for folder in (out / TMP, out / LAYERS / TMP):
            remove_leftovers(folder)
        yield


def check_is_ours(out: Path) -> None:
    """Raise ConfigError unless ``out`` is absent, empty or a folder of subspaces; nothing else must be changed.

    Nor may it lie in another folder of subspaces.
    """
    for parent in out.parents:
        if _has_settings(parent):
            raise ConfigError(f"out={out} lies inside {parent}, which holds subspaces already; choose another out=")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out={out} is a file; name a folder")
    with storage_errors("the folder of subspaces", out):
        names = {path.name for path in out.iterdir()} if out.is_dir() else set()
        left = {path.name for path in (out / TMP).iterdir()} if (out / TMP).is_dir() else set()
    if names <= {LOCK, TMP} and all(map(_LEFTOVER.fullmatch, left)):
        return
    try:
        read_json(out / SETTINGS, SETTINGS_FORMAT)
    except DatasetError as error:
        raise ConfigError(f"{out} holds something that was not mined here ({error}); choose another out=") from None


def _has_settings(folder: Path) -> bool:
    try:
        read_json(folder / SETTINGS, SETTINGS_FORMAT)
    except DatasetError:  # none, or of something else
        return False
    return True


def finished(out: Path, identity: Identity) -> bool:
    """Return whether ``out`` holds all results of ``identity``.

    ConfigError naming the first difference if it holds another's; DatasetError if a result is missing or damaged.
    """
    if not (out / DONE).exists():
        return False
    done = read_json(out / DONE, DONE_FORMAT)
    again = f"remove {out / DONE} to mine again, or choose another out="
    if not all(isinstance(done.get(key), dict) for key in ("identity", "files")):
        raise DatasetError(f"{out / DONE} is damaged: identity or files are missing; {again}")
    if difference := _difference(_completed(done["identity"]), identity):
        raise ConfigError(
            f"{out} holds subspaces that were mined otherwise: {difference}; choose another out=, or remove the folder"
        )
    for name, digest in done["files"].items():
        if not (out / name).is_file():
            raise DatasetError(f"{out / DONE} says that all is done, but {out / name} is missing; {again}")
        if sha256_of(out / name) != digest:
            raise DatasetError(f"{out / name} is damaged: it does not have the checksum in {DONE}; {again}")
    return True


def begin(out: Path, settings: Mapping[str, Any], identity: Identity) -> None:
    """Write settings.json; what a run with another identity left here without finishing is removed first."""
    file = out / SETTINGS
    before = _completed(read_json(file, SETTINGS_FORMAT).get("identity", {})) if file.is_file() else identity
    with storage_errors("the folder of subspaces", out):  # settings first: by these the folder is known again
        if _difference(before, identity):
            _remove_results(out, before)
            _remove_layers(out, [*_modules(before), *_modules(identity)])
        replace_atomically(file, json_bytes({"format": SETTINGS_FORMAT, "settings": settings, "identity": identity}))
        (out / LAYERS).mkdir(exist_ok=True)


def _remove_results(out: Path, identity: Any) -> None:
    """Remove what a run with this identity writes, and nothing else: something of the user's may lie beside it."""
    mining = identity.get("mining") if isinstance(identity, Mapping) else None
    attributes = mining.get("attributes") if isinstance(mining, Mapping) else None
    bases = {WHOLE, *(attributes if isinstance(attributes, list) else ())}
    if (out / REPORT).is_dir():
        shutil.rmtree(out / REPORT)
    written = [path for path in out.glob("*.safetensors") if path.stem in bases]
    for path in [*written, out / ANALYSIS, out / CHAPTER]:
        path.unlink(missing_ok=True)


def finish(out: Path, identity: Identity, files: Sequence[Path]) -> None:
    """Write done.json, and remove what only a run that was not finished needs."""
    record = {"format": DONE_FORMAT, "identity": identity, "files": {path.name: sha256_of(path) for path in files}}
    with storage_errors("the end of the mining", out):
        replace_atomically(out / DONE, json_bytes(record))
    clear(out, identity)


def clear(out: Path, identity: Identity) -> None:
    """Remove the layers of a finished run and what its processes left; what others put beside them stays."""
    with storage_errors("the folder of subspaces", out):
        _remove_layers(out, _modules(identity))
        for folder in (out / LAYERS / TMP, out / LAYERS, out / TMP):
            if folder.name == TMP:
                remove_leftovers(folder)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _remove_layers(out: Path, modules: Iterable[str]) -> None:
    for module in modules:
        file = layer_file(out / LAYERS, module)
        if file.parent == out / LAYERS:  # what a damaged settings.json names may be anywhere
            file.unlink(missing_ok=True)


def _modules(identity: Any) -> tuple[str, ...]:
    layers = identity.get("layers") if isinstance(identity, Mapping) else None
    return tuple(layers) if isinstance(layers, Mapping) else ()


def _completed(identity: Any) -> Any:
    """Return a stored identity with today's defaults for settings that were unknown when it was written."""
    mining = identity.get("mining") if isinstance(identity, Mapping) else None
    if not isinstance(mining, Mapping):
        return identity
    return {**identity, "mining": {**to_plain(MiningSettings()), **mining}}


def _difference(before: Any, now: Any, key: str = "") -> str:
    """Return the first key in which two JSON values differ and both values in words, or nothing."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            if found := _difference(before.get(name), now.get(name), f"{key}.{name}" if key else str(name)):
                return found
        return ""
    return "" if before == now else f"{key} is {_shown(now)} now, it was {_shown(before)}"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, Mapping):  # a table against nothing; its content is of no interest
        return "missing" if value is None else "there"
    return str(value)
