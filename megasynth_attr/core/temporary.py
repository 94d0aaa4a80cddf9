"""Work in progress: temporary folders, removal of those whose process died, and files that appear in one step.

A temporary folder belongs to the process that holds a lock (``flock``) on the file of the same name with ``.lock``
beside it. The file is locked before the folder is made and goes after it, so a folder whose lock can be taken belongs
to nobody. The kernel drops the lock when the process ends, however it ends; no process number and no clock decides.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.files import storage_errors, sync_folder, sync_tree, write_durably

TMP = "tmp"  # holds what is being written, beside its final place
REPLACED = "replaced"  # what replace_folder keeps until the new folder is there
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # what a file system says that has none

_LOCK = ".lock"
_NAME = re.compile(r"(?P<stem>[^.]+)\.(?P<host>.+)\.\d+\.\d+")
_ELSEWHERE_S = 86400  # some file systems (BeeGFS, Lustre with localflock) keep locks to one machine: others get a day
_held: dict[Path, int] = {}  # this process's temporary folders → descriptors of their locks


def new_temporary_folder(parent: Path, stem: str) -> Path:
    """Create and return ``parent/<stem>.<host>.<pid>.<n>`` with a free n; ``stem`` has no dot.

    EnvironmentProblem if ``parent`` is a link: what is written in a stranger's folder stays in it.
    It is this process's until ``remove_temporary_folder``. Where the file system has no locks, nobody removes it else.
    """
    prefix = f"{stem}.{socket.gethostname()}.{os.getpid()}"
    with storage_errors("a temporary folder", parent):
        attempt = 0
        while True:
            if parent.is_symlink():
                raise EnvironmentProblem(
                    f"{parent} is a link, and what is written begins there, beside its final place; remove the link"
                )
            with suppress(FileExistsError):
                parent.mkdir()
            folder = parent / f"{prefix}.{attempt}"
            try:
                _create(folder)
                return folder
            except (FileExistsError, BlockingIOError):  # another container has this name, or it is being removed
                attempt += 1
            except FileNotFoundError:  # another process, which needed ``parent`` no longer, has just removed it
                continue


def remove_temporary_folder(folder: Path) -> None:
    """Remove a folder of ``new_temporary_folder``, if it is still there, and give up its lock."""
    shutil.rmtree(folder, ignore_errors=True)  # a failure here must not hide the one that led here
    if (descriptor := _held.pop(folder, None)) is not None:
        with suppress(OSError):
            if not folder.exists():  # else a later run tries again
                _lock_of(folder).unlink()
        os.close(descriptor)


def remove_leftovers(parent: Path, only: str = "") -> list[str]:
    """Remove the temporary folders of processes that have ended; return their names. ``only``: those of one stem.

    What ``replace_folder`` had moved aside when it was killed goes back to where it was, beside ``parent``, unless the
    new one is there already. Folders without a lock stay: those of version 0.1.0, and of file systems without locks.
    """
    removed = []
    for lock in [] if parent.is_symlink() else _entries(parent):
        folder = lock.with_suffix("")
        name = _NAME.fullmatch(folder.name)
        if lock.suffix != _LOCK or name is None or only not in ("", name["stem"]):
            continue
        try:
            if name["host"] != socket.gethostname() and time.time() - lock.stat().st_mtime < _ELSEWHERE_S:
                continue
            _held[folder] = _hold(lock)
        except OSError:  # its process lives, or another run has just removed it, or it is another user's
            continue
        if name["stem"] == REPLACED:
            _put_back(folder, parent.parent)
        remove_temporary_folder(folder)
        removed.append(folder.name)
    return removed


def is_temporary(name: str) -> bool:
    """Return whether ``new_temporary_folder`` makes folders or locks of this name."""
    return _NAME.fullmatch(name.removesuffix(_LOCK)) is not None


@contextmanager
def working_folder(parent: Path, stem: str) -> Iterator[Path]:
    """Yield a temporary folder in ``parent``; it is removed at the end, and ``parent`` too unless others work there."""
    folder = new_temporary_folder(parent, stem)
    try:
        yield folder
    finally:
        remove_temporary_folder(folder)
        remove_if_empty(parent)


def remove_if_empty(folder: Path) -> None:
    """Remove ``folder`` unless it holds something: then others work there, or it is not ours."""
    with suppress(OSError):
        folder.rmdir()


def replace_atomically(path: Path, content: bytes) -> None:
    """Write a file in one step: readers see the old bytes or the new ones. Works in ``tmp`` beside ``path``."""
    with written_beside(path, "file") as temporary:
        write_durably(temporary, content)


@contextmanager
def written_beside(path: Path, stem: str) -> Iterator[Path]:
    """Yield a path to write a file to; at the end it takes the place of ``path``, after an error nothing is changed.

    Works in ``tmp`` beside ``path``, whose folder is created if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with working_folder(path.parent / TMP, stem) as folder:
        yield folder / path.name
        (folder / path.name).replace(path)
    sync_folder(path.parent)


