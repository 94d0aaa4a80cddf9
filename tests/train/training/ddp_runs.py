"""Training on two ranks, and by one process that averages both ranks' gradients itself; ``more`` are words of a run."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
import training_runs as runs
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from megasynth_train.adapters import adapt
from megasynth_train.data.device import prepare
from megasynth_train.data.loader import StepLoader
from megasynth_train.data.plan import Sampling
from megasynth_train.data.sources import open_sources
from megasynth_train.training.base_model import base_model
from megasynth_train.training.loop import Run
from megasynth_train.training.losses import losses
from megasynth_train.training.optimiser import (
    build_optimiser,
    clip_by_group,
    learning_rate,
    set_learning_rate,
    step_unless,
)
from megasynth_train.training.processes import make_accelerator
from megasynth_train.training.settings import TrainSettings

STEPS = 5
BAD_GRADIENT, BAD_LOSS = 1, 3  # steps in which rank 1, and it alone, is not finite
WORDS = (f"steps={STEPS}", "run.validate_every=0", "data.images_per_step=2", "optim.warmup=0")


def train_rank(environment: dict[str, str], data: Path, out: Path, more: tuple[str, ...]) -> None:
    """Be one rank: train, with two steps of rank 1 made bad; write all weights to a file."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    settings = runs.settings_of(data, out, *WORDS, *more)
    accelerator = make_accelerator("cpu")
    adapted = adapt(base_model(settings.model, []), settings.adapter, total_steps=STEPS)
    run = Run(adapted, open_sources(settings.data), settings, accelerator, out, {})
    bad = accelerator.process_index == 1

    def spoil(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * math.nan if bad and run.position.step == BAD_GRADIENT else output

    def penalty() -> Tensor | None:  # infinite without a gradient: DDP's average does not show it to rank 0
        return torch.tensor(math.inf if bad and run.position.step == BAD_LOSS else 0.0)

    adapted.model.depth_head.register_forward_hook(spoil)
    adapted.penalty = penalty
    assert isinstance(run.model, DistributedDataParallel) and not run.model.broadcast_buffers
    for raw in run.batches(0, STEPS, training=True):
        run.step(raw)
    run.reports.read()
    line = run.reports.line()
    numbers = {"skipped": torch.tensor(line["skipped_steps"]), "objective": torch.tensor(line["objective"])}
    weights = {name: p.detach().contiguous() for name, p in adapted.trainable.items()}
    save_file(weights | numbers, out / f"rank{accelerator.process_index}.safetensors")
    accelerator.state.destroy_process_group()


def train_two_ranks(data: Path, out: Path, *more: str) -> list[dict[str, Tensor]]:
    """Return both ranks' trained weights, and what they counted: ``skipped`` steps and the mean ``objective``."""
    out.mkdir()
    processes = [runs.start(train_rank, environment, data, out, more) for environment in runs.ranks(2)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    return [load_file(out / f"rank{rank}.safetensors") for rank in range(2)]


def train_by_hand(settings: TrainSettings, skipped: tuple[int, ...] = ()) -> tuple[dict[str, Tensor], float]:
    """Return weights and mean objective of one process that averages both ranks' gradients itself."""
    steps = settings.optim.steps
    torch.set_num_threads(1)
    adapted = adapt(base_model(settings.model, []), settings.adapter, total_steps=steps)
    optimiser = build_optimiser(adapted.trainable, settings.optim)
    scenes = open_sources(settings.data).train
    loaders = [StepLoader(Sampling(scenes, settings.data, 0, rank, 2), range(steps)) for rank in range(2)]
    objectives = []
    for k, batches in enumerate(zip(*loaders, strict=True)):
        if k in skipped:
            continue
        optimiser.zero_grad()
        assert batches[0].names != batches[1].names or batches[0].views != batches[1].views
        for raw in batches:
            target = prepare(raw, "cpu", settings.data)
            objective = losses(adapted.model(target.images), target, settings.loss).objective
            (objective / 2).backward()
            objectives.append(objective.item())
        set_learning_rate(optimiser, learning_rate(k / (steps - 1), settings.optim))
        clip_by_group(adapted.groups, settings.optim.clip)
        step_unless(optimiser, torch.tensor(0.0))
    return {name: p.detach() for name, p in adapted.trainable.items()}, sum(objectives) / len(objectives)
