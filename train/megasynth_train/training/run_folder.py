"""The folder of a training run: how its settings and its result are recognised, and who may write into it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import DatasetError, EnvironmentProblem
from megasynth_attr.core.fields import identity_of
from megasynth_attr.core.files import json_bytes
from megasynth_attr.core.pages.words import size_text
from megasynth_attr.core.run_folder import Identity, Kind, claim, flat, is_one, read_record, require_same
from megasynth_attr.core.temporary import replace_atomically
from megasynth_train.adapters.storage import RECORD
from megasynth_train.training.checkpoints import holds_checkpoint, recorded_identity
from megasynth_train.training.processes import on_main
from megasynth_train.training.settings import TrainSettings

SETTINGS, DONE, CHECKPOINTS, ADAPTER, BEST = "settings.json", "done.json", "checkpoints", "adapter", "best"
TRAINING_DATA = "the content of data.sources (SHA-256)"
BASE_MODEL = "the base model of model.checkpoint and model.seed (SHA-256)"
DEFAULTS = flat(identity_of(TrainSettings()))  # of settings that an older run does not record
FINISHED = Kind(
    "finished training run",
    DONE,
    "megasynth-attr finished training 1",
    keys=("step", "result", "best", "skipped_steps", "bad_files", "objective", "best_step", "best_objective"),
    tables=("identity",),
    paths=("result", "best"),
    advice=f"remove {DONE} to finish again from the last checkpoint, or choose another out=",
)
LR_TEST = Kind("learning-rate test", "lr_find.json", "megasynth-attr learning-rate test 1")
RUN = Kind(
    "training run",
    SETTINGS,
    "megasynth-attr training settings 1",
    known_by=lambda out: is_one(out, FINISHED) or holds_checkpoint(out / CHECKPOINTS) or is_one(out, LR_TEST),
    defaults=DEFAULTS,
    done=FINISHED,
    begun_with=lambda out: recorded_identity(out / CHECKPOINTS),
    later=(TRAINING_DATA, BASE_MODEL),
)


@contextmanager
def held(out: Path, accelerator: Accelerator, identity: Identity) -> Iterator[None]:
    """Hold the run folder, as ``claim`` does: process 0 holds it for all, and a refusal is raised on all.

    The settings in ``identity`` are compared before anything large is loaded; data and base model follow in ``begin``.
    """
    with ExitStack() as stack:
        on_main(accelerator, lambda: stack.enter_context(claim(out, RUN, identity)))
        yield


def begin(out: Path, settings: TrainSettings, identity: Identity, needed_bytes: int) -> None:
    """Write settings.json; EnvironmentProblem if the disk has less than ``needed_bytes``.

    ConfigError, with nothing changed, if there is a checkpoint of another ``identity``, here with data and base model.
    """
    if (begun := recorded_identity(out / CHECKPOINTS)) is not None:
        require_same(out, RUN, begun, identity)
    free = shutil.disk_usage(out).free
    if free < needed_bytes:
        raise EnvironmentProblem(
            f"{out} has only {size_text(free)} free, but a checkpoint and the result take {size_text(needed_bytes)}; "
            "free some space or choose another out="
        )
    replace_atomically(out / SETTINGS, json_bytes({**to_plain(settings), "format": RUN.format}))


def read_done(out: Path) -> dict[str, Any] | None:
    """Return done.json, or None if the run is not finished; DatasetError if it is damaged or the result is gone."""
    if not (out / DONE).exists():
        return None
    done = read_record(out, FINISHED)
    for folder in (out / str(done["result"]), out / str(done["best"])):
        if not (folder / RECORD).is_file():
            raise DatasetError(
                f"{out / DONE} says that the run is finished, but {folder / RECORD} is missing; {FINISHED.advice}"
            )
    return done
