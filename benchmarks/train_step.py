"""Time of one full training step by part, and how it compares with the arithmetic alone.

    python benchmarks/train_step.py out=runs/step                          # vggt-1b on a GPU, vggt-tiny without one
    python benchmarks/train_step.py out=runs/step shapes=mean adapters=basis-32    # 4 … 16 views, and their mean
    python benchmarks/train_step.py out=runs/step compile=[true] attention=[cudnn,fa4] profile=true

One step: uint8 images and fp32 depth go to the device, are cropped, scaled, jittered and normalised there; forward,
losses, backward; the three groups are clipped; AdamW. Weights and pictures are random, because only the time matters.
``lora-R`` is mode=lora, ``basis-D`` mode=subspace in D random directions (rank-16 updates on the heads).
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product, starmap
from pathlib import Path

try:
    import common  # noqa: F401  the checkout's path
    import torch
    import train_step_run as stepping
    from train_step_tables import MEAN_VIEWS, Row, analytic_table, class_table, mean_lines, table

    from megasynth_attr.core.command.program import Help, parse
    from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, run_main
    from megasynth_attr.core.fields import setting
    from megasynth_attr.core.temporary import replace_atomically
    from megasynth_train.cost.memory import GIB, memory_bytes
    from megasynth_train.cost.step import StepShape, step_cost
    from megasynth_train.vggt.config import VGGTConfig, named_config
    from megasynth_train.vggt.precision import resolve_precision, set_backends
except ModuleNotFoundError as missing:
    print(f"EnvironmentProblem: {missing}; the benchmark needs pip install -e '.[train]'", file=sys.stderr)
    sys.exit(4)

HELP = Help(
    usage="python benchmarks/train_step.py [key=value ...]",
    explanation="Times one training step with random weights and pictures and compares it with a bound by arithmetic.",
    examples=(
        "python benchmarks/train_step.py out=runs/step",
        "python benchmarks/train_step.py shapes=mean adapters=[lora-16,basis-32] checkpointing=[false] compile=[true]",
        "python benchmarks/train_step.py shapes=4x8 adapters=basis-32 checkpointing=[false] out=runs/step profile=true",
    ),
)


@dataclass(frozen=True)
class Options:
    """What is timed."""

    out: str = setting("", "folder for train_step.json and train_step.md; empty: only print")
    model: str = setting(
        "auto",
        "size of the model; auto: vggt-1b on a GPU, else vggt-tiny",
        options=["auto", "vggt-1b", "vggt-small", "vggt-tiny"],
    )
    device: str = setting("auto", "auto: CUDA if available", options=["auto", "cpu", "cuda"])
    size_px: int = setting(0, "side of the images; 0: the model's own, 518 for vggt-1b", minimum=0)
    shapes: tuple[str, ...] = setting(
        ("8x4", "4x8", "2x16"), "scenes × views of a step; mean: 32 // n scenes of each n from 4 to 16, and their mean"
    )
    adapters: tuple[str, ...] = setting(("lora-16", "basis-32", "basis-256"), "lora-R, basis-D or full")
    checkpointing: tuple[bool, ...] = setting(
        (False, True), "true: blocks are recomputed in the backward pass; both values are timed by default"
    )
    compile: tuple[bool, ...] = setting(
        (), "true: torch.compile of every block; empty: both values on a GPU, false on a CPU"
    )
    attention: tuple[str, ...] = setting(("auto",), "values of model.attention")
    depth_head: tuple[str, ...] = setting(("auto",), "values of model.depth_head")
    frozen: tuple[str, ...] = setting(("bf16",), "values of model.frozen")
    keep: tuple[float, ...] = setting((1.0,), "values of model.keep")
    cudnn_benchmark: bool = setting(False, "let cuDNN try its convolution algorithms for every shape")
    warmup: int = setting(3, "steps before the timed ones", minimum=1)
    steps: int = setting(8, "timed steps; their median is printed", minimum=1)
    budget_s: float = setting(1500.0, "start no new row after this many seconds; 0: no limit", minimum=0)
    profile: bool = setting(
        False, "for every row, write the operations of one step, sorted by time, into out=, and time by class of kernel"
    )
    seed: int = setting(0, "seed of weights and pictures", minimum=0)


def shapes_of(options: Options, size_px: int) -> list[StepShape]:
    """Return the shapes to time; ConfigError for a word that is not a shape."""
    shapes = []
    for word in options.shapes:
        if word == "mean":
            shapes += [StepShape(32 // n, n, size_px, size_px) for n in MEAN_VIEWS]
            continue
        scenes, _, views = word.partition("x")
        if not (scenes.isdigit() and views.isdigit() and int(scenes) and int(views)):
            raise ConfigError(f"shapes={word}: write scenes x views, e.g. 8x4, or mean")
        shapes.append(StepShape(int(scenes), int(views), size_px, size_px))
    return shapes


def measure(trainee: stepping.Trainee, row: Row, options: Options, device: torch.device) -> Row:
    """Return ``row`` with what was measured; out of memory is a result, not an error."""
    cuda, precision = device.type == "cuda", resolve_precision("auto", device)
    raw = stepping.random_batch(row.shape, options.seed, pin=cuda)
    run: stepping.Run = partial(stepping.step, trainee, raw, device, precision)
    try:
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = stepping.timed(run, device, options.warmup, options.steps)
        peak = torch.cuda.max_memory_allocated() / GIB if cuda else None
        waits = stepping.waits_of(run, device)
        classes = {}
        if options.profile:
            name = f"profile_{row.shape.scenes}x{row.shape.views}_{str(row.variant).replace(', ', '_')}.txt"
            classes = stepping.profile(run, Path(options.out) / name.replace(" ", "-"), device)
    except torch.cuda.OutOfMemoryError:
        return replace(row, problem="out of memory")
    finally:
        trainee.optimiser.zero_grad(set_to_none=True)
        release(device)
    return replace(row, seconds=seconds, peak_gib=peak, waits=waits, classes_ms=classes)


def release(device: torch.device) -> None:
    """Free unused memory, so that one row does not fragment the memory of the next."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def rows(options: Options, config: VGGTConfig, device: torch.device) -> Iterator[Row]:
    """Yield every row, measured or with the reason why not, in the order of checkpointing=, compile=, adapters=."""
    began = time.monotonic()
    cuda, size_px = device.type == "cuda", options.size_px or config.image_size_px
    compiled = options.compile or ((False, True) if cuda else (False,))
    values = (options.checkpointing, compiled, options.attention, options.depth_head, options.frozen, options.keep)
    for variant in starmap(stepping.Variant, product(*values, options.adapters)):
        trainee, tuning, recompute = None, variant.tuning, variant.checkpointing
        for shape in shapes_of(options, size_px):
            flop = step_cost(config, shape, tuning, recompute=recompute).total
            depth_head = "bf16" if cuda and variant.depth_head != "fp32" else "fp32"
            memory = memory_bytes(
                config, shape, tuning,
                recompute=recompute, frozen_bf16=cuda, depth_head=depth_head, compiled=variant.compiled,
            )  # fmt: skip
            row = Row(variant, shape, flop / 1e12, sum(memory.values()) / GIB)
            if tuning.kind == "basis" and tuning.rank > config.width:
                yield replace(row, problem=f"D > width {config.width}")
                continue
            if options.budget_s and time.monotonic() - began > options.budget_s:
                yield replace(row, problem="not run: out of time")
                continue
            try:
                trainee = trainee or stepping.build(config, variant, device, options.seed)
            except torch.cuda.OutOfMemoryError:
                yield replace(row, problem="out of memory (weights)")
                continue
            yield measure(trainee, row, options, device)
        del trainee
        torch.compiler.reset()
        release(device)


