"""Time of one full training step by part, and how it compares with the arithmetic alone.

    python benchmarks/train_step.py out=runs/step                          # vggt-1b on a GPU, vggt-tiny without one
    python benchmarks/train_step.py out=runs/step shapes=mean adapters=basis-32    # every number of views, 4 … 16
    python benchmarks/train_step.py out=runs/step attention=[cudnn,fa4] profile=true

By default LoRA-16, compiled on a GPU, at 8 × 4, 4 × 8, 2 × 16 and every other number of views, and at 4 × 8 with blocks
that keep less; before that, in a quarter of the time, what train_step_checks.py compares. Every variant is a process of
its own, whose first row says how long the first step waits for the compiler: with an empty cache, then with what the
variants before left in it. All ends with budget_s, at most 8 minutes; what was not reached is in the table. The mean
over 4 … 16 views gives every number of views the same weight, with 32 // n scenes, as finetune draws them; those not
timed are interpolated.

One step: uint8 images and fp32 depth go to the device, are cropped, scaled, jittered and normalised there; forward,
losses, backward; the three groups are clipped; AdamW. Weights and pictures are random, because only the time matters.
``lora-R`` is mode=lora, ``basis-D`` mode=subspace in D random directions (rank-16 updates on the heads).
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby, product, starmap, zip_longest
from pathlib import Path

try:
    import common  # noqa: F401  the checkout's path
    import torch
    import train_step_run as stepping
    from torch._dynamo.utils import counters
    from train_step_tables import MEAN_VIEWS, Row, analytic_table, class_table, mean_lines, table

    from megasynth_attr.core.command.program import Help, parse
    from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, run_main
    from megasynth_attr.core.fields import setting
    from megasynth_attr.core.temporary import replace_atomically
    from megasynth_train.cost.memory import GIB, memory_bytes
    from megasynth_train.cost.step import StepShape, step_cost
    from megasynth_train.training.arithmetic import CACHE
    from megasynth_train.vggt.config import EVERYTHING, KEPT, VGGTConfig, named_config
    from megasynth_train.vggt.precision import resolve_precision, set_backends
except ModuleNotFoundError as missing:
    print(f"EnvironmentProblem: {missing}; the benchmark needs pip install -e '.[train]'", file=sys.stderr)
    sys.exit(4)

HELP = Help(
    usage="python benchmarks/train_step.py [key=value ...]",
    explanation="Times one training step with random weights and pictures and compares it with a bound by arithmetic.",
    examples=(
        "python benchmarks/train_step.py out=runs/step",
        "python benchmarks/train_step.py shapes=mean adapters=[lora-16,basis-32] kept=[everything] budget_s=0",
        "python benchmarks/train_step.py shapes=4x8 adapters=basis-32 kept=[everything] out=runs/step profile=true",
    ),
)


MOST_S = 86_400.0  # without budget_s
LATE = "not run: out of time"


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
        ("8x4", "4x8", "2x16", "mean"),
        "scenes × views of a step; mean: 32 // n scenes of each n from 4 to 16, and their mean",
    )
    adapters: tuple[str, ...] = setting(("lora-16",), "lora-R, basis-D or full")
    kept: tuple[str, ...] = setting(
        (),
        "what blocks keep for the backward pass: everything, attention, nothing; empty: all three, but only "
        "everything at every shape, the others at the second",
    )
    compile: tuple[bool, ...] = setting((), "true: torch.compile of blocks and heads; empty: on a GPU")
    attention: tuple[str, ...] = setting(("auto",), "values of model.attention")
    depth_head: tuple[str, ...] = setting(("auto",), "values of model.depth_head")
    frozen: tuple[str, ...] = setting(("bf16",), "values of model.frozen")
    cudnn_benchmark: bool = setting(False, "let cuDNN try its convolution algorithms for every shape")
    warmup: int = setting(2, "steps before the timed ones", minimum=1)
    steps: int = setting(5, "timed steps; their median is printed", minimum=1)
    budget_s: float = setting(440.0, "seconds for all rows and checks together; 0: no limit", minimum=0)
    separate: bool = setting(True, "a process for every variant, as budget_s needs in the middle of one")
    checks: bool = setting(False, "run train_step_checks.py as well; on by default on a GPU")
    profile: bool = setting(
        False,
        "for the first shape of every variant, write the operations of one step, sorted by time, into out=, and time "
        "by class of kernel",
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
    return list(dict.fromkeys(shapes))


def measure(trainee: stepping.Trainee, row: Row, options: Options, device: torch.device, profiled: bool) -> Row:
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
        if profiled:
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


def wanted(options: Options, config: VGGTConfig, cuda: bool) -> list[Row]:
    """Return every row, not yet measured, in the order in which they are."""
    size_px = options.size_px or config.image_size_px
    shapes, kinds = shapes_of(options, size_px), options.kept or KEPT
    values = (kinds, options.compile or (cuda,), options.attention, options.depth_head, options.frozen)
    found = []
    for variant in starmap(stepping.Variant, product(*values, options.adapters)):
        everywhere = options.kept or variant.kept == EVERYTHING
        for shape in shapes if everywhere else shapes[1:2] or shapes:
            flop = step_cost(config, shape, variant.tuning, kept=variant.kept).total
            memory = memory_bytes(
                config, shape, variant.tuning, kept=variant.kept, frozen_bf16=cuda, compiled=variant.compiled,
                depth_head="bf16" if cuda and variant.depth_head != "fp32" else "fp32",
            )  # fmt: skip
            found.append(Row(variant, shape, flop / 1e12, sum(memory.values()) / GIB))
    return found


def rows(options: Options, words: list[str], ends: float, config: VGGTConfig, device: torch.device) -> Iterator[Row]:
    """Yield every row, measured or with the reason why not; none begins or goes on after ``ends``."""
    for variant, group in groupby(wanted(options, config, device.type == "cuda"), key=lambda row: row.variant):
        of_variant = list(group)
        if variant.tuning.kind == "basis" and variant.tuning.rank > config.width:
            yield from (replace(row, problem=f"D > width {config.width}") for row in of_variant)
        elif options.separate and time.monotonic() < ends:
            yield from in_another_process(of_variant, options, words, ends - time.monotonic())
        else:
            for row in of_variant:
                late = time.monotonic() > ends
                profiled = options.profile and row is of_variant[0]
                yield replace(row, problem=LATE) if late else measured_here(row, options, config, device, profiled)


def measured_here(row: Row, options: Options, config: VGGTConfig, device: torch.device, profiled: bool) -> Row:
    """Return ``row`` with what was measured in this process."""
    try:
        trainee = stepping.build(config, row.variant, device, options.seed)
    except torch.cuda.OutOfMemoryError:
        return replace(row, problem="out of memory (weights)")
    done = measure(trainee, row, options, device, profiled)
    hits, misses = (counters["inductor"][f"fxgraph_cache_{word}"] for word in ("hit", "miss"))
    return replace(done, cached=f"{hits} of {hits + misses}" if row.variant.compiled else "")


def in_another_process(rows: list[Row], options: Options, words: list[str], left_s: float) -> Iterator[Row]:
    """Yield the rows of one variant as a process that measures nothing else found them in ``left_s`` seconds."""
    of = rows[0].variant
    only = [
        f"shapes=[{','.join(f'{row.shape.scenes}x{row.shape.views}' for row in rows)}]", f"adapters={of.adapter}",
        f"kept=[{of.kept}]", f"compile=[{str(of.compiled).lower()}]", f"attention=[{of.attention}]",
        f"depth_head=[{of.depth_head}]", f"frozen=[{of.frozen}]", "separate=false", "checks=false", "budget_s=0",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if not options.profile:  # its files go where they were asked for
            only.append(f"out={folder}")
        record = Path(options.out if options.profile else folder) / "train_step.json"
        record.unlink(missing_ok=True)
        try:
            done = subprocess.run(
                [sys.executable, __file__, *words, *only], timeout=left_s, check=False, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            problem = f"exit code {done.returncode}: {done.stdout.strip()[-200:]}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = LATE
        found = json.loads(record.read_text())["rows"] if record.exists() else []
    for row, values in zip_longest(rows, found):
        measured = values and Row(**{**values, "variant": of, "shape": row.shape})
        yield measured or replace(row, problem=problem)


def checked(options: Options, left_s: float) -> str:
    """Return what train_step_checks.py printed in ``left_s`` seconds."""
    command = [sys.executable, str(Path(__file__).with_name("train_step_checks.py")), f"device={options.device}"]
    command += ["model=vggt-tiny"] * (options.model == "vggt-tiny")
    done = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        return done.communicate(timeout=left_s)[0].strip()
    except subprocess.TimeoutExpired:
        done.kill()
        return done.communicate()[0].strip() + "\n* not finished: out of time"


def check(options: Options) -> None:
    """Raise now for what would otherwise fail after minutes: an unknown adapter or shape, no GPU."""
    for adapter in options.adapters:
        stepping.tuning_of(adapter)
    shapes_of(options, 14)
    for kept in options.kept:
        if kept not in KEPT:
            raise ConfigError(f"kept={kept}: write {', '.join(KEPT)}")
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
    ends = time.monotonic() + (options.budget_s or MOST_S)
    done: list[Row] = []
    checks = options.checks or (cuda and options.separate)
    compared = checked(options, (options.budget_s or MOST_S) / 4) if checks else ""
    print(compared, flush=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault(CACHE, cache)  # empty, and filled by the first row
        for row in rows(options, words, ends, named_config(size, point_head=False), device):
            done.append(row)
            figures = row.problem or f"{row.seconds['step']:.3f} s per step, {row.peak_gib or 0:.1f} GiB"
            print(f"{row.variant}, {row.shape.scenes} × {row.shape.views}: {figures}", flush=True)
            save(options, title, words, done, compared, cuda)
    print(f"\n{report(title, words, done, compared, cuda)}")


def save(options: Options, title: str, words: list[str], done: list[Row], compared: str, cuda: bool) -> None:
    """Write what there is so far, with ``out=``."""
    if not options.out:
        return
    record = {"title": title, "options": asdict(options), "rows": [asdict(row) for row in done]}
    Path(options.out).mkdir(parents=True, exist_ok=True)
    replace_atomically(Path(options.out) / "train_step.json", json.dumps(record, indent=1).encode())
    replace_atomically(Path(options.out) / "train_step.md", report(title, words, done, compared, cuda).encode())


def report(title: str, words: list[str], done: list[Row], compared: str, cuda: bool) -> str:
    """Return the page."""
    command = " ".join(["python benchmarks/train_step.py", *words])
    parts = [f"# Time of one training step\n\n`{command}`\n\n## Measured\n\n{title}.", table(done, cuda)]
    if not cuda:
        parts.append("Measured on a CPU: these times say nothing about a GPU, only that the whole step runs.")
    parts += ["\n".join(mean_lines(done))] if mean_lines(done) else []
    parts += [compared] if compared else []
    parts += ["Milliseconds of one step by class of kernel:", class_table(done)] if class_table(done) else []
    parts.append(
        "## Computed, not measured: vggt-1b, 518 × 518 px, one H200\n\nBound: the arithmetic at the highest rate of "
        "dense products that the card reaches. Estimate: GEMMs at 650, attention at 450 forward and 350 backward, "
        "depth head at 220 TFLOP/s. Memory: with the depth head in fp32."
    )
    return "\n\n".join([*parts, analytic_table()]) + "\n"


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
