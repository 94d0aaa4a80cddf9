"""``python -m megasynth_train.finetune``: train one model or adapter on datasets, from settings to saved result.

::

    <out>/settings.json       all settings of the latest start
    <out>/metrics.jsonl       one line per interval of steps (metrics.py)
    <out>/start.safetensors   pissa, lora_xs: what they derive from the base weights (adapters/start.py)
    <out>/checkpoints/        the latest ones and the best weights (checkpoints.py)
    <out>/adapter/            the result after the last step (adapters/storage.py; mode=full: with model.safetensors)
    <out>/best/               the result with the best validation, if that was not the last
    <out>/done.json           written last: a run that has it is finished
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import PartialState

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_attr.core.fields import identity_of, setting
from megasynth_attr.core.files import json_bytes
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.run_folder import check, flat
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.temporary import replace_atomically
from megasynth_train.adapters import Adapted, adapt, save_adapter
from megasynth_train.adapters.inject import keep_start
from megasynth_train.adapters.methods import SPECTRAL
from megasynth_train.adapters.start import START
from megasynth_train.adapters.subspace.opening import identity as basis_identity
from megasynth_train.cost.cards import card_table, run_tuning
from megasynth_train.cost.memory import GIB, fit
from megasynth_train.data.sources import TrainingData, open_sources
from megasynth_train.training import held_out, lr_find
from megasynth_train.training.arithmetic import choose_arithmetic
from megasynth_train.training.base_model import base_model
from megasynth_train.training.checkpoints import read_best, recorded_identity
from megasynth_train.training.held_out import HeldOut
from megasynth_train.training.loop import OnStep, Run, load_weights, say, train
from megasynth_train.training.memory import choice_text, fit_to_gpu, free_bytes, shortage_named
from megasynth_train.training.processes import make_accelerator, on_main, run_program
from megasynth_train.training.run_folder import (
    ADAPTER,
    BASE_MODEL,
    BEST,
    CHECKPOINTS,
    DONE,
    FINISHED,
    RUN,
    TRAINING_DATA,
    begin,
    held,
    read_done,
)
from megasynth_train.training.settings import NEED_FLOAT32_WEIGHTS, TrainSettings
from megasynth_train.training.step_reports import Position
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.precision import set_backends

HELP = Help(
    usage="python -m megasynth_train.finetune data=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Trains VGGT, or adapters in it, on datasets. Running the same command again resumes from the latest\n"
        "checkpoint; nothing happens if it has finished. Several GPUs: torchrun --nproc-per-node=8 -m\n"
        "megasynth_train.finetune … (data.images_per_step is per process). Exit code 75 means stopped and saved: run\n"
        "the command again (torchrun exits with 1 instead). The end compares the losses of base model and tuned model\n"
        "on held-out scenes. lr_find=true suggests a learning rate: the released 1e-5 is for 24,000 steps."
    ),
    examples=(
        "python -m megasynth_train.finetune data=runs/demo out=runs/tiny model=vggt-tiny mode=full "
        "adapter.train_encoder=true steps=500 lr=1e-3",
        "python -m megasynth_train.finetune data=runs/texture/texture_00 out=runs/lora checkpoint=facebook/VGGT-1B",
    ),
)
NOTHING_HELD_OUT = (
    "data.validation_share=0: no scene is held out, so nothing will tell whether the tuned model is better than the "
    "base model on scenes it has not seen; hold some out with e.g. data.validation_share=0.1"
)
PIECES = "data.scenes_at_once"


@dataclass(frozen=True)
class FinetuneSettings(TrainSettings):
    """A run, or what is worth knowing before it."""

    plan: bool = setting(False, "print what training takes on GPUs of every size, and stop")
    lr_find: bool = setting(
        False,
        "train for a moment at rising learning rates, throw the weights away, write lr_find.png and lr_find.json into "
        "out=, suggest optim.lr, and stop",
    )
    lr_find_steps: int = setting(200, "lr_find=true: steps from 1e-7 to 1; it ends where the loss diverges", minimum=40)


@dataclass(frozen=True)
class TrainResult:
    """A finished run: ``result`` is the folder of the last weights, ``best`` that of the best validation."""

    out: Path
    result: Path
    best: Path
    steps: int
    skipped_steps: int
    bad_files: int
    objective: float | None  # mean over the last interval of metrics
    best_step: int | None  # None: nothing was validated, and best is the result
    best_objective: float | None
    base_losses: HeldOut | None = None  # on the held-out scenes, of the base model and after the last step
    last_losses: HeldOut | None = None
    already_done: bool = False


def run(
    settings: TrainSettings, *, record: Mapping[str, Any] | None = None, on_step: OnStep = lambda steps: None
) -> TrainResult:
    """Train as ``settings`` say, resuming what ``run.out`` holds, and return where the result is.

    ``record`` is stored with the adapter; ``on_step`` is told the steps that are done. Raises ConfigError,
    DatasetError, EnvironmentProblem (no GPU, full disk), or Interrupted after SIGTERM, SIGUSR1, Ctrl-C or
    max_runtime_s, with a checkpoint of the last step.
    """
    _require_out(settings)
    settings, out = settings.training(), Path(settings.run.out).resolve()
    with StopRequest(settings.run.max_runtime_s) as stop:
        accelerator, settings, identity = _started(settings, out)
        with held(out, accelerator, identity):
            if (done := on_main(accelerator, lambda: read_done(out))) is not None:
                if accelerator.is_main_process:
                    say(
                        f"{out} holds a finished run of {done['step']} steps with the same settings; nothing to do "
                        "(data and base model were not compared)"
                    )
                return _result(out, done, already_done=True)
            with shortage_named():
                return _train(settings, out, accelerator, identity, record or {}, stop, on_step)


def find_lr(settings: FinetuneSettings) -> str:
    """Return the learning rate that a range test suggests, and why; write its numbers and picture into ``run.out``.

    A run in that folder, begun or not, stays as it is. Raises as ``run``, EnvironmentProblem also without matplotlib.
    """
    _require_out(settings)
    require_report_libraries("matplotlib", what="lr_find=true")
    steps, out = settings.lr_find_steps, Path(settings.run.out).resolve()
    with shortage_named(), StopRequest(settings.run.max_runtime_s, advice="run the same command again") as stop:
        accelerator, training, _ = _started(settings.training(), out)
        on_main(accelerator, lambda: check(out, RUN))
        # a step that is not finite ends the test and is no error
        training = dataclasses.replace(training, optim=dataclasses.replace(training.optim, max_bad_steps=1))
        data, adapted, notes = _opened(training, accelerator, out)
        if accelerator.is_main_process:
            for note in notes:
                say(note)
        # its folder does not exist: nothing is resumed from there, and nothing saved
        tried = Run(adapted, data, training, accelerator, out / "lr_find", {})
        if accelerator.is_main_process:
            say(str(tried.arithmetic))
        curve = lr_find.measure(tried, steps, stop)
        found = lr_find.suggest(curve)
        on_main(accelerator, lambda: lr_find.write(out, curve, found, training))
    return f"{found.text(curve)}\n{lr_find.RELEASED}\n{out / lr_find.PICTURE}"


def _require_out(settings: TrainSettings) -> None:
    if not settings.run.out:
        raise ConfigError("out= is missing: name the folder of this run, e.g. out=runs/texture_lora")


def _started(settings: TrainSettings, out: Path) -> tuple[Accelerator, TrainSettings, dict[str, Any]]:
    """Return the accelerator, the settings as they fit its device, and their identity."""
    accelerator = make_accelerator(settings.run.device)
    set_backends(settings.run.threads)
    settings = fit_to_gpu(settings, accelerator, on_main(accelerator, lambda: _pieces_so_far(out, settings)))
    # before the folder is made: the basis may be unusable
    return accelerator, settings, settings_identity(settings, accelerator)


def _opened(settings: TrainSettings, accelerator: Accelerator, out: Path) -> tuple[TrainingData, Adapted, list[str]]:
    """Return the data, the base model with its adapter, and what the user should know about them."""
    data = open_sources(settings.data)
    notes = list(data.notes) + [f"left out {bad.scene}: {bad.reason}" for bad in data.unreadable]
    start = out / START
    if settings.adapter.mode in SPECTRAL and accelerator.is_main_process and not start.exists():
        say(f"mode={settings.adapter.mode} starts from decompositions of the weights; the run keeps them in {start}")
    model = base_model(settings.model, notes)
    adapted = adapt(model, settings.adapter, total_steps=settings.optim.steps, start=start)
    trained = f"{adapted.parameter_count():,} parameters are trained (mode={adapted.mode})"
    return data, adapted, [*notes, *adapted.notes, trained]


def _train(
    settings: TrainSettings,
    out: Path,
    accelerator: Accelerator,
    identity: dict[str, Any],
    record: Mapping[str, Any],
    stop: StopRequest,
    on_step: OnStep,
) -> TrainResult:
    data, adapted, notes = _opened(settings, accelerator, out)
    if not data.validation and settings.run.validate_every:
        settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, validate_every=0))
        if not settings.data.validation_share and not record:  # a program with several runs has test data of its own
            notes.append(NOTHING_HELD_OUT)
    identity |= {TRAINING_DATA: data.fingerprint, BASE_MODEL: adapted.base.weights_sha256}
    # of one checkpoint and the result: weights, two moments, and the weights again
    needed_bytes = 4 * sum(p.numel() * p.element_size() for p in adapted.trainable.values())
    on_main(accelerator, lambda: begin(out, settings, identity, needed_bytes))
    on_main(accelerator, lambda: keep_start(adapted, out / START))
    if accelerator.is_main_process:
        for note in notes:
            say(note)
    training_run = Run(adapted, data, settings, accelerator, out, identity)
    if accelerator.is_main_process:
        say(str(training_run.arithmetic))
        if settings.run.memory == "auto":
            say(f"memory=auto: {choice_text(settings)}")
    position = train(training_run, stop, on_step)
    text = held_out.warning(position.base_losses, position.last_losses)
    if accelerator.is_main_process and text:
        say(f"{out}: {text}")
    training = {
        **record,
        "settings": to_plain(settings),
        "data_fingerprint": data.fingerprint,
        "scenes": [scene.name for scene in data.train],
        "step": position.step,
        "objective": position.objective,
    }
    return on_main(accelerator, lambda: _finish(out, adapted, position, training, identity))


def settings_identity(settings: TrainSettings, accelerator: Accelerator) -> dict[str, Any]:
    """Return by key what decides the result: settings, number of processes and the content of the basis.

    ConfigError or EnvironmentProblem for arithmetic that this device does not have.
    """
    arithmetic = choose_arithmetic(settings.model, named_config(settings.model.size), accelerator.device)
    if arithmetic.frozen == "fp8" and settings.adapter.mode in NEED_FLOAT32_WEIGHTS:
        raise ConfigError(
            f"model.frozen=fp8 does not go with mode={settings.adapter.mode}, which needs float32 weights"
        )
    identity = flat(identity_of(settings))
    identity["model.precision"] = arithmetic.precision
    identity.pop("model.depth_head", None)
    if arithmetic.depth_head != "fp32":
        identity["model.depth_head"] = arithmetic.depth_head
    if not _pieces_matter(settings):
        identity.pop(PIECES, None)
    identity["the number of processes"] = accelerator.num_processes
    return identity | basis_identity(settings.adapter)


def _pieces_matter(settings: TrainSettings) -> bool:
    """Return whether a step in pieces differs by more than rounding: each piece has a quantile of its own."""
    return settings.loss.quantile < 1 and settings.loss.depth > 0


def _pieces_so_far(out: Path, settings: TrainSettings) -> int | None:
    """Return the scenes at once of the run in ``out``, if it must go on with them and nothing else is asked for."""
    begun = recorded_identity(out / CHECKPOINTS)
    if begun is None or settings.data.scenes_at_once or not _pieces_matter(settings):
        return None
    pieces: int = begun.get(PIECES, 0)
    return pieces


def _result(out: Path, done: Mapping[str, Any], *, already_done: bool) -> TrainResult:
    counts = {key: done[key] for key in ("skipped_steps", "bad_files", "objective", "best_step", "best_objective")}
    folders = {"out": out, "result": out / done["result"], "best": out / done["best"]}
    return TrainResult(
        **folders,
        steps=done["step"],
        **counts,
        base_losses=done.get("base_losses"),  # older runs have none
        last_losses=done.get("last_losses"),
        already_done=already_done,
    )


def _finish(
    out: Path, adapted: Adapted, position: Position, training: Mapping[str, Any], identity: Mapping[str, Any]
) -> TrainResult:
    """Save the last weights, the best ones if they are others, and done.json, in this order."""
    save_adapter(adapted, out / ADAPTER, training)
    result = {"step": position.step, "result": ADAPTER, "best": ADAPTER, "best_step": None, "best_objective": None}
    if position.best_step is not None:
        result |= _save_best(out, adapted, position, training)
    done = {**dataclasses.asdict(position), **result, "format": FINISHED.format, "identity": dict(identity)}
    replace_atomically(out / DONE, json_bytes(done))
    return _result(out, done, already_done=False)


def _save_best(out: Path, adapted: Adapted, position: Position, training: Mapping[str, Any]) -> dict[str, Any]:
    """Save the best model as its own result unless it is the last; return what done.json says about it."""
    best = read_best(out / CHECKPOINTS)
    if best is None:
        say(f"WARNING: the best weights, of step {position.best_step}, are no longer in {out}: only the last are saved")
        return {}
    facts = {"best_step": best.step, "best_objective": best.objective}
    if best.step == position.step:
        return facts
    load_weights(adapted.trainable, best.weights, out / CHECKPOINTS)
    save_adapter(adapted, out / BEST, {**training, "step": best.step, "objective": best.objective})
    return {**facts, "best": BEST}


def plan_text(settings: TrainSettings) -> str:
    """Return what the usual adapters take on GPUs of every size, and what this run takes on the one that is here."""
    table, settings = card_table(settings), settings.training()
    if not torch.cuda.is_available():
        return f"{table}\nPyTorch sees no CUDA GPU here."
    free = free_bytes(torch.device("cuda"))
    try:
        here = choice_text(fit(settings, run_tuning(settings), free))
    except EnvironmentProblem as problem:
        here = str(problem)
    return f"{table}\n{torch.cuda.get_device_name()}, {free / GIB:.1f} GiB free, mode={settings.adapter.mode}: {here}"


def main(words: list[str]) -> None:
    """Train as the command line says and print the result."""
    settings = parse(FinetuneSettings, words, HELP)
    if settings.plan:
        print(plan_text(settings))
        return
    if settings.lr_find:
        text = find_lr(settings)
        if PartialState().is_main_process:
            print(text)
        return
    result = run(settings)
    if PartialState().is_main_process:
        print(
            f"{result.steps} steps, {result.skipped_steps} skipped, objective {result.objective:.6g}: {result.result}"
        )
        if result.best_step is not None:
            print(f"best validation {result.best_objective:.6g} at step {result.best_step}: {result.best}")
        if result.base_losses and result.last_losses:
            print(held_out.table(result.base_losses, result.last_losses))


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
