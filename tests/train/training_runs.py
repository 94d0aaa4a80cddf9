"""Small real training runs for the tests: a ray-cast dataset, settings for it, and runs in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from megasynth_attr.core.command.program import Help, parse
from megasynth_train.finetune import TrainResult, main, run
from megasynth_train.training.metrics import read_metrics
from megasynth_train.training.processes import run_program
from megasynth_train.training.settings import TrainSettings

FAST = (
    "model=vggt-tiny",
    "data.width_px=28",
    "data.views=[2,2]",
    "data.images_per_step=4",
    "data.validation_share=0.5",
    "lr=1e-3",
    "workers=0",
    "device=cpu",
    "run.threads=1",
    "run.progress=false",
    "run.log_every=4",
    "run.checkpoint_every=3",
    "run.validate_every=5",
    "run.validation_steps=1",
)
NOT_REPRODUCIBLE = ("seconds", "images_per_s")
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([f"megasynth_train.{name}" for name in ("finetune", "cluster", "compare.__main__")])


def write_training_dataset(out: Path) -> Path:
    """Write a dataset of 6 scenes × 4 ray-cast frames of 42 × 42 px and return its folder."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "dataset"))
    import synthetic

    words = ("frames=4", "scene_count=6", "render.width_px=42", "render.height_px=42")
    return Path(synthetic.write_dataset(synthetic.config(*words), out))


def words(data: Path, out: Path, *more: str) -> list[str]:
    """Return the command line of a fast run; ``more`` comes last and wins."""
    given = {word.partition("=")[0]: word for word in (*FAST, f"data={data}", f"out={out}", *more)}
    return list(given.values())


def settings_of(data: Path, out: Path, *more: str) -> TrainSettings:
    return parse(TrainSettings, words(data, out, *more), Help("", ""))


def train_here(data: Path, out: Path, *more: str) -> TrainResult:
    """Run in this process."""
    return run(settings_of(data, out, *more))


def start(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start a process of its own, which has imported everything already and can be killed."""
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    return process


def command_line(
    arguments: list[str], environment: dict[str, str], log: Path, program: Callable[[list[str]], None] = main
) -> None:
    """Be ``python -m megasynth_train.finetune``, or another program, with these arguments; ``log``: what it says."""
    os.environ.update(environment)
    with log.open("a") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    torch.set_num_threads(1)
    sys.exit(run_program(program, arguments))


def together(
    log: Path, arguments: list[str], program: Callable[[list[str]], None] = main
) -> tuple[list[int | None], str]:
    """Run a program as two ranks on the CPU; return their exit codes, and all that they said."""
    processes = [start(command_line, arguments, environment, log, program) for environment in ranks(2)]
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes], log.read_text()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def ranks(world: int) -> list[dict[str, str]]:
    """Return the environment torchrun gives each of ``world`` processes of one machine."""
    common = {
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def final_weights(out: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of the last checkpoint: weights, moments, the method's own."""
    last = sorted((out / "checkpoints").glob("step_*"))[-1]
    return {f"{f.stem}.{name}": t for f in sorted(last.glob("*.safetensors")) for name, t in load_file(f).items()}


def assert_same_result(first: Path, second: Path) -> None:
    """Assert bit-equal weights, optimiser, random state, saved adapter and metrics."""
    left, right = final_weights(first), final_weights(second)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    for file in sorted((first / "adapter").rglob("*.safetensors")):
        one, two = load_file(file), load_file(second / file.relative_to(first))
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one), file
    for split in ("train", "validation"):
        assert comparable(first, split) == comparable(second, split)


def comparable(out: Path, split: str) -> list[dict[str, Any]]:
    """Return the lines of metrics without times."""
    return [{k: v for k, v in line.items() if k not in NOT_REPRODUCIBLE} for line in read_metrics(out, split)]