def check(options: Options) -> None:
    """Raise now for what would otherwise fail after minutes: an unknown adapter or shape, no GPU."""
    for adapter in options.adapters:
        stepping.tuning_of(adapter)
    shapes_of(options, 14)
    if options.profile and not options.out:
        raise ConfigError("profile=true writes files: name a folder with out=")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem("device=cuda, but PyTorch sees no CUDA GPU; check nvidia-smi, or use device=cpu")


def main(words: list[str]) -> None:
    """Measure, print and, with ``out=``, write train_step.md and train_step.json after every row."""
    options = parse(Options, words, HELP)
    check(options)
    cuda = options.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    size = options.model if options.model != "auto" else ("vggt-1b" if cuda else "vggt-tiny")
    set_backends()
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    name = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    where = f"{size} on {name}, PyTorch {torch.__version__}"
    title = f"{where}; median of {options.steps} steps"
    print(title, flush=True)
    done: list[Row] = []
    for row in rows(options, named_config(size, point_head=False), device):
        done.append(row)
        figures = row.problem or f"{row.seconds['step']:.3f} s per step, {row.peak_gib or 0:.1f} GiB"
        print(f"{row.variant}, {row.shape.scenes} × {row.shape.views}: {figures}", flush=True)
        if options.out:
            record = {"title": title, "options": asdict(options), "rows": [asdict(row) for row in done]}
            Path(options.out).mkdir(parents=True, exist_ok=True)
            replace_atomically(Path(options.out) / "train_step.json", json.dumps(record, indent=1).encode())
            replace_atomically(Path(options.out) / "train_step.md", report(title, words, done, cuda).encode())
    print(f"\n{report(title, words, done, cuda)}")


def report(title: str, words: list[str], done: list[Row], cuda: bool) -> str:
    """Return the page."""
    command = " ".join(["python benchmarks/train_step.py", *words])
    parts = [f"# Time of one training step\n\n`{command}`\n\n## Measured\n\n{title}.", table(done, cuda)]
    if not cuda:
        parts.append("Measured on a CPU: these times say nothing about a GPU, only that the whole step runs.")
    parts += ["\n".join(mean_lines(done))] if mean_lines(done) else []
    parts += ["Milliseconds of one step by class of kernel:", class_table(done)] if class_table(done) else []
    parts.append(
        "## Computed, not measured: vggt-1b, 518 × 518 px, one H200\n\nBound: the arithmetic at the highest rate of "
        "dense products that the card reaches. Estimate: GEMMs at 650, attention at 450 forward and 350 backward, "
        "depth head at 220 TFLOP/s. Memory: with the depth head in fp32."
    )
    return "\n\n".join([*parts, analytic_table()]) + "\n"


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
