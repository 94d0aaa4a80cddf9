"""Work in progress: temporary folders, removal of those whose process died, and files that appear in one step."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from megasynth_attr.core.files import storage_errors, sync_folder, write_durably

TMP = "tmp"  # holds what is being written, beside its final place
REPLACED = "replaced"  # what replace_folder keeps until the new folder is there


def new_temporary_folder(parent: Path, stem: str) -> Path:
    """Create and return ``parent/<stem>.<host>.<pid>.<n>`` with the first free n; ``stem`` has no dot."""
    prefix = f"{stem}.{socket.gethostname()}.{os.getpid()}"
    with storage_errors("a temporary folder", parent):
        attempt = 0
        while True:
            with suppress(FileExistsError):
                parent.mkdir()
            folder = parent / f"{prefix}.{attempt}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                attempt += 1
            except FileNotFoundError:  # another process, which needed ``parent`` no longer, has just removed it
                if parent.is_symlink():  # to a folder that is not there
                    raise


def remove_leftovers(parent: Path) -> list[str]:
    """Remove the temporary folders of processes of this host that no longer run; return their names.

    Folders of other hosts stay: whether their process lives cannot be known from here. What ``replace_folder`` had
    moved aside when it was killed goes back to where it was, beside ``parent``, unless the new one is there already.
    """
    removed = []
    for folder in _entries(parent):
        stem, _, rest = folder.name.partition(".")
        rest, _, attempt = rest.rpartition(".")
        host, _, pid = rest.rpartition(".")
        if host == socket.gethostname() and pid.isdigit() and attempt.isdigit() and not _owner_alive(int(pid), folder):
            if stem == REPLACED:
                _put_back(folder, parent.parent)
            shutil.rmtree(folder, ignore_errors=True)  # another run may be removing the same one
            removed.append(folder.name)
    return removed


@contextmanager
def working_folder(parent: Path, stem: str) -> Iterator[Path]:
    """Yield a temporary folder in ``parent``; it is removed at the end, and ``parent`` too unless others work there."""
    folder = new_temporary_folder(parent, stem)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a failure here must not hide the one that led here
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
    for path in [new, *(p for p in new.rglob("*") if p.is_dir())]:
        sync_folder(path)
    holder = new_temporary_folder(final.parent / TMP, REPLACED)  # no working_folder: it must outlive a failure
    old = holder / final.name
    try:
        if final.exists():
            final.rename(old)
        new.rename(final)
    finally:
        if old.exists() and not final.exists():
            old.rename(final)
        shutil.rmtree(holder, ignore_errors=True)
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
    for old in holder.iterdir():
        if not (where / old.name).exists():
            with suppress(FileNotFoundError):  # another run has just put it back
                old.rename(where / old.name)


def _owner_alive(pid: int, folder: Path) -> bool:
    """Return whether process ``pid`` runs and was started before ``folder`` was last changed (numbers are reused)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs, under another user
    started = _start_time(pid)
    try:
        return started is None or started <= folder.stat().st_mtime + 2
    except FileNotFoundError:
        return False


def _start_time(pid: int) -> float | None:
    """Return when a process was started (seconds since 1970), or None where the system does not tell."""
    try:
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, StopIteration):
        return None
    return float(boot.split()[1]) + int(after_name[19]) / os.sysconf("SC_CLK_TCK")
