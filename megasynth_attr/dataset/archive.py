"""Packed scenes: all files of a scene in one uncompressed tar archive, of which each can be read without the others.

Members come in a fixed order, the layers of a frame beside each other, and the last one, ``checksums.json``, is the
index: it lists the others with their sizes, from which their places follow. A header holds nothing but a name and a
size. So equal scenes give equal archives, ``tar xf`` makes the scene's folder of one, and what an archive may hold is
exactly what we would have written: any other header is refused, be it a link, a device or a path that leads out.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from megasynth_attr.core.codec import from_plain
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import MOST_BYTES, StoredFile, open_regular, read_json
from megasynth_attr.core.names import checked
from megasynth_attr.dataset.conventions import CHECKSUMS_FORMAT
from megasynth_attr.dataset.paths import CHECKSUMS_FILE, RENDER_ANEW

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
LONGEST_NAME = tarfile.LENGTH_NAME  # in a plain header
FIRST_LOOK = 2**16  # bytes at the end of an archive in which its index is looked for; usually it is there
MOST_INDEX_BYTES = 2**26
KEPT_INDEXES = 64  # of the archives that were read last


@dataclass(frozen=True)
class FileSum:
    """One file as it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Member:
    """A file in an archive, read like a path. One that is not there has the size -1."""

    archive: Path
    path: str  # in the archive, e.g. rgb/0000.png
    offset: int = 0  # of its header
    size: int = -1

    def __str__(self) -> str:
        return f"{self.archive}/{self.path}"

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def is_file(self) -> bool:
        return self.size >= 0

    def read_bytes(self) -> bytes:
        """Return its bytes, and read no others; FileNotFoundError if it is not there, DatasetError if something else is
        where the index says."""
        if not self.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        with open_regular(self.archive) as file:
            file.seek(self.offset)
            if file.read(BLOCK) == _header(self.path, self.size):
                content, padding = file.read(self.size), file.read(-self.size % BLOCK)
                if len(content) == self.size and padding == bytes(-self.size % BLOCK):
                    return content
        raise DatasetError(
            f"{self} is damaged: the archive does not hold it where {CHECKSUMS_FILE} says; {RENDER_ANEW}"
        )


def listed_files(checksums: StoredFile) -> dict[str, FileSum]:
    """Return what a checksums.json says of every file; DatasetError if it is missing or damaged."""
    files = read_json(checksums, CHECKSUMS_FORMAT).get("files")
    listed: dict[str, FileSum] = from_plain(dict[str, FileSum], files, f"{checksums} is damaged")
    return listed


def members(archive: Path) -> Mapping[str, Member]:
    """Return what an archive holds; DatasetError if it is missing, or not whole, or holds what we never write.

    The index is read once and kept; what it says of a member is compared when the member is read.
    """
    try:
        found = archive.stat()
        return _members(archive, (found.st_ino, found.st_size, found.st_mtime_ns))
    except OSError as error:
        raise DatasetError(f"{archive} cannot be read ({error.strerror}); {RENDER_ANEW}") from None


def in_order(names: Iterable[str]) -> list[str]:
    """Return names in the order of an archive: frame by frame, then the records."""
    return sorted(names, key=_place)


class ArchiveWriter:
    """Writes an archive member by member, in order, ``checksums.json`` last. ``finish`` leaves it whole and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb")
        self._last = ("", "")

    def close(self) -> None:
        """Give up the file, finished or not."""
        with suppress(OSError):  # a full disk refuses what is still in memory; that must not hide the first refusal
            self._file.close()

    def add(self, name: str, content: bytes) -> None:
        """Append a file; ValueError if it belongs before one that is there already, DatasetError if no scene has it."""
        if name != CHECKSUMS_FILE:
            if _place(name) <= self._last:
                raise ValueError(f"{name} comes before {self._last[0]} in an archive; write the frames in order")
            _check(name, len(content), str(self._path))
            self._last = _place(name)
        self._file.write(_header(name, len(content)))
        self._file.write(content)
        self._file.write(bytes(-len(content) % BLOCK))

    def finish(self) -> Path:
        """Return the path of the archive."""
        self._file.write(END)
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._path


def _place(name: str) -> tuple[str, str]:
    return name.rpartition("/")[2], name


def _check(name: str, size: int, where: str) -> None:
    """Raise DatasetError, beginning with ``where``, for a name or a size that no file of a scene has."""
    parts = name.split("/")
    for part in parts:
        checked(part, where)
    if (
        len(parts) > 2
        or name == CHECKSUMS_FILE
        or not name.isascii()
        or len(name) > LONGEST_NAME
        or not 0 <= size <= MOST_BYTES
    ):
        raise DatasetError(f"{where}: a scene holds no {name!r} of {size} bytes; {RENDER_ANEW}")


def _header(name: str, size: int) -> bytes:
    """Return a member's header: no times, owners or machine, mode 644; these are TarInfo's defaults."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


@lru_cache(KEPT_INDEXES)
def _members(archive: Path, _stamp: tuple[int, ...]) -> Mapping[str, Member]:
    """Return what an archive holds. ``_stamp`` changes when the file does."""
    index, offset = _index(archive), 0
    files = listed_files(index)
    found = {index.path: index}
    if both := {name.partition("/")[0] for name in files if "/" in name} & {index.path, *files}:
        raise DatasetError(f"{index}: {min(both)!r} is a file and a folder of files; {RENDER_ANEW}")
    for name in in_order(files):
        size = files[name].bytes
        _check(name, size, str(index))
        found[name] = Member(archive, name, offset, size)
        offset += BLOCK + size + -size % BLOCK
    if offset != index.offset:
        raise DatasetError(
            f"{archive} is damaged: the files that its {CHECKSUMS_FILE} lists take {offset} bytes, there are "
            f"{index.offset}; {RENDER_ANEW}"
        )
    return found


def _index(archive: Path) -> Member:
    """Return the last member, which must be ``checksums.json``; it is found from the end."""
    with open_regular(archive) as file:
        whole = os.fstat(file.fileno()).st_size
        look = FIRST_LOOK
        while whole % BLOCK == 0:
            start = max(0, whole - look)
            file.seek(start)
            tail = file.read(look)
            if (place := _last_header(tail)) >= 0:
                return Member(archive, CHECKSUMS_FILE, start + place, _size_of(tail[place:]))
            if start == 0 or look >= MOST_INDEX_BYTES or not tail.endswith(END):
                break
            look *= 4
    raise DatasetError(
        f"{archive} is no packed scene or not a whole one: it does not end with {CHECKSUMS_FILE}; {RENDER_ANEW}"
    )


def _last_header(tail: bytes) -> int:
    """Return where in the end of an archive the header of ``checksums.json`` is; -1 if it is not there."""
    place, name = len(tail), CHECKSUMS_FILE.encode() + b"\0"
    while (place := tail.rfind(name, 0, place)) >= 0:
        if place % BLOCK == 0:
            return place if _size_of(tail[place:]) >= 0 else -1
    return -1


def _size_of(rest: bytes) -> int:
    """Return the size of the member whose header ``rest`` begins with; -1 unless it is the archive's last one."""
    try:
        size = tarfile.TarInfo.frombuf(rest[:BLOCK], "ascii", "strict").size
    except (tarfile.HeaderError, ValueError):
        return -1
    is_last = len(rest) == BLOCK + size + -size % BLOCK + len(END) and rest.endswith(END)
    return size if is_last and rest[:BLOCK] == _header(CHECKSUMS_FILE, size) else -1
