"""Writing files so that they are whole or absent, and saying what went wrong when they cannot be written."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import math
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem, MegaSynthError

MOST_BYTES = 2**30  # of a file that is read as a whole
MOST_BYTES_PER_LINE = 2**20  # of files that are read line by line
MOST_LEVELS = 64  # of lists and tables in each other
_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or choose another out=, then run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another out=, then run the same command again",
    errno.EROFS: "the file system is read-only; choose another out=",
    errno.EACCES: "no permission to write there; change the folder's rights or choose another out=",
    errno.EPERM: "no permission to write there; change the folder's rights or choose another out=",
    errno.EFBIG: "the file-size limit of this process (ulimit -f) or of the file system is too small",
    errno.ENOENT: "a folder of this path is missing and cannot be created; choose another out=",
    errno.ENOTDIR: "a part of this path is a file; choose another out=",
    errno.EEXIST: "a file is where a folder is needed; choose another out=",
    errno.EISDIR: "a folder is where a file is needed; choose another out=",
}


class StoredFile(Protocol):
    """What is read as a file: a path, or a member of an archive (``dataset/archive.py``), which checks itself."""

    @property
    def name(self) -> str: ...
    def is_file(self) -> bool: ...
    def read_bytes(self) -> bytes: ...


def storage_problem(error: OSError, what: str, path: Path) -> MegaSynthError:
    """Return the error that says what could not be written, where, why and what to do: an EnvironmentProblem, or a
    ConfigError for a name that no file system takes.
    """
    if error.errno == errno.ENAMETOOLONG:
        return ConfigError(f"{what} cannot be written: a name in {str(path)[:80]}… is too long; choose a shorter one")
    advice = _ADVICE.get(error.errno or 0, "check the disk, then run the same command again")
    return EnvironmentProblem(f"{what} cannot be written to {path}: {error.strerror or error}; {advice}")


@contextmanager
def storage_errors(what: str, path: Path) -> Iterator[None]:
    """Turn an OSError raised inside into the error of ``storage_problem``."""
    try:
        yield
    except OSError as error:
        raise storage_problem(error, what, path) from error


def json_bytes(record: Any) -> bytes:
    """Return the bytes of a JSON file: sorted keys, one value per line, equal for equal records."""
    return (json.dumps(to_plain(record), sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def write_durably(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` and to the disk itself. Not atomic: for files in folders that are renamed later."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # network file systems that cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make ``folder`` and all that is in it survive a power cut, as it must before it gets its final name.

    In one call (Linux): one for each of many files takes several times as long, and as many requests to a file server.
    """
    if not _sync_file_system(folder):
        for path in [*folder.rglob("*"), folder]:
            sync_folder(path)


def _sync_file_system(folder: Path) -> bool:
    """Write everything that waits to be written to the file system of ``folder``; False if the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if library.syncfs(descriptor) == 0:
            return True
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            return False
        raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)


def sha256_of(path: StoredFile) -> str:
    """Return the SHA-256 (hex) of a file's bytes; OSError as from ``open_regular``."""
    if not isinstance(path, Path):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Yield a file to be read; OSError also for what is no regular file: a pipe, a device."""
    with open(path, "rb", opener=_without_waiting) as file:  # which refuses folders itself
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that are left of a file; of one that is too long to be ours, pieces."""
    return iter(partial(file.readline, MOST_BYTES_PER_LINE), b"")


def read_regular(path: StoredFile, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a file's bytes; OSError as from ``open_regular``, and if it is larger than that."""
    if not isinstance(path, Path):
        return path.read_bytes()
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most_bytes:
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than {most_bytes}", str(path))
        return file.read()


def refuse_web_page(content: bytes, path: StoredFile) -> None:
    """Raise DatasetError if the bytes of a file are a web page, or the pointer that stands for a large file in Git."""
    start = content[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise DatasetError(
            f"{path} is a web page, not data: a site that wants you to log in or to accept its terms sends one "
            "instead; do that, then download the file again"
        )
    if start.startswith(b"version https://git-lfs"):
        raise DatasetError(f"{path} is a Git LFS pointer, not data; run git lfs pull where you cloned it")


def decode_json(text: str, where: str) -> Any:
    """Return the value in a JSON text; DatasetError unless it is valid and ``unusable`` finds nothing in it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
        raise DatasetError(f"{where} is damaged: not valid JSON ({error})") from None
    if problem := unusable(value):
        raise DatasetError(f"{where} is damaged: {problem}")
    return value


def unusable(value: Any, most_values: float = math.inf, finite: bool = True) -> str:
    """Return what is wrong with nested lists and tables from a file, "" if nothing is.

    Numbers must be ``finite`` and fit into a float. Neither the levels nor the values may be too many, which also
    refuses what contains itself.
    """
    level, count = [value], 0
    for _ in range(MOST_LEVELS):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict | list):
                below.extend(item.values() if isinstance(item, dict) else item)
                if count + len(below) > most_values:
                    return f"it holds more than {most_values} values"
            elif isinstance(item, float | int if finite else int) and not abs(item) <= sys.float_info.max:  # nor NaN
                return "a number in it is not finite or too large"
        level, count = below, count + len(below)
        if not level:
            return ""
    return f"it is nested deeper than {MOST_LEVELS} levels"


def read_json(path: StoredFile, expected_format: str | None = None) -> dict[str, Any]:
    """Return the object in a JSON file; DatasetError if it is missing, damaged or of another ``format``."""
    try:
        content = read_regular(path)
        refuse_web_page(content, path)
        record = decode_json(content.decode("utf-8-sig"), str(path))  # editors on Windows write a byte-order mark
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None
    found = record.get("format") if isinstance(record, dict) else None
    if not isinstance(record, dict) or (expected_format is not None and found != expected_format):
        if expected_format is None:
            raise DatasetError(f"{path} is damaged: it holds no table of names and values")
        raise DatasetError(f"{path}: expected format {expected_format!r}, found {found!r}; written by another version?")
    return record


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to would otherwise be waited for."""
    return os.open(path, flags | os.O_NONBLOCK)