@contextmanager
def replacing_folder(final: Path, what: str) -> Iterator[Path]:
    """Yield an empty folder to fill; it replaces ``final`` when the block ends without an error, else nothing changes.

    Works in ``tmp`` beside ``final``. EnvironmentProblem naming ``what`` if the disk refuses.
    """
    parent = final.parent / TMP
    with storage_errors(what, final):
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(parent)
        with working_folder(parent, "new") as holder:
            new = holder / final.name
            new.mkdir()
            yield new
            replace_folder(new, final)


def replace_folder(new: Path, final: Path) -> None:
    """Let the complete folder ``new`` take the place of ``final``; if that fails, the old folder is put back.

    ``new`` lies on the same disk. A folder cannot be exchanged in one step: a process killed in between leaves the old
    one in ``tmp`` beside ``final``, from where ``remove_leftovers`` puts it back.
    """
    sync_tree(new)
    holder = new_temporary_folder(final.parent / TMP, REPLACED)  # no working_folder: it must outlive a failure
    old = holder / final.name
    try:
        while new.exists():
            with suppress(FileNotFoundError):
                final.rename(old)
            try:
                new.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(old, ignore_errors=True)  # another run has just put its own there
    finally:
        if old.exists() and not final.exists():
            old.rename(final)
        remove_temporary_folder(holder)
    sync_folder(final.parent)


def publish(new: Path, final: Path) -> bool:
    """Rename ``new`` to ``final``, whose folder is created if need be; False if another folder is there already."""
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        new.rename(final)
    except OSError:
        if not (new.is_dir() and final.is_dir()):
            raise
        return False
    sync_folder(final.parent)
    return True


def create_exclusively(path: Path, content: bytes) -> bool:
    """Create ``path`` with ``content`` in one step; False, with nothing changed, if it has been created already.

    Works in ``tmp`` beside ``path``.
    """
    with working_folder(path.parent / TMP, "file") as folder:
        temporary = folder / path.name
        write_durably(temporary, content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            temporary.replace(path)  # a file system without hard links: the last of several creators wins
    sync_folder(path.parent)
    return True


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _put_back(holder: Path, where: Path) -> None:
    """Move what ``holder`` holds to ``where``, except what has a successor there."""
    for old in _entries(holder):
        if not (where / old.name).exists():
            with suppress(FileNotFoundError):  # another run has just put it back
                old.rename(where / old.name)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)


def _create(folder: Path) -> None:
    """Create ``folder``, locked if the file system can; FileExistsError or BlockingIOError if the name is not free."""
    lock = _lock_of(folder)
    try:
        descriptor = _hold(lock, os.O_CREAT | os.O_EXCL)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"the output folder is on a file system without locks ({error.strerror}): what killed runs leave in "
            f"folders called {TMP} stays there; remove it by hand when nothing runs",
            stacklevel=2,
        )
        lock.unlink(missing_ok=True)
        folder.mkdir()
        return
    try:
        folder.mkdir()
    except OSError:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    _held[folder] = descriptor


def _hold(lock: Path, flags: int = 0) -> int:
    """Return a descriptor that holds the lock file ``lock``; BlockingIOError if another has it or has removed it."""
    descriptor = os.open(lock, os.O_RDWR | flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), lock.stat()):
            raise BlockingIOError(errno.EAGAIN, "made anew by another process")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
