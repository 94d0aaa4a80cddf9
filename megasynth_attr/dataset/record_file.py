"""dataset.json on disk. It lists every scene, perhaps a million, so the list is read and written piece by piece.

The file is what ``json_bytes(sealed(record))`` gives for a record with its ``scenes``. One that is written otherwise –
by other tools, or damaged – is read as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, BinaryIO

from megasynth_attr.core.codec import canonical_json
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import decode_json, json_bytes, lines_of, open_regular, read_json
from megasynth_attr.core.temporary import written_beside

CHECKSUM, SCENES = "checksum", "scenes"
NO_CHECKSUM = "0" * 64

_CHECKSUM = b'"checksum": "'
_BEGIN, _ENDS = b' "scenes": {\n', (b" },\n", b" }\n")
_ENTRY_BEGIN, _ENTRY_ENDS = b'  "', (b"  },\n", b"  }\n")
_MOST_LINES = 10_000  # of an entry; it has one per factor
_MOST_BEFORE = 2**26  # bytes of settings and materials
_MOST_AFTER = 2**16

Entry = tuple[str, Mapping[str, Any]]  # the name of a scene, and what dataset.json says of it


def read_record_file(path: Path, expected_format: str | None = None) -> dict[str, Any]:
    """Return what is in dataset.json except its scenes; DatasetError as from ``read_json``."""
    try:
        with open_regular(path) as file:
            text = _without_scenes(file)
        if text is not None:
            record = decode_json(text.decode(), str(path))
            if expected_format is None or record["format"] == expected_format:
                del record[SCENES]
                return dict(record)
    except (OSError, DatasetError, ValueError, KeyError, TypeError):
        pass  # read_json says what is wrong
    record = read_json(path, expected_format)
    record.pop(SCENES, None)
    return record


def listed_scenes(path: Path) -> Iterator[Entry] | None:
    """Return the scenes listed in dataset.json, one after another; None if it has no list. DatasetError if damaged."""
    if (begin := _begin(path)) is not None:
        return _entries(path, begin)
    where = f"{path} is damaged: {SCENES}"
    scenes = read_json(path).get(SCENES)
    if scenes is None:
        return None
    if not isinstance(scenes, dict):
        raise DatasetError(f"{where}: expected a table, found {type(scenes).__name__}")
    return (_checked(name, entry, where) for name, entry in sorted(scenes.items()))


def listed_names(path: Path) -> Iterator[str]:
    """Yield the names of the scenes listed in dataset.json; DatasetError if it is damaged."""
    if (begin := _begin(path)) is None:
        yield from (name for name, _ in listed_scenes(path) or ())
        return
    with open_regular(path) as file:
        file.seek(begin)
        for line in lines_of(file):
            if line in _ENDS:
                return
            if line.startswith(_ENTRY_BEGIN):
                yield line.split(b'"')[1].decode(errors="replace")


def write_record_file(path: Path, record: Mapping[str, Any], scenes: Iterable[Entry] | None) -> None:
    """Write dataset.json, whole or not at all, with its checksum; ``scenes`` in order of their names."""
    fresh = dict(record) | {CHECKSUM: NO_CHECKSUM}
    if scenes is None:
        before, after = json_bytes(fresh), b""
    else:
        before, after = json_bytes(fresh | {SCENES: {}}).split(b'\n "scenes": {}')
        before += b'\n "scenes": {'
    with written_beside(path, "file") as temporary, temporary.open("wb") as file:
        file.write(before)
        count = 0

        def written() -> Iterator[Entry]:
            nonlocal count
            for name, entry in scenes or ():
                file.write(f"{',' if count else ''}\n  {quoted(name)}: {_indented(entry, 2)}".encode())
                count += 1
                yield name, entry

        checksum = checksum_of(record, None if scenes is None else written())
        if scenes is not None:
            file.write((b"\n }" if count else b"}") + after)
        file.seek(before.index(_CHECKSUM) + len(_CHECKSUM))
        file.write(checksum.encode())
        file.flush()
        os.fsync(file.fileno())


def checksum_of(record: Mapping[str, Any], scenes: Iterable[Entry] | None = None) -> str:
    """Return the SHA-256 of the canonical JSON of a record without its own checksum, with these ``scenes`` in it."""
    digest = hashlib.sha256()
    keys = {key for key in record if key != CHECKSUM} | ({SCENES} if scenes is not None else set())
    for number, key in enumerate(sorted(keys)):
        digest.update(f"{',' if number else '{'}{quoted(key)}:".encode())
        if key == SCENES and scenes is not None:
            digest.update(b"{")
            for place, (name, entry) in enumerate(scenes):
                text = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False)  # as canonical_json
                digest.update(f"{',' if place else ''}{quoted(name)}:{text}".encode())
            digest.update(b"}")
        else:
            digest.update(canonical_json(record[key]).encode())
    digest.update(b"}" if keys else b"{}")
    return digest.hexdigest()


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with its checksum; whatever writes dataset.json writes it sealed."""
    return {**record, CHECKSUM: checksum_of(record)}


