"""The pictures of a comparison: every seed's value by method, errors against trained parameters, learning curves.

Families of methods differ in colour and in marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.pages import figures as plots
from megasynth_train.compare.collect import Results
from megasynth_train.compare.manifest import CONTROL
from megasynth_train.compare.methods import MINED, RANDOM
from megasynth_train.compare.statistics import METRICS, Interval, Metric
from megasynth_train.compare.table import Table, named_pair

WIDTH_INCHES = 5.2
LABEL_OFFSETS = (
    (7, 0, "left"),
    (-7, 0, "right"),
    (0, 9, "center"),
    (0, -10, "center"),
    (7, 9, "left"),
    (7, -10, "left"),
)


@dataclass(frozen=True)
class Style:
    """How a family of methods is drawn."""

    family: str
    colour: str
    marker: str


BASE_MODEL, ALL_WEIGHTS = Style("base model", plots.MUTED, "s"), Style("all weights", "#000000", "D")
UNTRAINED = Style("not trained", plots.COLOURS[4], "P")
HEADS_ONLY, LOW_RANK = Style("heads only", plots.COLOURS[5], "v"), Style("low rank", plots.COLOURS[2], "^")
BASES = {MINED: Style("mined basis", plots.COLOURS[0], "o"), RANDOM: Style("random basis", plots.COLOURS[1], "X")}
_LINES = ("-", "--", ":", "-.")
Curves = Mapping[str, Sequence[Sequence[tuple[int, float]]]]  # method → one curve per seed


def style_of(method: Mapping[str, Any]) -> Style:
    """Return the style of a method, given as compare.json defines it."""
    if method["adapter"] is None:
        return UNTRAINED if CONTROL in method else BASE_MODEL
    if method["basis"]:
        return BASES[method["basis"]]
    return {"full": ALL_WEIGHTS, "heads": HEADS_ONLY}.get(method["adapter"]["mode"], LOW_RANK)


@plots.figure_style()
def save_dots(path: Path, results: Results, table: Table, styles: Mapping[str, Style]) -> None:
    """Write the picture of all five metrics: one row per method, a dot per seed, a bar at the mean."""
    methods = [row.method for row in table.rows]
    row_inches = 0.2
    height = len(METRICS) * (len(methods) * row_inches + 0.62) + 0.1
    figure = plots.new_figure(WIDTH_INCHES, height, layout="constrained")
    for metric, plot in zip(METRICS, figure.subplots(len(METRICS), 1), strict=True):
        for y, method in enumerate(methods):
            values = list(results.values(method, metric.key).values())
            style = styles[method]
            plot.plot(values, [y] * len(values), style.marker, color=style.colour, ms=4.5, alpha=0.75, mew=0)
            if values:
                plot.plot([np.mean(values)] * 2, [y - 0.38, y + 0.38], color=style.colour, lw=2)
        plot.margins(x=0.06)
        _name_rows(plot, methods, f"{metric.heading}   {'higher' if metric.higher_is_better else 'lower'} is better")
    plots.save_png(figure, path)


@plots.figure_style()
def save_intervals(path: Path, found: Sequence[Interval], metrics: Sequence[Metric]) -> None:
    """Write the picture of differences over seeds and scenes: a panel per metric, a row per difference."""
    one_reference = len({one.reference for one in found}) == 1
    names = {one: one.method if one_reference else named_pair(one) for one in found}
    rows = list(dict.fromkeys(names.values()))
    figure = plots.new_figure(WIDTH_INCHES, len(metrics) * (len(rows) * 0.2 + 0.62) + 0.1, layout="constrained")
    for metric, plot in zip(metrics, figure.subplots(len(metrics), 1, squeeze=False)[:, 0], strict=True):
        for one in (one for one in found if one.metric == metric.key):
            y = rows.index(names[one])
            if one.corrected_low is not None:
                plot.plot([one.corrected_low, one.corrected_high], [y, y], color=plots.COLOURS[0], lw=1)
                plot.plot([one.low, one.high], [y, y], color=plots.COLOURS[0], lw=3, solid_capstyle="butt")
            plot.plot(one.mean, y, "o", color=plots.INK, ms=4)
        plot.axvline(0, color=plots.CHANCE, lw=1, ls=plots.DASHED)
        _name_rows(plot, rows, f"{metric.heading}   better to the {'right' if metric.higher_is_better else 'left'}")
    plots.save_png(figure, path)


def _name_rows(plot: Any, names: Sequence[str], title: str) -> None:
    plot.set_yticks(range(len(names)), names)
    plot.set_ylim(len(names) - 0.4, -0.6)
    plot.set_title(title, loc="left")
    plot.grid(False, axis="y")


@plots.figure_style()
def save_against_parameters(path: Path, table: Table, styles: Mapping[str, Style], metric: Metric) -> None:
    """Write a metric's mean ± standard deviation against trained parameters; the base model as a line."""
    figure = plots.new_figure(WIDTH_INCHES, 3.9, layout="constrained")
    plot = figure.subplots()
    points = []
    for row in table.rows:
        value, style = row.metrics[metric.key], styles[row.method]
        if (mean := value.mean) is None or style is UNTRAINED:
            continue
        if not row.total:
            plot.axhline(mean, color=style.colour, lw=1.2, ls="--", label=f"{style.family} ({row.method})")
            continue
        plot.errorbar(
            row.total, mean, yerr=value.std or 0, fmt=style.marker, color=style.colour, ms=6.5, capsize=3, lw=1.2,
            label=style.family,
        )  # fmt: skip
        points.append((row.total, mean, row.method, style.colour))
    if points:
        _count_axis(plot, [total for total, *_ in points])
        plot.margins(x=0.22, y=0.14)
        plot.set_xlabel("trained parameters")
    plot.set_ylabel(metric.heading)
    _legend(plot)
    _label_points(figure, plot, points)
    plots.save_png(figure, path)


