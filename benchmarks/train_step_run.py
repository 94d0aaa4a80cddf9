"""One training step on random pictures, as in the training loop, with timing of its parts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.temporary import replace_atomically
from megasynth_train.adapters.adapted import Adapted
from megasynth_train.adapters.inject import base_of
from megasynth_train.adapters.inject import prepare as prepare_adapters
from megasynth_train.adapters.lean import make_lean
from megasynth_train.adapters.targets import find_targets
from megasynth_train.cost.step import StepShape, Tuning
from megasynth_train.data.batch import RawBatch
from megasynth_train.data.colour import draw_jitter
from megasynth_train.data.device import prepare
from megasynth_train.subspace.basis import Basis, haar_frame
from megasynth_train.subspace.join import float32_layer
from megasynth_train.training.arithmetic import choose_arithmetic
from megasynth_train.training.losses import losses
from megasynth_train.training.optimiser import build_optimiser, clip_by_group, set_learning_rate, step_unless
from megasynth_train.training.settings import (
    AdapterSettings,
    DataSettings,
    LossSettings,
    ModelSettings,
    OptimSettings,
)
from megasynth_train.vggt.config import EVERYTHING, VGGTConfig
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import VGGT
from megasynth_train.vggt.precision import autocast

PARTS = ("prepare", "forward", "backward", "clip, AdamW")
Run = Callable[[], Iterator[None]]  # yields before each of ``PARTS``


def tuning_of(adapter: str) -> Tuning:
    """Return what ``adapter`` trains; ConfigError for an unknown one."""
    if adapter == "full":
        return Tuning("full")
    kind, _, number = adapter.partition("-")
    if kind not in ("lora", "basis") or not number.isdigit() or int(number) < 1:
        raise ConfigError(f"adapters={adapter}: write lora-R, basis-D (e.g. basis-32) or full")
    rank = int(number)
    return Tuning("basis", rank, 16) if kind == "basis" else Tuning("lora", rank, rank)


@dataclass(frozen=True)
class Variant:
    """One model variant, timed with several shapes."""

    kept: str
    compiled: bool
    attention: str
    depth_head: str
    frozen: str
    adapter: str

    @property
    def tuning(self) -> Tuning:
        return tuning_of(self.adapter)

    def __str__(self) -> str:
        extras = [f"blocks keep {self.kept}"] * (self.kept != EVERYTHING) + ["compiled"] * self.compiled
        extras += [self.attention, f"head {self.depth_head}"]
        extras += ["fp8"] * (self.frozen == "fp8")
        return ", ".join([self.adapter, *extras])

    @property
    def settings(self) -> ModelSettings:
        """Return the settings of the section ``model`` that make a run this variant."""
        return ModelSettings(
            compile=self.compiled, attention=self.attention, depth_head=self.depth_head, frozen=self.frozen
        ).keeping(self.kept)  # fmt: skip


@dataclass(frozen=True)
class Trainee:
    """A model ready for training."""

    model: VGGT
    groups: Mapping[str, list[nn.Parameter]]
    optimiser: torch.optim.AdamW


@lru_cache(maxsize=1)  # the shapes of one variant share it
def build(config: VGGTConfig, variant: Variant, device: torch.device, seed: int) -> Trainee:
    """Return a model with random weights on ``device``, adapted as in training; a basis is random as well."""
    model, tuning = random_model(config, seed, device), variant.tuning
    basis = random_directions(model, tuning.rank, seed) if tuning.kind == "basis" else None
    settings = AdapterSettings(mode="subspace" if basis else tuning.kind, rank=tuning.rank)
    base, steps = base_of(model), OptimSettings().steps
    adapted = Adapted(model, settings, base, seed, steps, prepare_adapters(model, settings, steps, seed, basis))
    arithmetic = choose_arithmetic(variant.settings, config, device)
    arithmetic.apply(model)
    if arithmetic.precision == "bf16":
        make_lean(adapted)
    model.to(device)
    optimiser = build_optimiser(adapted.trainable, OptimSettings())
    set_learning_rate(optimiser, 1e-5)
    return Trainee(model.train(), adapted.groups, optimiser)


def random_directions(model: VGGT, dimension: int, seed: int) -> Basis:
    """Return a basis of so many random columns for every linear of the aggregator."""
    rng, layers = np.random.default_rng(seed), {}
    for name in find_targets(model).aggregator:
        left, right = (haar_frame(size, dimension, rng) for size in model.get_submodule(name).weight.shape)
        layers[name] = float32_layer(left, right, np.ones(dimension))
    return Basis(layers, {name: {"random": (0, dimension)} for name in layers}, ("random",), {}, {})


def random_batch(shape: StepShape, seed: int, pin: bool) -> RawBatch:
    """Return a step's data as the loader gives it: random pictures, a window of 80 … 100 % of each, one jitter per
    view, cameras without rotation and with random translations."""
    generator = np.random.default_rng(seed)
    count, size = (shape.scenes, shape.views), (shape.height_px, shape.width_px)
    images = generator.integers(0, 256, (*count, *size, 3), dtype=np.uint8)
    depth = generator.uniform(1, 3, (*count, *size)).astype(np.float32) * (generator.random((*count, *size)) < 0.7)
    sides = (generator.uniform(0.8, 1, count) * min(size) / 2).astype(np.int64) * 2
    starts = [(length - sides) // 2 for length in size]
    intrinsics = np.broadcast_to(
        [[size[1], 0, size[1] / 2], [0, size[1], size[0] / 2], [0, 0, 1.0]], (*count, 3, 3)
    ).copy()
    poses = np.broadcast_to(np.eye(4), (*count, 4, 4)).copy()
    poses[..., :3, 3] = generator.normal((0, 0, 2), 0.2, (*count, 3))
    batch = RawBatch(
        step=0,
        image_size_hw=size,
        images_u8=tuple(torch.from_numpy(images)),
        depth_z=tuple(torch.from_numpy(depth.astype(np.float32))),
        intrinsics=torch.from_numpy(intrinsics),
        camera_from_world=torch.from_numpy(poses),
        windows=np.stack([*starts, sides, sides], axis=-1),
        jitter=draw_jitter(generator, *count, DataSettings(shared_jitter=0.0)),
        names=("random",) * shape.scenes,
        views=(tuple(range(shape.views)),) * shape.scenes,
        skipped=(),
        reads=shape.scenes,
    )
    return batch.pin_memory() if pin else batch


def step(trainee: Trainee, raw: RawBatch, device: torch.device, precision: str) -> Generator[None, None, torch.Tensor]:
    """Do one training step as in loop.py; yields before each of ``PARTS``, and returns the objective."""
    yield
    trainee.optimiser.zero_grad(set_to_none=True)
    target = prepare(raw, device, DataSettings())
    yield
    with autocast(device, precision):
        prediction = trainee.model(target.images)
    objective = losses(prediction, target, LossSettings()).objective
    yield
    objective.backward()
    yield
    norms = clip_by_group(trainee.groups, OptimSettings().clip)
    finite = torch.isfinite(torch.stack([objective.detach(), *norms.values()])).all()
    step_unless(trainee.optimiser, (~finite).to(torch.float32))
    return objective.detach()


def timed(run: Run, device: torch.device, warmup: int, steps: int) -> dict[str, float]:
    """Return the median seconds of every part and, as ``step``, of all parts together; ``first``: of the first step."""
    began = time.perf_counter()
    for number in range(warmup):
        list(run())
        if number == 0:
            if device.type == "cuda":
                torch.cuda.synchronize()
            first = time.perf_counter() - began
    marks = [_mark(device) for _ in range(steps) for _ in run()] + [_mark(device)]
    if device.type == "cuda":
        torch.cuda.synchronize()
        seconds = [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]
    else:
        seconds = [b - a for a, b in pairwise(marks)]
    every = np.array(seconds).reshape(steps, len(PARTS))
    medians = dict(zip(PARTS, np.median(every, axis=0).tolist(), strict=True))
    return medians | {"step": float(np.median(every.sum(axis=1))), "first": first}


def _mark(device: torch.device) -> Any:
    """Return the current time: an event on the GPU, or the host's clock."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def waits_of(run: Run, device: torch.device) -> int | None:
    """Return how many operations of a step make the host wait for the device; None without a GPU."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            list(run())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    for place in sorted(set(places)):
        print(f"  the host waits for the device at {place}", flush=True)
    return len(places)


def profile(run: Run, path: Path, device: torch.device) -> dict[str, float]:
    """Write the operations of one step into ``path``, the slowest first; return its milliseconds by class of kernel.

    ``idle`` is what the device waited between its kernels. Empty without a GPU.
    """
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        list(run())
        if device.type == "cuda":
            torch.cuda.synchronize()
    order = f"self_{device.type}_time_total"
    text = profile.key_averages().table(sort_by=order, row_limit=60, max_name_column_width=90)
    kernels = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    classes, gaps, busy_until = dict.fromkeys(CLASSES, 0.0), [], float("nan")
    for start, end, name in kernels:
        classes[class_of(name)] += (end - start) / 1e3
        if start > busy_until:
            gaps.append((start - busy_until, name))
        busy_until = end if busy_until != busy_until else max(end, busy_until)
    lines = [f"{gap:9.1f} us before {name[:100]}" for gap, name in sorted(gaps, reverse=True)[:40]]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, "\n".join([text, "longest waits of the device", *lines, ""]).encode())
    return classes | {"idle": sum(gap for gap, _ in gaps) / 1e3} if kernels else {}


CLASSES = {  # words in the names of kernels, in this order
    "attention": ("fmha", "flash", "attention", "sdpa", "cudnn_generated"),
    "convolution": ("conv", "dgrad", "wgrad", "fprop", "im2col", "nchwToNhwc", "nhwcToNchw"),
    "resize": ("upsample", "interpolate"),
    "GEMM": ("gemm", "nvjet", "cutlass", "xmma", "splitk", "gemv"),
    "fused elementwise": ("triton",),
    "rest": ("",),
}


def class_of(kernel: str) -> str:
    """Return the class in CLASSES of a kernel with this name."""
    lower = kernel.lower()
    return next(name for name, words in CLASSES.items() if any(word.lower() in lower for word in words))
