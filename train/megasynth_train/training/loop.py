"""The training loop, from the first step to the last, for one process or many.

One step: learning rate → batch → forward → losses + the adapter's penalty → backward → clip → finite? → AdamW. Forward
to backward run once for each piece of a step (``data.scenes_at_once``); the pieces' gradients add up.

The host never waits for the device inside a step (except for AdaLoRA): whether the step was finite is decided on the
device, where AdamW reads it, and the host learns of it one step later (step_reports.py). It waits only before it logs,
validates or saves.

Everything random is a function of (seed, step, process), so a run continues from a checkpoint exactly.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem, Interrupted
from megasynth_attr.core.stop import StopRequest
from megasynth_train.adapters import Adapted
from megasynth_train.adapters.lean import make_lean
from megasynth_train.cost.layers import StepShape
from megasynth_train.data.batch import RawBatch
from megasynth_train.data.device import prepare
from megasynth_train.data.loader import StepLoader, dead_workers_named
from megasynth_train.data.plan import Sampling
from megasynth_train.data.sources import TrainingData
from megasynth_train.training import checkpoints, memory
from megasynth_train.training.arithmetic import choose_arithmetic
from megasynth_train.training.losses import Losses, count, losses
from megasynth_train.training.metrics import Interval, MetricsWriter, null_if_not_finite
from megasynth_train.training.optimiser import (
    build_optimiser,
    clip_by_group,
    learning_rate,
    load_moments,
    moments,
    set_learning_rate,
    step_unless,
)
from megasynth_train.training.pieces import join, split
from megasynth_train.training.processes import asked_to_stop, on_main
from megasynth_train.training.run_folder import CHECKPOINTS
from megasynth_train.training.settings import TrainSettings
from megasynth_train.training.step_reports import Position, Reports, refuse_diverged
from megasynth_train.vggt.config import ATTENTION, EVERYTHING, NOTHING
from megasynth_train.vggt.model import Prediction
from megasynth_train.vggt.precision import autocast

Result = TypeVar("Result")
OnStep = Callable[[int], None]  # is told how many steps are done


def train(run: Run, stop: StopRequest, on_step: OnStep = lambda steps: None) -> Position:
    """Train, save and return where it ended; Interrupted if ``stop`` says so, ConfigError if the run diverged.

    ``on_step`` is told the steps that are done, first those of an earlier start.
    """
    settings, position = run.settings.run, run.position
    steps, first = run.settings.optim.steps, position.step + 1
    keep = 1 if run.device.type == "cuda" else 0  # reports the device may still be working on
    writer = MetricsWriter(
        run.out, position.step, tensorboard=settings.tensorboard, warn=say, enabled=run.accelerator.is_main_process
    )
    bar = step_bar("train", steps, position.step, shown=settings.progress and run.accelerator.is_main_process)
    with writer, bar, dead_workers_named():
        if settings.validate_every and position.step == 0:
            if run.accelerator.is_main_process:
                say("measuring the base model on the held-out scenes")
            position.base_losses = run.validate(keep_best=False)  # best/ is a tuned model
            writer.write(0, "validation", position.base_losses)
        on_step(position.step)
        for raw in run.batches(position.step, steps, training=True):
            run.step(raw, wanted := asked_to_stop(stop))
            if position.step == first and settings.memory == "auto":
                run.say_peak(raw)
            run.reports.read(keep)
            last = position.step == steps
            stopping = run.reports.stop and not last
            if last or position.step % settings.log_every == 0:
                run.reports.read()
                writer.write(position.step, "train", {**run.reports.line(), **run.facts()})
                bar.set_postfix(loss=position.objective, skipped=position.skipped_steps, refresh=False)
            bar.update()
            on_step(position.step)
            if settings.validate_every and (last or position.step % settings.validate_every == 0):
                position.last_losses = run.validate()
                writer.write(position.step, "validation", position.last_losses)
            every = settings.checkpoint_every
            if last or stopping or (every and position.step % every == 0):
                writer.sync()
                run.save()
            if stopping:
                raise Interrupted(
                    f"{wanted or 'another process was asked to stop'} ({position.step} of {steps} steps are done and "
                    f"saved in {run.out})"
                )
    refuse_diverged(position, run.out)
    return position


def step_bar(what: str, total: int, done: int = 0, *, shown: bool) -> tqdm[Any]:
    """Return a progress bar of steps."""
    return tqdm(
        total=total, initial=done, desc=what, unit="step", dynamic_ncols=True, disable=not shown,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,  # less often into a log file
    )  # fmt: skip


def say(text: str) -> None:
    """Print a line to stderr without tearing the bar."""
    tqdm.write(text, file=sys.stderr)


class Run:
    """One run in its folder ``out``: model, optimiser, position, checkpoints; continues from the latest checkpoint.

    ``identity`` maps keys to the values that decide the result; ``run_folder.begin`` compares it.
    """

    def __init__(
        self,
        adapted: Adapted,
        data: TrainingData,
        settings: TrainSettings,
        accelerator: Accelerator,
        out: Path,
        identity: Mapping[str, Any],
    ) -> None:
        self.adapted, self.data, self.settings = adapted, data, settings
        self.accelerator, self.device, self.out, self.identity = accelerator, accelerator.device, out, dict(identity)
        self.arithmetic = choose_arithmetic(settings.model, adapted.model.config, self.device)
        self.precision = self.arithmetic.precision
        self.scenes_at_once = settings.data.scenes_at_once
        self.position = Position()
        self.saved_step = -1
        self._validation: StepLoader | None = None
        torch.manual_seed(settings.run.seed + accelerator.process_index)  # only for models that draw, as dropout does
        self.arithmetic.apply(adapted.model)
        if self.precision == "bf16":
            make_lean(adapted)
        adapted.model.to(self.device)
        self.optimiser = build_optimiser(adapted.trainable, settings.optim, adapted.undecayed)
        interval = self._resume()
        self.reports = Reports(self.position, interval, accelerator, settings.optim.max_bad_steps)
        with warnings.catch_warnings():
            # broadcast_buffers=False is deprecated for a name that accelerate cannot pass on yet
            warnings.simplefilter("ignore", FutureWarning)
            self.model = accelerator.prepare_model(adapted.model)  # several processes: DDP, which averages gradients
        self.model.train()

    # ---- steps

    def batches(self, first_step: int, steps: int, *, training: bool) -> StepLoader:
        """Return the batches of steps first_step … steps − 1 of this process."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        scenes = self.data.train if training else self.data.validation
        sampling = Sampling(scenes, self.settings.data, self.settings.run.seed, rank, world, training)
        return StepLoader(sampling, range(first_step, steps), pin=self.device.type == "cuda")

    def step(self, raw: RawBatch, stop_wanted: str = "", rate: float | None = None) -> None:
        """Queue one optimiser step on the device; nothing here waits for it. ``rate``: None is the schedule's."""
        optim, step = self.settings.optim, self.position.step
        if rate is None:
            rate = learning_rate(step / max(1, optim.steps - 1), optim)
        set_learning_rate(self.optimiser, rate)
        objective, values = self._in_memory(raw, self._backward)
        norms = clip_by_group(self.adapted.groups, optim.clip)
        stop, bad = self._agree(objective, norms, bool(stop_wanted))
        step_unless(self.optimiser, bad)
        # AdaLoRA must not see the gradients of a skipped step; it waits for the device in every step anyway
        if self.settings.adapter.mode == "adalora" and not bad.item():
            self.adapted.after_step(step)
        self.position.step += 1
        values |= {f"grad_norm_{group}": norm for group, norm in norms.items()}
        self.reports.send(raw, rate, stop, bad, values)
        for unread in raw.skipped:
            say(f"step {step}: {unread.scene} is replaced by another scene: {unread.reason}")

    def facts(self) -> dict[str, int | str]:
        """Return how steps are computed now, for metrics.jsonl."""
        return {"attention": self.arithmetic.attention, "scenes_at_once": self.scenes_at_once}

    def say_peak(self, raw: RawBatch) -> None:
        """Say how much memory the step of ``raw`` took, and how much had been estimated."""
        shape = StepShape(len(raw.names), len(raw.views[0]), *raw.image_size_hw)
        data = replace(self.settings.data, scenes_at_once=self.scenes_at_once)
        now = replace(self.settings, data=data, model=self.settings.model.keeping(self.adapted.model.kept))
        if self.accelerator.is_main_process:
            say(memory.peak_line(now, shape, memory.peak_bytes(self.device)))

    def _in_memory(self, raw: RawBatch, work: Callable[[RawBatch], Result]) -> Result:
        """Return ``work(raw)``; out of the GPU's memory, try again in smaller pieces, which then stay for the run.

        Nothing of a failed attempt remains: ``work`` begins with its gradients at zero, and draws the same numbers.
        """
        random = self._random_state()
        while True:
            try:
                return work(raw)
            except RuntimeError as error:
                if not memory.is_shortage(error):
                    raise
            # here the error is gone, and with it the tensors of the failed attempt
            self._use_less_memory(len(raw.names))
            self._set_random_state(random)

    def _use_less_memory(self, scenes: int) -> None:
        """Halve the pieces of a step with this many scenes, or keep less of blocks; EnvironmentProblem if both are
        done, or if other processes are waiting for this one in the middle of the step.
        """
        at_once = min(self.scenes_at_once or scenes, scenes)
        failed = f"step {self.position.step}: the GPU ran out of memory with {at_once} of {scenes} scenes at once"
        model = self.adapted.model
        if at_once == 1 and model.kept == NOTHING:
            raise EnvironmentProblem(
                f"{failed} and every block computed again: lower data.views or data.width_px, or use a larger GPU"
            )
        half = (at_once + 1) // 2
        less = self.settings.model.keeping(ATTENTION if model.kept == EVERYTHING else NOTHING)
        change = f"data.scenes_at_once={half}" if at_once > 1 else " ".join(less.kept_words())
        if self.accelerator.num_processes > 1:
            raise EnvironmentProblem(
                f"{failed}; a step of several processes cannot be tried again: start the run with {change}"
            )
        if at_once > 1:
            self.scenes_at_once = half
        else:
            model.kept = less.kept
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)  # the failed attempt's is no step's
        say(f"{failed}; it is tried again, and the run goes on, with {change}")

    def _backward(self, raw: RawBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Leave the gradients of a step in the parameters; return what was minimised, and the terms to report."""
        self.optimiser.zero_grad(set_to_none=True)
        target = prepare(raw, self.device, self.settings.data)
        counts = count(target.masks, self.settings.loss)
        *first, last = split(target, self.scenes_at_once)
        total: dict[str, Tensor] = {}
        for piece in (*first, last):
            # several processes: gradients are averaged once, with the last piece
            with nullcontext() if piece is last else self.accelerator.no_sync(self.model):
                terms = losses(self._predict(self.model, piece.images), piece, self.settings.loss, counts)
                objective, values = terms.objective, dict(terms.items())
                if piece is last and (penalty := self.adapted.penalty()) is not None:
                    objective, values["penalty"] = objective + penalty, penalty.detach()
                objective.backward()
            total = {name: total[name] + value if name in total else value for name, value in values.items()}
        minimised = total["objective"]
        return (minimised + total["penalty"] if "penalty" in total else minimised), total

    def _predict(self, model: torch.nn.Module, images: Tensor) -> Prediction:
        with autocast(self.device, self.precision):
            prediction: Prediction = model(images)
        return prediction

    def _agree(self, objective: Tensor, norms: Mapping[str, Tensor], stop_wanted: bool) -> tuple[Tensor, Tensor]:
        """Return whether to stop and whether the step is bad (0 or 1, on the device), as all processes together see it.

        A non-finite gradient of one process has reached all in DDP's average; a non-finite loss need not have.
        """
        finite = torch.isfinite(torch.stack([objective, *norms.values()])).all()
        # full_like is a kernel; torch.tensor(…, device="cuda") would wait for a copy
        flags = torch.stack([torch.full_like(objective, float(stop_wanted)), (~finite).to(objective.dtype)])
        if self.accelerator.num_processes > 1:
            flags = self.accelerator.reduce(flags, "sum").clamp(max=1.0)
        stop, bad = flags
        return stop, bad

    @torch.no_grad()
    def validate(self, *, keep_best: bool = True) -> dict[str, float | None]:
        """Return the mean losses over the validation batches, always the same; keep the weights if they are the best.

        A mean that is not finite is None, and never the best.
        """
        self.reports.read()
        started, steps = time.monotonic(), self.settings.run.validation_steps
        names: tuple[str, ...] = ()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.adapted.model.eval()
        if self._validation is None:
            self._validation = self.batches(0, steps, training=False)  # its workers stay for the next time
        for raw in self._validation:
            values = dict(self._in_memory(raw, self._validation_losses).items())
            names, total = tuple(values), total + torch.stack([value.double() for value in values.values()])
        self.adapted.model.train()
        means = (self.accelerator.reduce(total, "sum") / (steps * self.accelerator.num_processes)).tolist()
        line = {name: null_if_not_finite(mean) for name, mean in zip(names, means, strict=True)}
        position, objective, best = self.position, line["objective"], self.position.best_objective
        if keep_best and objective is not None and (best is None or objective < best):
            position.best_step, position.best_objective = position.step, objective
            on_main(self.accelerator, lambda: checkpoints.save_best(
                self.out / CHECKPOINTS, self.adapted.trainable, position.step, objective
            ))  # fmt: skip
        self.reports.exclude(time.monotonic() - started)
        return line

    def _validation_losses(self, raw: RawBatch) -> Losses:
        """Return the losses of a validation batch: those of the whole batch, whatever the pieces."""
        target = prepare(raw, self.device, self.settings.data)
        pieces = split(target, self.scenes_at_once)
        prediction = join([self._predict(self.adapted.model, piece.images) for piece in pieces])
        return losses(prediction, target, self.settings.loss)

    # ---- saving and continuing

    def save(self) -> None:
        """Write a checkpoint of this step; EnvironmentProblem, on all processes, if that fails."""
        started = time.monotonic()
        self.reports.read()
        if self.saved_step == self.position.step:
            return
        random = gather_object([self._random_state()])
        state = {
            **asdict(self.position),
            "intervals": gather_object([asdict(self.reports.interval)]),
            "identity": self.identity,
            "versions": versions(),
        }
        files: dict[str, Mapping[str, Tensor]] = {
            "weights": self.adapted.trainable,
            "optimizer": moments(self.optimiser, self.adapted.trainable),
            "method": self.adapted.extra_state(),
            "random": {f"{rank}.{name}": value for rank, each in enumerate(random) for name, value in each.items()},
        }
        on_main(self.accelerator, lambda: checkpoints.save_checkpoint(
            self.out / CHECKPOINTS, self.position.step, files, state, self.settings.run.keep
        ))  # fmt: skip
        self.saved_step = self.position.step
        self.reports.exclude(time.monotonic() - started)

    def _resume(self) -> Interval:
        """Load the latest checkpoint, if there is one; return its interval of metrics."""
        folder = self.out / CHECKPOINTS
        found = on_main(self.accelerator, lambda: checkpoints.latest_checkpoint(folder, say))
        if found is None:
            return Interval()
        load_weights(self.adapted.trainable, found.tensors("weights"), found.path)
        load_moments(self.optimiser, self.adapted.trainable, found.tensors("optimizer"))
        self.adapted.load_extra_state(found.tensors("method"))
        rank, random = self.accelerator.process_index, found.tensors("random")
        self._set_random_state({name.removeprefix(f"{rank}."): state for name, state in random.items()})
        # older versions did not measure the base model
        known = {field.name: found.state[field.name] for field in fields(Position) if field.name in found.state}
        self.position = Position(**known)
        self.saved_step = found.step
        if self.accelerator.is_main_process:
            say(f"continuing at step {found.step} of {self.settings.optim.steps}, from {found.path}")
            if (before := found.state["versions"]) != (now := versions()):
                say(f"NOTE: it was written with {before}, this is {now}: results may differ in rounding")
        return Interval(**found.state["intervals"][rank])

    def _random_state(self) -> dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def _set_random_state(self, state: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that compute."""
    return {name: version(name) for name in ("torch", "peft", "numpy")}


@torch.no_grad()
def load_weights(trainable: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Copy ``saved`` into ``trainable``; DatasetError naming the first tensor that is missing or differs in shape."""
    for name in sorted({*trainable, *saved}):
        ours, theirs = trainable.get(name), saved.get(name)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise DatasetError(f"{path} does not fit this model: it differs in {name}; choose another out=")
        ours.copy_(theirs)