def _count_axis(plot: Any, totals: Sequence[int]) -> None:
    """Make the x axis logarithmic, or linear within a decade, with few ticks, written 240 k or 16.3 M."""
    from matplotlib.ticker import EngFormatter, NullFormatter

    if max(totals) >= 10 * min(totals):
        plot.set_xscale("log")
        plot.xaxis.set_minor_formatter(NullFormatter())
    else:
        plots.few_ticks(plot.xaxis, 4)
    plot.xaxis.set_major_formatter(EngFormatter())


@plots.figure_style()
def save_curves(path: Path, curves: Curves, styles: Mapping[str, Style]) -> None:
    """Write the training objective by step: the mean over seeds, and their range as a band."""
    rows = -(-len(curves) // 3)
    figure = plots.new_figure(WIDTH_INCHES, 3.4 + 0.17 * rows, layout="constrained")
    plot = figure.subplots()
    used: dict[str, int] = {}
    for method, seeds in curves.items():
        style = styles[method]
        line = _LINES[used.get(style.family, 0) % len(_LINES)]
        used[style.family] = used.get(style.family, 0) + 1
        common = sorted(set.intersection(*(set(dict(curve)) for curve in seeds)))
        values = np.array([[dict(curve)[step] for step in common] for curve in seeds])
        if len(seeds) > 1 and common:
            plot.fill_between(common, values.min(axis=0), values.max(axis=0), color=style.colour, alpha=0.13, lw=0)
        marker = "o" if len(common) == 1 else None
        plot.plot(common, values.mean(axis=0), line, color=style.colour, lw=1.5, label=method, marker=marker, ms=4)
    plot.set_xlabel("step")
    plot.set_ylabel("objective")
    _legend(plot)
    plots.save_png(figure, path)


def _legend(plot: Any) -> None:
    handles, labels = plot.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        plot.legend(
            unique.values(), unique.keys(), ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0),
            columnspacing=1.2, handlelength=2.2,
        )  # fmt: skip


def _label_points(figure: Any, plot: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each point's method beside it, where it covers the fewest labels and points."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # positions are known only after the layout
    places = [plot.transData.transform((x, y)) for x, y, *_ in points]
    taken = [Bbox.from_extents(*(place - 6), *(place + 6)) for place in places]
    frame = plot.get_window_extent()
    for x, y, method, colour in points:
        tried = []
        for dx, dy, side in LABEL_OFFSETS:
            label = plot.annotate(
                method, (x, y), (dx, dy), textcoords="offset points", ha=side, va="center", fontsize=7.5,
                color=colour, annotation_clip=False,
                bbox={"facecolor": plots.PAPER, "edgecolor": "none", "pad": 0.4},
            )  # fmt: skip
            box = label.get_window_extent(figure.canvas.get_renderer())
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            tried.append((box.count_overlaps(taken) + 3 * (not inside), label, box))
        best = min(tried, key=lambda one: one[0])  # the first of several that are equally good
        for one in tried:
            if one is not best:
                one[1].remove()
        taken.append(best[2])
