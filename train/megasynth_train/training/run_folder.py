"""The folder of a run: whether it is one, who may write into it, and whether its result is complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_attr.core.files import json_bytes, read_json, storage_errors
from megasynth_attr.core.lock import LOCK, take_lock
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.dataset.paths import TMP
from megasynth_train.adapters.storage import RECORD
from megasynth_train.training.checkpoints import holds_checkpoint
from megasynth_train.training.processes import on_main
from megasynth_train.training.settings import TrainSettings

DONE_FORMAT = "megasynth-attr finished training 1"
SETTINGS_FORMAT = "megasynth-attr training settings 1"
SETTINGS, DONE, CHECKPOINTS = "settings.json", "done.json", "checkpoints"
_DONE_KEYS = (
    "identity", "step", "result", "best", "skipped_steps", "bad_files", "objective", "best_step", "best_objective",
)  # fmt: skip


def has_begun(folder: Path) -> bool:
    """Return whether ``folder`` holds more than a run leaves that ended before its first file."""
    return folder.is_dir() and not {path.name for path in folder.iterdir()} <= {LOCK, TMP}


def check_is_run(out: Path) -> None:
    """Raise ConfigError unless ``out`` is absent, empty or a training run: whatever else it is must not be changed."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out={out} is a file; name a folder")
    with storage_errors("the run folder", out):
        begun = has_begun(out)
    if not begun:
        return
    if (out / SETTINGS).is_dir():
        raise ConfigError(f"{out / SETTINGS} is a folder, not the settings of a run; remove it or choose another out=")
    ours = _is_of(out / SETTINGS, SETTINGS_FORMAT) or _is_of(out / DONE, DONE_FORMAT)
    if not ours and not holds_checkpoint(out / CHECKPOINTS):
        raise ConfigError(f"{out} holds something that is no training run; choose another out=")


def _is_of(file: Path, expected_format: str) -> bool:
    try:
        read_json(file, expected_format)
    except DatasetError:
        return False
    return True


@contextmanager
def held(out: Path, accelerator: Accelerator) -> Iterator[None]:
    """Hold the run folder, so that two runs cannot write into it; the kernel lets go when the process ends, even by -9.

    ConfigError on all processes if another run holds it, or if it is no run's.
    """

    def take() -> None:
        check_is_run(out)
        locks.append(take_lock(out, "the run folder"))

    locks: list[Any] = []
    on_main(accelerator, take)
    try:
        yield
    finally:
        for file in locks:
            file.close()


def begin(out: Path, settings: TrainSettings, needed_bytes: int) -> None:
    """Write settings.json; EnvironmentProblem if the disk has less than ``needed_bytes``."""
    free = shutil.disk_usage(out).free
    if free < needed_bytes:
        raise EnvironmentProblem(
            f"{out} has {_size(free)} left, a checkpoint and the result take {_size(needed_bytes)}; free some space or "
            "choose another out="
        )
    replace_atomically(out / SETTINGS, json_bytes({**to_plain(settings), "format": SETTINGS_FORMAT}))


def _size(count: int) -> str:
    unit, scale = ("GB", 1e9) if count >= 1e9 else ("MB", 1e6)
    return f"{count / scale:.3g} {unit}"


def read_done(out: Path) -> dict[str, Any] | None:
    """Return done.json, or None if the run is not finished; DatasetError if it is damaged or the result is gone."""
    file = out / DONE
    if not file.exists():
        return None
    done = read_json(file, DONE_FORMAT)
    again = f"remove {file} to finish again from the last checkpoint, or choose another out="
    if missing := [key for key in _DONE_KEYS if key not in done]:
        raise DatasetError(f"{file} is damaged: {missing[0]} is missing; {again}")
    if not isinstance(done["identity"], Mapping):
        raise DatasetError(f"{file} is damaged: identity is no table; {again}")
    for folder in (out / str(done["result"]), out / str(done["best"])):
        if not (folder / RECORD).is_file():
            raise DatasetError(f"{file} says that the run is finished, but {folder / RECORD} is missing; {again}")
    return done