def _indented(value: Any, depth: int) -> str:
    """Return what ``json.dumps`` with ``indent=1`` gives at this depth, several times as fast."""
    if isinstance(value, str):
        return quoted(value)
    if not (isinstance(value, dict) and value):
        return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).replace("\n", "\n" + " " * depth)
    begin = "\n" + " " * (depth + 1)
    inner = ",".join(f"{begin}{quoted(key)}: {_indented(value[key], depth + 1)}" for key in sorted(value))
    return f"{{{inner}{begin[:-1]}}}"


def _begin(path: Path) -> int | None:
    """Return the byte at which the list of scenes begins; None if it is not where we would write it, or unreadable."""
    try:
        with open_regular(path) as file:
            return None if _seek_scenes(file) is None else file.tell()
    except OSError:
        return None


def _seek_scenes(file: BinaryIO) -> bytes | None:
    """Return the text before the list of scenes, at which the file then stands; None if there is none."""
    lines, size = list[bytes](), 0
    while size < _MOST_BEFORE and (line := file.readline(_MOST_BEFORE)):
        if line == _BEGIN:
            return b"".join(lines)
        lines.append(line)
        size += len(line)
    return None


def _without_scenes(file: BinaryIO) -> bytes | None:
    """Return the text of the file with an empty list of scenes; None if the list is not where we would write it."""
    if (before := _seek_scenes(file)) is None:
        return None
    begin = file.tell()
    file.seek(max(begin - 1, file.seek(0, os.SEEK_END) - _MOST_AFTER))
    last = file.read()
    end = max(last.rfind(b"\n },\n"), last.rfind(b"\n }\n}\n"))
    return None if end < 0 else before + b' "scenes": {' + last[end + 2 :]


def _entries(path: Path, begin: int) -> Iterator[Entry]:
    """Yield the entries of the list that begins at this byte; DatasetError unless it ends where ``_without_scenes``
    says: what stands between would be in nobody's checksum."""
    where = f"{path} is damaged: {SCENES}"
    with open_regular(path) as file:
        file.seek(begin)
        lines: list[bytes] = []
        comma = None  # after the entry before
        for line in lines_of(file):
            if not lines and comma is (line in _ENDS):
                raise DatasetError(f"{where}: a comma is missing or too many")
            if not lines and line in _ENDS:
                rest = b"\n" + file.read(_MOST_AFTER)
                if len(rest) > _MOST_AFTER or b"\n },\n" in rest or b"\n }\n}\n" in rest:
                    raise DatasetError(f"{where}: something was put in behind the list")
                return
            lines.append(line)
            if line in _ENTRY_ENDS or len(lines) > _MOST_LINES:
                try:
                    text = b"".join(lines).decode().strip().removesuffix(",")
                except UnicodeDecodeError as error:
                    raise DatasetError(f"{where}: {error}") from None
                for name, entry in decode_json(f"{{{text}}}", where).items():
                    yield _checked(name, entry, where)
                comma = line == _ENTRY_ENDS[0]
                lines.clear()
    raise DatasetError(f"{where}: the list does not end")


def _checked(name: str, entry: Any, where: str) -> Entry:
    if not isinstance(entry, dict):
        raise DatasetError(f"{where}.{name}: expected a table, found {type(entry).__name__}")
    return name, entry
