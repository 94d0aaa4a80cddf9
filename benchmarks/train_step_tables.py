"""The tables of train_step.py, in Markdown, and the memory that a step needs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from train_step_run import PARTS, Variant, tuning_of

from megasynth_attr.core.pages.words import markdown_table
from megasynth_train.cost.layers import depth_layers, token_count
from megasynth_train.cost.step import StepShape, Tuning, expected_s, mean_over_views, step_cost
from megasynth_train.training.settings import DataSettings
from megasynth_train.vggt.config import VGGTConfig, named_config

TFLOPS = 790.0  # highest rate of dense bf16 products on an H200
GOAL_S = 0.8  # mean over 4 … 16 views on one H200
MEAN_VIEWS = tuple(range(4, 17))
GIB = 2**30

# The constants of memory are those of a reference block, so the estimate is a lower bound. Ours held about 3.5 kB per
# token and block more when it was counted, uncompiled, with saved-tensor hooks (LoRA-16: 47.5 instead of 44.0 kB).
# Bytes saved for backward per token, block and channel of the width: measured on one aggregator block under bf16
# autocast with an fp32 residual stream, at width 1024 and mlp_ratio 4 (44.0, 29.8, 31.6 and 48.0 kB per token).
SAVED_BYTES = {"lora": 44.0e3 / 1024, "full": 48.0e3 / 1024, "all": 48.0e3 / 1024, "heads": 0.0}
SAVED_BYTES_BASIS = (29.8e3 / 1024, 31.6e3 / 1024)  # at D = 32 and D = 256, linear in D between and beyond
DEPTH_HEAD_BYTES = 0.65 * GIB / (518 * 518 * 256)  # per pixel and DPT feature: fp32 with LoRA
RESIDUAL_BYTES = 4  # fp32 residual stream: all that block checkpointing stores


@dataclass(frozen=True)
class Row:
    """One line of the table; ``seconds`` by part and for the step, empty if there is a ``problem``."""

    variant: Variant
    shape: StepShape
    tflop: float
    estimated_gib: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_gib: float | None = None
    waits: int | None = None  # operations of a step that made the host wait for the device
    classes_ms: Mapping[str, float] = field(default_factory=dict)  # kernel time of one step; empty: not profiled
    problem: str = ""

    @property
    def bound_s(self) -> float:
        return self.tflop / TFLOPS


def table(rows: Sequence[Row], on_gpu: bool) -> str:
    """Return one line per row. The bound is that of one H200, so ratios to it are left out on another device."""
    head = [
        "adapter",
        "scenes × views",
        *(f"{part} s" for part in PARTS),
        "**step s**",
        "first step s",
        "images/s",
        "TFLOP",
    ]
    head += ["TFLOP/s", "peak GiB", "estimated GiB", "waits", "bound s", "× bound"]
    return markdown_table([head, *(_cells(row, on_gpu) for row in rows)], aligned=False)


def _cells(row: Row, on_gpu: bool) -> list[str]:
    cells = [str(row.variant), f"{row.shape.scenes} × {row.shape.views}"]
    step_s = row.seconds.get("step", float("nan"))
    if row.problem:
        cells += [row.problem, *[""] * len(PARTS), "", "", f"{row.tflop:.4g}", "", ""]
    else:
        cells += [f"{row.seconds[part]:.3f}" for part in PARTS]
        cells += [
            f"**{step_s:.3f}**",
            f"{row.seconds['first']:.1f}",
            f"{row.shape.images / step_s:.1f}",
            f"{row.tflop:.4g}",
        ]
        cells += [f"{row.tflop / step_s:.3g}", "–" if row.peak_gib is None else f"{row.peak_gib:.1f}"]
    cells += [f"{row.estimated_gib:.3g}", "–" if row.waits is None else str(row.waits)]
    if not on_gpu:
        return [*cells, "–", "–"]
    return [*cells, f"{row.bound_s:.3f}", "" if row.problem else f"{step_s / row.bound_s:.2f}"]


def class_table(rows: Sequence[Row]) -> str:
    """Return one line per profiled row, with the bound beside the kernels' time; empty without any."""
    profiled = [row for row in rows if row.classes_ms]
    if not profiled:
        return ""
    head = ["variant", "scenes × views", *profiled[0].classes_ms, "bound ms"]
    lines = [
        [str(row.variant), f"{row.shape.scenes} × {row.shape.views}", *(f"{ms:.0f}" for ms in row.classes_ms.values()),
         f"{row.bound_s * 1e3:.0f}"]
        for row in profiled
    ]  # fmt: skip
    return markdown_table([head, *lines], aligned=False)


