"""Names that were read from a file, or typed, and become paths: the one place that decides which may.

A name is one part of a path. What a stranger's file calls a scene, a picture or an adapter must not lead out of the
folder that it belongs to, and must be a file name on every system.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import Any, TypeVar

from megasynth_attr.core.errors import DatasetError

AnyPath = TypeVar("AnyPath", bound=PurePath)
MOST_BYTES = 255  # of a file name, on most file systems
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # whatever its ending


def problem_of(name: Any) -> str:
    """Return why ``name`` cannot be the name of a file or folder, as in "it has a slash in it"; "" if it can."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        return "it is no file name"
    if "\\" in name:
        return "it has a backslash in it; between folders write /"
    if "/" in name:
        return "it has a slash in it"
    if not name.isprintable():  # control characters, NUL, half characters
        return "it has characters in it that cannot be printed"
    if len(name.encode()) > MOST_BYTES:
        return f"it is longer than {MOST_BYTES} bytes"
    return "Windows keeps it for a device" if _DEVICE.fullmatch(name) else ""


def checked(name: Any, where: str) -> str:
    """Return ``name`` if it can be the name of a file or folder; DatasetError, beginning with ``where``, if not."""
    if problem := problem_of(name):
        raise DatasetError(f"{where}: {_shown(name)} cannot be used as a name: {problem}; do not use this file")
    return str(name)


def inside(folder: AnyPath, name: Any, where: str) -> AnyPath:
    """Return ``folder/name``; DatasetError unless ``name`` is a path relative to it: names with slashes between them.

    Links that are there are followed, as people put them there themselves; see ``within``.
    """
    parts = name.split("/") if isinstance(name, str) else [name]
    if len(parts) > 1 and (parts[0] == "" or ".." in parts):
        raise DatasetError(
            f"{where}: {_shown(name)} cannot be used as a name: it leads out of {folder}; write it relative to that "
            "folder, in which the file must be"
        )
    return folder.joinpath(*(checked(part, where) for part in parts))


def within(folder: Path, path: Path) -> Path:
    """Return ``path`` if it is in ``folder`` even when links are followed; DatasetError if not."""
    if _has_link(folder, path) and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise DatasetError(f"{path} is a link that leads out of {folder}; put the file itself there")
    return path


def _has_link(folder: Path, path: Path) -> bool:
    """Return whether what is below ``folder`` in ``path`` may be elsewhere; cheaper than to follow all links."""
    below = [path, *path.parents][: len(path.parts) - len(folder.parts)]
    unclear = not path.is_relative_to(folder) or ".." in path.parts
    return unclear or any(os.path.islink(place) for place in below)  # noqa: PTH114 - which raises where it may not look


def _shown(name: Any) -> str:
    return repr(name) if len(repr(name)) <= 80 else f"{repr(name)[:80]}…"


def is_attribute(name: str) -> bool:
    """Return whether ``name`` can be an attribute: letters, digits and _; folders and files are named after it."""
    return name.replace("_", "").isalnum() and len(name) <= 100 and not problem_of(name)
