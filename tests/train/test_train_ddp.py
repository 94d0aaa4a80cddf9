"""Two processes with gloo on the CPU: gradients are averaged, decisions are common."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import training_runs as runs
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from megasynth_attr.errors import ExitCode
from megasynth_train.adapters import adapt
from megasynth_train.data.device import prepare
from megasynth_train.data.loader import make_loader
from megasynth_train.data.sources import open_sources
from megasynth_train.finetune import base_model
from megasynth_train.loop import Run
from megasynth_train.losses import losses
from megasynth_train.optimiser import build_optimiser, clip_by_group, set_learning_rate, step_unless
from megasynth_train.processes import make_accelerator
from megasynth_train.schedule import learning_rate

STEPS = 5
BAD_GRADIENT, BAD_LOSS = 1, 3  # steps in which rank 1, and it alone, is not finite
WORDS = (f"steps={STEPS}", "run.validate_every=0", "data.images_per_step=2", "optim.warmup=0")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_training_dataset(tmp_path_factory.mktemp("data"))


def train_rank(environment: dict[str, str], data: Path, out: Path) -> None:
    """Be one rank: train, with two steps of rank 1 made bad; write all weights to a file."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    settings = runs.settings_of(data, out, *WORDS)
    accelerator = make_accelerator("cpu")
    adapted = adapt(base_model(settings, []), settings.adapter, total_steps=STEPS)
    run = Run(adapted, open_sources(settings.data), settings, accelerator, out, {})
    bad = accelerator.process_index == 1

    def spoil(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * math.nan if bad and run.position.step == BAD_GRADIENT else output

    def penalty() -> Tensor | None:  # infinite without a gradient: DDP's average does not show it to rank 0
        return torch.tensor(math.inf if bad and run.position.step == BAD_LOSS else 0.0)

    adapted.model.depth_head.register_forward_hook(spoil)
    adapted.penalty = penalty
    for raw in run.batches(0, STEPS, training=True):
        run.step(raw)
    run.reports.read()
    line = run.reports.line()
    numbers = {"skipped": torch.tensor(line["skipped_steps"]), "objective": torch.tensor(line["objective"])}
    weights = {name: p.detach().contiguous() for name, p in adapted.trainable.items()}
    save_file(weights | numbers, out / f"rank{accelerator.process_index}.safetensors")
    accelerator.state.destroy_process_group()


def train_two_ranks(data: Path, out: Path) -> list[dict[str, Tensor]]:
    out.mkdir()
    processes = [runs.start(train_rank, environment, data, out) for environment in runs.ranks(2)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    return [load_file(out / f"rank{rank}.safetensors") for rank in range(2)]


def train_by_hand(data: Path, out: Path) -> tuple[dict[str, Tensor], float]:
    """Return weights and mean objective of one process that averages both ranks' gradients itself."""
    settings = runs.settings_of(data, out, *WORDS)
    torch.set_num_threads(1)
    adapted = adapt(base_model(settings, []), settings.adapter, total_steps=STEPS)
    optimiser = build_optimiser(adapted.trainable, settings.optim)
    loaders = [make_loader(open_sources(settings.data), settings.data, 0, 0, STEPS, rank, 2) for rank in range(2)]
    objectives = []
    for k, batches in enumerate(zip(*loaders, strict=True)):
        if k in (BAD_GRADIENT, BAD_LOSS):
            continue
        optimiser.zero_grad()
        assert batches[0].names != batches[1].names or batches[0].views != batches[1].views
        for raw in batches:
            target = prepare(raw, "cpu", settings.data)
            objective = losses(adapted.model(target.images), target, settings.loss).objective
            (objective / 2).backward()
            objectives.append(objective.item())
        set_learning_rate(optimiser, learning_rate(k / (STEPS - 1), settings.optim))
        clip_by_group(adapted.groups, settings.optim.clip)
        step_unless(optimiser, torch.tensor(0.0))
    return {name: p.detach() for name, p in adapted.trainable.items()}, sum(objectives) / len(objectives)


@pytest.mark.slow
def test_two_ranks_are_one_process_with_averaged_gradients(data: Path, tmp_path: Path) -> None:
    """And where one rank alone is not finite, both skip the step."""
    first, second = train_two_ranks(data, tmp_path / "two")
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert first["skipped"].item() == 2
    weights, objective = train_by_hand(data, tmp_path / "one")
    assert first["objective"].item() == pytest.approx(objective, rel=1e-4)
    for name, expected in weights.items():
        close = torch.isclose(first[name], expected, rtol=1e-3, atol=2e-4)  # see test_train_loop on AdamW and rounding
        assert close.float().mean() > 0.97, name


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_at_the_same_step_and_they_continue(data: Path, tmp_path: Path) -> None:
    words = ("steps=6", "data.images_per_step=2", "run.checkpoint_every=2", "run.validate_every=3")

    def start(out: Path) -> list:
        arguments = runs.words(data, out, *words)
        return [runs.start(runs.command_line, arguments, env, tmp_path / f"log{env['RANK']}") for env in runs.ranks(2)]

    whole = start(tmp_path / "whole")
    [process.join(120) for process in whole]
    assert [process.exitcode for process in whole] == [0, 0], (tmp_path / "log0").read_text()
    out = tmp_path / "cut"
    cut = start(out)
    deadline = time.monotonic() + 60
    while not list(out.glob("checkpoints/step_*")):
        assert time.monotonic() < deadline and all(process.is_alive() for process in cut)
        time.sleep(0.005)
    os.kill(cut[1].pid or 0, signal.SIGTERM)
    [process.join(120) for process in cut]
    assert [process.exitcode for process in cut] == [ExitCode.INTERRUPTED] * 2, (tmp_path / "log1").read_text()
    assert "another process was asked to stop" in (tmp_path / "log0").read_text()
    assert not (out / "done.json").exists()
    again = start(out)
    [process.join(120) for process in again]
    assert [process.exitcode for process in again] == [0, 0]
    runs.assert_same_result(tmp_path / "whole", out)