def mean_lines(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for every variant that was timed with all numbers of views (4 … 16)."""
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        timed = [row for row in rows if row.variant == variant and row.seconds]
        mine = {row.shape.views: row for row in timed if row.shape.scenes == 32 // row.shape.views}
        if set(mine) >= set(MEAN_VIEWS):
            step_s = statistics.mean(mine[n].seconds["step"] for n in MEAN_VIEWS)
            bound = statistics.mean(mine[n].bound_s for n in MEAN_VIEWS)
            lines.append(
                f"* {variant}: mean over 4 … 16 views **{step_s:.3f} s** per step, bound {bound:.3f} s, "
                f"ratio {step_s / bound:.2f}, goal {GOAL_S} s"
            )
    return lines


def analytic_table() -> str:
    """Return the table of bounds and estimates for one step of vggt-1b at 518 px; nothing in it is measured."""
    config = named_config("vggt-1b", point_head=False)
    head = ["adapter", "scenes × views", "TFLOP", "recomputed", "bound at 790 / 700 TFLOP/s"]
    lines = [[*head, "estimate / recomputed", "memory / recomputed"]]

    def add(adapter: str, shapes: str, plain: float, again: float, estimate: str, memory: str) -> None:
        bounds = f"{plain / 790e12:.2f} / {plain / 700e12:.2f} s"
        lines.append([adapter, shapes, f"{plain / 1e12:.0f}", f"{again / 1e12:.0f}", bounds, estimate, memory])

    for adapter in ("lora-16", "basis-32", "basis-256"):
        tuning = tuning_of(adapter)
        for scenes, views in ((8, 4), (4, 8), (2, 16)):
            shape = StepShape(scenes, views)
            plain, again = (step_cost(config, shape, tuning, recompute=r) for r in (False, True))
            memory = [memory_bytes(config, shape, tuning, recompute=r, frozen_bf16=True) for r in (False, True)]
            add(
                adapter, f"{scenes} × {views}", plain.total, again.total,
                f"{expected_s(plain):.2f} / {expected_s(again):.2f} s",
                " / ".join(f"{sum(parts.values()) / GIB:.0f}" for parts in memory) + " GiB",
            )  # fmt: skip
        costs = (
            lambda s, t=tuning: step_cost(config, s, t).total,
            lambda s, t=tuning: step_cost(config, s, t, recompute=True).total,
            lambda s, t=tuning: expected_s(step_cost(config, s, t)),
        )
        *means, estimate = (mean_over_views(cost, DataSettings(), (518, 518)) for cost in costs)
        add(adapter, "mean of 4 … 16 views", *means, f"{estimate:.2f} s", "")
    return markdown_table(lines, aligned=False)


def memory_bytes(
    config: VGGTConfig, shape: StepShape, tuning: Tuning, *, recompute: bool = False, frozen_bf16: bool = False
) -> dict[str, float]:
    """Return an estimate of the bytes held at the end of the forward pass by part, eager bf16 autocast on CUDA:
    blocks (saved activations), depth_head, weights, bf16_copies, taps. Caching and fragmentation come on top.

    frozen_bf16: frozen linears of encoder and aggregator are stored in bf16, so they need no copies.
    """
    tokens = shape.images * token_count(config, shape, config.register_count)
    blocks = 2 * config.depth * tokens * config.width
    saved = _saved_bytes(tuning) if tuning.reaches_aggregator else 0.0
    linears = 12 * config.width**2  # of a block; mlp_ratio 4, as for the measured constants
    encoder, aggregator = config.encoder_depth * linears, 2 * config.depth * linears
    half = 2 * (encoder + aggregator) if frozen_bf16 and tuning.adapted else 0
    pixels = shape.images * shape.height_px * shape.width_px
    return {
        "blocks": blocks * (min(saved, RESIDUAL_BYTES) if recompute else saved),
        "depth_head": DEPTH_HEAD_BYTES * pixels * config.dpt_features if config.depth_head else 0.0,
        "weights": 4 * _parameters(config) - half,
        "bf16_copies": 0.0 if half else 2.0 * aggregator * tuning.reaches_aggregator,
        "taps": 4.0 * len(config.taps) * 2 * config.width * tokens,
    }


def _saved_bytes(tuning: Tuning) -> float:
    if tuning.kind != "basis":
        return SAVED_BYTES[tuning.kind]
    low, high = SAVED_BYTES_BASIS
    return low + (high - low) * (tuning.rank - 32) / (256 - 32)


def _parameters(config: VGGTConfig) -> float:
    """Return the number of parameters in matrices; vectors (norms, biases, tokens) are below 0.1 %."""
    shape = StepShape(1, 1, config.image_size_px, config.image_size_px)
    layers = depth_layers(config, shape, Tuning("full")) if config.depth_head else []
    heads: float = sum(layer.fan_in * layer.out for layer in layers)
    wide = 2 * config.width
    if config.camera_head:
        heads += config.camera_depth * (4 + 2 * config.mlp_ratio) * wide**2 + 3 * wide**2 + wide * config.width
    return (config.encoder_depth + 2 * config.depth) * 12 * config.width**2 + heads
