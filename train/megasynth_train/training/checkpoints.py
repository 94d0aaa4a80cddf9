"""Checkpoints: writing them whole or not at all, and finding the latest intact one.

::

    <out>/checkpoints/step_00001000/   weights, optimizer, method, random (.safetensors), state.json with their SHA-256
    <out>/checkpoints/best/            weights of the best validation: one file, step and objective in its header

A checkpoint whose bytes are not what state.json says is set aside as ``damaged_step_…``, with a warning, and the one
before it is used: training is a pure function of the step, so this costs time but does not change the result.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, read_json, sha256_of, storage_errors, write_durably
from megasynth_attr.core.names import inside
from megasynth_attr.core.run_folder import Kind, is_one
from megasynth_attr.core.temporary import TMP, replacing_folder, written_beside
from megasynth_train.vggt.weight_files import write_tensors

STATE = "state.json"
CHECKPOINT = Kind("checkpoint", STATE, "megasynth-attr training checkpoint 1")
BEST = "best/weights.safetensors"
_ASIDE = "damaged_"
_STEP = re.compile(r"step_(\d{8,})")

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint: its record, and ``tensors(file)`` for weights, optimizer, method or random."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Return the steps done when it was written."""
        return int(self.state["step"])

    def tensors(self, file: str) -> dict[str, Tensor]:
        """Return the tensors of ``<file>.safetensors``, on the CPU; DatasetError if it cannot be read."""
        path = self.path / f"{file}.safetensors"
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise DatasetError(
                f"{path} cannot be read ({error}); remove {self.path} to use the one before it"
            ) from None


@dataclass(frozen=True)
class Best:
    """The weights with the lowest validation objective."""

    step: int
    objective: float
    weights: dict[str, Tensor]


def save_checkpoint(folder: Path, step: int, files: Mapping[str, Tensors], state: Mapping[str, Any], keep: int) -> Path:
    """Write ``folder/step_<step>`` atomically and remove all but the ``keep`` latest checkpoints; return its path.

    ``files`` gives the tensors of each ``<name>.safetensors``. EnvironmentProblem if they cannot be written; the older
    checkpoints are then as they were.
    """
    final = folder / f"step_{step:08d}"
    with replacing_folder(final, "a checkpoint") as temporary:
        for name, tensors in files.items():
            write_tensors(temporary / f"{name}.safetensors", tensors, {})
        hashes = {f"{name}.safetensors": sha256_of(temporary / f"{name}.safetensors") for name in files}
        record = {**state, "format": CHECKPOINT.format, "step": step, "files": hashes}
        write_durably(temporary / STATE, json_bytes({**record, "sha256": _hash(record)}))
    for old in saved_steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step_{old:08d}")
    return final


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in ``folder``, in increasing order."""
    names = [_STEP.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(match.group(1)) for match in names if match)


def latest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the latest intact checkpoint, or None if none was ever written; half-written ones are removed.

    A damaged one is renamed, with a warning. DatasetError if all are damaged, found now or by an earlier start.
    """
    for half_written in (folder / TMP, (folder / BEST).parent / TMP):
        shutil.rmtree(half_written, ignore_errors=True)  # the caller holds the run folder: nobody is writing there
    damaged = []
    for step in reversed(saved_steps(folder)):
        path = folder / f"step_{step:08d}"
        try:
            return Checkpoint(path, _checked_state(path))
        except DatasetError as error:
            damaged.append(str(error))
            aside = path.with_name(f"{_ASIDE}{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            warn(f"WARNING: {error}; set aside as {aside.name}; the checkpoint before it is used")
    damaged += [f"{path.name} was set aside" for path in sorted(folder.glob(f"{_ASIDE}step_*"))]
    if damaged:
        raise DatasetError(f"no checkpoint in {folder} is intact ({damaged[0]}); to start again, choose another out=")
    return None


def holds_checkpoint(folder: Path) -> bool:
    """Return whether ``folder`` holds a checkpoint written here, intact or set aside as damaged."""
    return any(is_one(path, CHECKPOINT) for path in [*folder.glob("step_*"), *folder.glob(f"{_ASIDE}step_*")])


def recorded_identity(folder: Path) -> dict[str, Any] | None:
    """Return the identity of the run in ``folder``, for an early check; None without a readable checkpoint."""
    for step in reversed(saved_steps(folder)):
        try:
            identity: dict[str, Any] = _state(folder / f"step_{step:08d}")["identity"]
            return identity
        except (DatasetError, KeyError):
            continue  # latest_checkpoint reports it
    return None


def _checked_state(path: Path) -> dict[str, Any]:
    """Return the record of the checkpoint at ``path``; DatasetError unless all its files are what it says."""
    state = _state(path)
    for name, expected in state["files"].items():
        if not inside(path, name, str(path / STATE)).is_file():
            raise DatasetError(f"{path / name} is missing")
        if sha256_of(path / name) != expected:
            raise DatasetError(f"{path / name} is damaged: its SHA-256 is not the one {STATE} gives")
    return state


def _state(path: Path) -> dict[str, Any]:
    state = read_json(path / STATE, CHECKPOINT.format)
    if _hash({key: value for key, value in state.items() if key != "sha256"}) != state.get("sha256"):
        raise DatasetError(f"{path / STATE} is damaged: its contents do not match the SHA-256 it gives")
    return state


def _hash(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_bytes(record)).hexdigest()


def save_best(folder: Path, weights: Tensors, step: int, objective: float) -> None:
    """Replace the best weights atomically: readers find the old or the new ones, with their step and objective."""
    final = folder / BEST
    with storage_errors("a checkpoint", final), written_beside(final, "new") as temporary:
        write_tensors(temporary, weights, {"step": str(step), "validation_objective": repr(objective)})


def read_best(folder: Path) -> Best | None:
    """Return the best validation that was saved, or None; DatasetError if the file is damaged."""
    path = folder / BEST
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        return Best(int(header["step"]), float(header["validation_objective"]), load_file(path))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} is damaged ({error}); remove it; the next best validation writes it again"
        ) from None
