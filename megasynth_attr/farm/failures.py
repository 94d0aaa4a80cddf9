"""``failures/<tttsss>.json``: why a scene could not be made. A scene that succeeds later loses its record."""

from __future__ import annotations

from typing import Any

from megasynth_attr.core.files import json_bytes, storage_errors, write_durably
from megasynth_attr.core.temporary import working_folder
from megasynth_attr.dataset.paths import TMP, failure_file, scene_name
from megasynth_attr.farm.tasks import Task
from megasynth_attr.farm.work import Problem

FAILURE_FORMAT = "megasynth-attr failure 1"


def write_failure(task: Task, problem: Problem, attempts: int, scene_hash: str) -> None:
    """Record that ``task`` failed for good; ``scene_hash`` is empty if no scene could be drawn."""
    record: dict[str, Any] = {
        "format": FAILURE_FORMAT,
        "scene": scene_name(task.scene_index),
        "stage": problem.stage,
        "error": problem.error,
        "message": problem.message,
        "attempts": attempts,
        "scene_hash": scene_hash,
        "log": list(problem.log),
    }
    file = failure_file(task.dataset, task.scene_index)
    with storage_errors("a failure record", file), working_folder(task.dataset / TMP, "failure") as folder:
        write_durably(folder / file.name, json_bytes(record))
        file.parent.mkdir(exist_ok=True)
        (folder / file.name).replace(file)


def remove_failure(task: Task) -> None:
    """Forget an earlier failure of a scene that now exists; the folder goes with its last record."""
    file = failure_file(task.dataset, task.scene_index)
    if file.is_file():
        file.unlink(missing_ok=True)
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
