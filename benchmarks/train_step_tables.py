"""The tables of train_step.py, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from train_step_run import PARTS, Variant, tuning_of

from megasynth_attr.core.pages.words import listed, markdown_table
from megasynth_train.cost.memory import GIB, memory_bytes
from megasynth_train.cost.step import StepShape, expected_s, mean_over_views, step_cost
from megasynth_train.training.settings import DataSettings
from megasynth_train.vggt.config import named_config

TFLOPS = 790.0  # highest rate of dense bf16 products on an H200
GOAL_S = 0.8  # mean over 4 … 16 views on one H200
MEAN_VIEWS = tuple(range(4, 17))


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
    cached: str = ""  # "n of m" graphs whose code the compiler found in its cache
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
            f"{row.seconds['first']:.1f}" + (f" ({row.cached} graphs cached)" if row.cached else ""),
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
    """Return a sentence for every variant that was timed with at least two numbers of views."""
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        timed = {row.shape.views: row for row in rows if row.variant == variant and row.seconds}
        if len(timed) < 2:
            continue
        step_s = _mean({views: row.seconds["step"] / row.shape.images for views, row in timed.items()})
        bound_s = _mean({views: row.bound_s / row.shape.images for views, row in timed.items()})
        how = "" if set(timed) >= set(MEAN_VIEWS) else f", interpolated from {listed(map(str, sorted(timed)))} views"
        lines.append(
            f"* {variant}: mean over 4 … 16 views **{step_s:.3f} s** per step{how}; bound {bound_s:.3f} s, ratio "
            f"{step_s / bound_s:.2f}, goal {GOAL_S} s"
        )
    return lines


def _mean(per_image: Mapping[int, float]) -> float:
    """Return the mean over finetune's steps of ``per_image``, seconds by number of views, times a step's images.

    Between and beyond the numbers of views given, the seconds of an image follow a straight line, as its arithmetic
    does.
    """
    slope, constant = np.polyfit(list(per_image), list(per_image.values()), 1)

    def seconds(shape: StepShape) -> float:
        return shape.images * per_image.get(shape.views, constant + slope * shape.views)

    return mean_over_views(seconds, DataSettings(), (518, 518))


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
            plain, again = (step_cost(config, shape, tuning, kept=kept) for kept in ("everything", "nothing"))
            memory = [
                memory_bytes(config, shape, tuning, kept=kept, frozen_bf16=True) for kept in ("everything", "nothing")
            ]
            add(
                adapter, f"{scenes} × {views}", plain.total, again.total,
                f"{expected_s(plain):.2f} / {expected_s(again):.2f} s",
                " / ".join(f"{sum(parts.values()) / GIB:.0f}" for parts in memory) + " GiB",
            )  # fmt: skip
        costs = (
            lambda s, t=tuning: step_cost(config, s, t).total,
            lambda s, t=tuning: step_cost(config, s, t, kept="nothing").total,
            lambda s, t=tuning: expected_s(step_cost(config, s, t)),
        )
        *means, estimate = (mean_over_views(cost, DataSettings(), (518, 518)) for cost in costs)
        add(adapter, "mean of 4 … 16 views", *means, f"{estimate:.2f} s", "")
    return markdown_table(lines, aligned=False)
