"""The folder a program writes into: is it one of ours, made with the same settings, finished, in use by another?

Every program of both halves asks here. A folder is *free* if it is absent or holds at most the leftovers of a process
that ended before it wrote its first file. It is of a *kind* if it holds the kind's record: a JSON file with a format.
Anything else is refused, and nothing in it is changed.

``claim`` is for what one process at a time may make (a training run), ``share`` for what many make together (a
dataset).
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import json_bytes, read_json, storage_errors, storage_problem
from megasynth_attr.core.names import inside
from megasynth_attr.core.temporary import TMP, create_exclusively, is_temporary, remove_leftovers, replace_atomically

LOCK = ".lock"
SHOWN_DIFFERENCES = 3

Identity = Mapping[str, Any]  # everything that decides a result, as plain data: settings, and hashes of what was read


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    replace_atomically(path, json_bytes(record))


@dataclass(frozen=True)
class Kind:
    """A kind of folder: what messages call it, and the record by which it is known again."""

    name: str  # as in "it is no training run"
    record: str  # file, relative to the folder
    format: str
    keys: tuple[str, ...] = ()  # the record must have
    tables: tuple[str, ...] = ()  # keys that must be JSON objects
    paths: tuple[str, ...] = ()  # keys whose text, or the keys of whose table, names something in the folder
    advice: str = "restore it or choose another out="  # for a damaged record
    alone: bool = True  # the folder must be free before it becomes one of this kind
    known_by: Callable[[Path], bool] | None = None  # whether a folder that lost its record is one all the same
    defaults: Identity = field(default_factory=dict)  # what a key meant that an older identity does not have
    read: Callable[[Path, str], dict[str, Any]] = read_json  # returns the record, or what matters of a long one
    write: Callable[[Path, Mapping[str, Any]], None] = write_json  # replaces the record by what ``read`` may return
    # only for kinds used with ``claim``:
    done: Kind | None = None  # the record written last, with the identity of the finished result
    begun_with: Callable[[Path], Identity | None] | None = None  # identity of unfinished work, if it must be continued
    later: tuple[str, ...] = ()  # keys of an identity that are known only once work has begun


@contextmanager
def claim(folder: Path, kind: Kind, identity: Identity) -> Iterator[bool]:
    """Hold ``folder`` alone, created if need be, and yield whether the result of ``identity`` in it is finished.

    The kernel releases it when the process ends, even by kill -9. ConfigError, with nothing changed, if another process
    holds it, if it is something else, or if its work has another identity, naming the first differences.
    """
    check(folder, kind)
    with locked(folder, kind.name):
        check(folder, kind)  # another process may have used it until now
        remove_leftovers(folder / TMP)
        done = None
        if kind.done is not None and (folder / kind.done.record).exists():
            done = read_record(folder, kind.done)
        begun = done["identity"] if done else kind.begun_with(folder) if kind.begun_with else None
        if begun is not None:
            known = {key: value for key, value in begun.items() if key not in kind.later}
            require_same(folder, kind, known, identity)
        yield done is not None


def share(
    folder: Path,
    kind: Kind,
    fresh: Mapping[str, Any],
    continued: Callable[[dict[str, Any]], Mapping[str, Any]],
    *,
    lock: bool = False,
) -> dict[str, Any]:
    """Return the record of a folder that several processes write into: ``fresh``, or what becomes of an existing one.

    Of several processes that begin at once, one creates the record. ``continued`` is given an existing record and
    returns its replacement, or raises; ``lock`` holds the folder from reading to writing, waiting for others.
    ConfigError, with nothing changed, if the folder is something else; DatasetError if its record is damaged.
    """
    file = folder / kind.record
    with storage_errors(f"the {kind.name}", folder), ExitStack() as stack:
        if not file.exists():
            check(folder, kind)
        if lock:
            stack.enter_context(locked(folder, kind.name, wait=True))
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            if create_exclusively(file, json_bytes(fresh)):
                return dict(to_plain(dict(fresh)))
        existing = read_record(folder, kind)
        record: dict[str, Any] = to_plain(dict(continued(existing)))
        if record != existing:
            kind.write(file, record)
        return record


@contextmanager
def locked(folder: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold ``folder``, created if need be; if another process holds it, wait for it or raise ConfigError."""
    with storage_errors(f"the {what}", folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
    with file:
        try:
            # this lock belongs to the process: not to its children, which may outlive it
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ConfigError(f"another run is writing to {folder}; wait for it, or choose another out=") from None
        except OSError as error:
            raise storage_problem(error, "a lock", folder / LOCK) from error
        yield


def check(folder: Path, kind: Kind) -> None:
    """Raise ConfigError unless ``folder`` is free or of this kind."""
    with storage_errors(f"the {kind.name}", folder):
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file; name a folder with out=")
        held = _contents(folder)
    if not held or not kind.alone:
        return
    try:
        kind.read(folder / kind.record, kind.format)
    except DatasetError as error:
        if kind.known_by is None or not kind.known_by(folder):
            why = f" of ours ({error})" if (folder / kind.record).exists() else ""
            raise ConfigError(
                f"{folder} holds {held[0]}, but no {kind.record}{why}: it is no {kind.name}; choose another out="
            ) from None


def is_free(folder: Path) -> bool:
    """Return whether ``folder`` is absent, or holds only leftovers of a process that ended before its first file."""
    return not _contents(folder)


def is_one(folder: Path, kind: Kind) -> bool:
    """Return whether ``folder`` holds a whole record of this kind."""
    try:
        kind.read(folder / kind.record, kind.format)
    except DatasetError:
        return False
    return True


def check_new(path: Path) -> None:
    """Raise ConfigError if there is something at ``path`` that writing it would replace."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"out={path} exists already; name another, or remove it")


def read_record(folder: Path, kind: Kind) -> dict[str, Any]:
    """Return the record of ``folder``; DatasetError if it is missing, damaged or of another format."""
    file = folder / kind.record
    record = kind.read(file, kind.format)
    for key in (*kind.keys, *kind.tables):
        if key not in record:
            raise DatasetError(f"{file} is damaged: {key} is missing; {kind.advice}")
        if key in kind.tables and not isinstance(record[key], dict):
            raise DatasetError(f"{file} is damaged: {key} is no table; {kind.advice}")
    for key in kind.paths:
        for name in record[key] if isinstance(record[key], dict) else [record[key]]:
            inside(folder, name, f"{file}: {key}")
    return record


def require_same(folder: Path, kind: Kind, before: Identity, now: Identity) -> None:
    """Raise ConfigError naming the first differences if ``folder`` was made with another identity."""
    if found := differences(before, now, kind.defaults):
        raise refusal(folder, kind, found)


def refusal(folder: Path, kind: Kind, why: str) -> ConfigError:
    """Return the error that says that ``folder`` holds another of this kind."""
    return ConfigError(
        f"{folder} holds another {kind.name}: {why}. Nothing was changed there; choose another out=, or use the "
        "settings it was made with"
    )


def differences(before: Identity, now: Identity, defaults: Identity | None = None) -> str:
    """Return the first keys in which two identities differ, with both values, and how many more; "" if they are equal.

    ``defaults``: what a key meant that did not exist when ``before`` was written.
    """
    before, now = to_plain(dict(before)), to_plain(dict(now))
    found = list(_differing(_completed(before, to_plain(dict(defaults or {})), now), now, ""))
    texts = [f"{key} is {_shown(one)} there and {_shown(other)} now" for key, one, other in found[:SHOWN_DIFFERENCES]]
    more = len(found) - len(texts)
    return "; ".join(texts) + (f" (and {more} more)" if more else "")


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, keys joined by dots."""
    values: dict[str, Any] = {}
    for key, value in record.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return values


def _contents(folder: Path) -> list[str]:
    """Return the names in ``folder``, without the leftovers of processes that wrote no result."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if name != LOCK and not (name == TMP and _is_work(folder / TMP))]


def _is_work(tmp: Path) -> bool:
    """Return whether ``new_temporary_folder`` made everything in ``tmp``, for processes that run or have ended."""
    try:
        return all(is_temporary(path.name) for path in tmp.iterdir())
    except FileNotFoundError:  # that process has just ended
        return True
    except NotADirectoryError:
        return False


def _completed(before: Identity, defaults: Identity, now: Identity) -> dict[str, Any]:
    """Return ``before`` with the ``defaults`` of keys that only ``now`` has, also inside tables that all three have."""
    completed = {**{key: value for key, value in defaults.items() if key in now}, **before}
    for key, value in completed.items():
        if all(isinstance(one, Mapping) for one in (value, defaults.get(key), now.get(key))):
            completed[key] = _completed(value, defaults[key], now[key])
    return completed


def _differing(before: Any, now: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            yield from _differing(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield key, before, now


def _shown(value: Any) -> str:
    if value is None or isinstance(value, Mapping):  # a table against nothing; its content is of no interest
        return "absent" if value is None else "present"
    return f'"{value}"' if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
