"""Scenes that were damaged since they were written: kept elsewhere, so that the scenes are rendered anew."""

from __future__ import annotations

import errno
import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import read_regular
from megasynth_attr.dataset.paths import CHECKSUMS_FILE, DAMAGED, SCENE_FILE, scene_path
from megasynth_attr.dataset.scene_files import scene_file
from megasynth_attr.farm.tasks import Plan

# missing, or something else is in its place: a folder, a pipe, a link to itself, a file too large to be ours
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.EFBIG)


def set_aside_damaged(plan: Plan) -> bool:
    """Move damaged scenes to ``damaged/`` in their dataset, say so, and return whether there were any.

    A scene is damaged if its scene.json is not the file that its checksums.json describes: pictures are left to the
    stage verify. A run looks at its own scenes only.
    """
    found = False
    todo = {part.dataset: part.scenes for part in plan.todo.parts}
    for part in plan.selected.parts:
        for index in np.setdiff1d(part.scenes, todo.get(part.dataset, ()), assume_unique=True).tolist():
            path = scene_path(part.dataset, index)
            if damage := _damage(path):
                with suppress(FileNotFoundError):  # another run has just done the same
                    kept = _set_aside(path, part.dataset / DAMAGED)
                    print(f"damaged   {part.dataset.name}/{path.name}: {damage}; kept as {kept}, to be rendered anew")
                    found = True
    return found


def _damage(scene: Path) -> str:
    """Return what is wrong with a scene; "" if nothing is."""
    try:
        described = read_regular(scene_file(scene, CHECKSUMS_FILE)).decode()
        if hashlib.sha256(read_regular(scene_file(scene, SCENE_FILE))).hexdigest() in described:
            return ""
        return f"{SCENE_FILE} is not the file that {CHECKSUMS_FILE} describes"
    except DatasetError as error:
        return str(error).partition(";")[0]
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_SUCH_FILE:
            raise
        return f"{SCENE_FILE} or {CHECKSUMS_FILE} is missing or unreadable"


def _set_aside(scene: Path, where: Path) -> Path:
    where.mkdir(exist_ok=True)
    kept, number = where / scene.name, 0
    while kept.exists():
        number += 1
        kept = where / f"{scene.name}.{number}"
    return scene.rename(kept)
