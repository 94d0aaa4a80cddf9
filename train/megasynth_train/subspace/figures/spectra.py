"""Singular values of the mean update, layer by layer: the paper's Figures 3–34, with what chance gives; and how many of
them stand out of it, by depth and kind of layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.pages import figures as plots
from megasynth_attr.core.pages.words import count_text, short
from megasynth_train.subspace.analysis import Analysis, LayerRow
from megasynth_train.subspace.figures.layout import (
    Drawing,
    Places,
    depth_colours,
    draw_places,
    file_stem,
    layers_of,
    quantiles,
    saved,
)
from megasynth_train.subspace.figures.numbers import AttributeNumbers

_TINY = 1e-6  # of the largest value: smaller ones are rounding errors


def draw_spectra(analysis: Analysis, place: Places, folder: Path) -> dict[str, tuple[Drawing, ...]]:
    """Draw one figure per attribute, attention type and kind; return them by attribute."""
    quantile = float(analysis.settings.get("null_quantile", 0.95))
    drawn = {}
    for number, attribute in enumerate(analysis.attributes):
        rows = layers_of(analysis, attribute)
        figures = []
        for attention, kind in place.rows:
            chosen = [r for r in rows if (r.layer.attention, r.layer.kind) == (attention, kind) and any(r.spectrum)]
            if chosen:
                stem = file_stem("spectrum", str(number), attribute, attention, kind)
                figures.append(_draw(chosen, place.depths, quantile, folder, stem))
        drawn[attribute] = tuple(figures)
    return drawn


def _draw(rows: Sequence[LayerRow], depths: int, quantile: float, folder: Path, stem: str) -> Drawing:
    first = rows[0]
    page = plots.sheet(2, 1, 1.55, left=0.68, top=0.42, bottom=0.92, gap_y=0.5)
    values, ratios = page.axes[:, 0]
    _draw_values(values, rows, depths)
    _draw_ratios(ratios, rows, depths, quantile)
    title = f"{first.layer.attention} {first.layer.kind}"
    values.set_title(f"{first.attribute}: {title}, {first.outputs} × {first.inputs}", loc="left", fontweight="bold")
    _depth_bar(page, depths)
    length, above = max(len(row.spectrum) for row in rows), quantiles(row.significant for row in rows)
    found = f"a median of {short(above.median)} (5–95 %: {short(above.low)} to {short(above.high)}) of {length} values"
    if len(first.norms) < 2:
        found = "none, because a single adapter's rotated update has the same singular values"
    return saved(
        page,
        folder,
        "spectrum",
        stem,
        attribute=first.attribute,
        place=title,
        layers=count_text(len(rows), "layer"),
        percent=100 * quantile,
        largest=short(max(row.spectrum[0] for row in rows)),
        found=found,
    )


def _draw_values(axes: Any, rows: Sequence[LayerRow], depths: int) -> None:
    colours = depth_colours(depths)
    top = max(row.spectrum[0] for row in rows)
    band = _band(rows)
    index = np.arange(1, band.shape[1] + 1)
    axes.fill_between(index, *band, color="#c3c8d0", alpha=0.75, linewidth=0, zorder=1)
    shown = [_curve(np.asarray(row.spectrum), np.asarray(row.spectrum) > _TINY * top) for row in rows]
    shades = [colours.to_rgba(row.layer.depth) for row in rows]
    _draw_curves(axes, shown, shades, linewidth=0.8, alpha=0.45)
    _draw_curves(axes, [c[: r.significant] for c, r in zip(shown, rows, strict=True)], shades, linewidth=1.5)
    _draw_ends(axes, shown, rows, shades)
    plots.log_axis(axes, "y")
    axes.set_ylim(0.8 * min(np.nanmin(curve[:, 1]) for curve in shown), 1.35 * top)
    _index_axis(axes, len(index))
    axes.set_ylabel("singular value")
    axes.annotate(
        "grey: chance", (1, 1), xycoords="axes fraction", xytext=(-3, -3), textcoords="offset points",
        ha="right", va="top", fontsize=8.5, color=plots.MUTED,
    )  # fmt: skip


def _curve(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return points (index from 1, value), length × 2, with NaN where ``there`` is false."""
    return np.stack([np.arange(1, len(values) + 1), np.where(there, values, np.nan)], axis=1)


def _draw_curves(axes: Any, curves: Sequence[np.ndarray], shades: Sequence[Any], **style: float) -> None:
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(curves, colors=shades, zorder=2, **style), autolim=False)


def _draw_ends(axes: Any, curves: Sequence[np.ndarray], rows: Sequence[LayerRow], shades: Sequence[Any]) -> None:
    """Put a dot on the last value above chance of every layer that has one."""
    ends = [i for i, row in enumerate(rows) if row.significant]
    points = np.array([curves[i][rows[i].significant - 1] for i in ends]).reshape(-1, 2)
    axes.scatter(*points.T, s=11, color=[shades[i] for i in ends], linewidths=0, zorder=4)


def _band(rows: Sequence[LayerRow]) -> np.ndarray:
    """Return 2 × indices: from the smallest null median to the largest upper quantile over the layers."""
    length = max(len(row.null_upper) for row in rows)
    low, high = np.full((len(rows), length), np.nan), np.full((len(rows), length), np.nan)
    for number, row in enumerate(rows):
        low[number, : len(row.null_median)] = row.null_median
        high[number, : len(row.null_upper)] = row.null_upper
    return np.stack([np.nanmin(low, axis=0), np.nanmax(high, axis=0)])


def _draw_ratios(axes: Any, rows: Sequence[LayerRow], depths: int, quantile: float) -> None:
    colours = depth_colours(depths)
    length = max(len(row.spectrum) for row in rows)
    shades = [colours.to_rgba(row.layer.depth) for row in rows]
    curves = []
    for row in rows:
        ratio = over_chance(row)
        curves.append(_curve(ratio, np.isfinite(ratio)))
    _draw_curves(axes, curves, shades, linewidth=0.9, alpha=0.8)
    _draw_ends(axes, curves, rows, shades)
    ratios = np.concatenate([curve[:, 1] for curve in curves])
    extremes = [1.0, *ratios[np.isfinite(ratios)]]
    axes.axhline(1, color=plots.CHANCE, linewidth=1.1, linestyle=plots.DASHED, zorder=3)
    low, high = max(min(extremes), 0.2) / 1.12, max(max(extremes), 1.25) * 1.12
    ticks = [0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000]
    if high / low < 4:
        ticks = [0.3, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 2.5, 3]
    plots.log_axis(axes, "y", [t for t in ticks if low <= t <= high])
    axes.set_ylim(low, high)
    _index_axis(axes, length)
    axes.set_ylabel("÷ chance")
    axes.set_title(
        f"divided by the {100 * quantile:g} % quantile of chance in the same layer", loc="left", color=plots.INK
    )


def over_chance(row: LayerRow) -> np.ndarray:
    """Return singular value ÷ its upper null quantile per index; NaN where both are rounding errors."""
    value, upper = np.asarray(row.spectrum, dtype=np.float64), np.asarray(row.null_upper, dtype=np.float64)
    floor = _TINY * max(value.max(initial=0.0), upper.max(initial=0.0))
    return np.divide(value, upper, out=np.full(len(value), np.nan), where=(upper > floor) & (value > floor))


def _index_axis(axes: Any, length: int) -> None:
    plots.log_axis(axes, "x", [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if tick <= length])
    axes.set_xlim(0.93, max(length, 2) * 1.07)


def _depth_bar(page: plots.Sheet, depths: int) -> None:
    page.axes[1, 0].set_xlabel("index of the singular value", labelpad=2)
    ticks = sorted({0, (depths - 1) // 2, depths - 1})
    plots.colour_bar(
        plots.bar_axes(page.figure, 1.4, 2.3, 0.36), depth_colours(depths), "depth of the layer", ticks=ticks
    )


def draw_ranks(
    analysis: Analysis, numbers: Sequence[AttributeNumbers], place: Places, folder: Path
) -> tuple[Drawing, ...]:
    """Draw maps of significant directions, and of dimensions if layers differ in them."""
    numbers = [n for n in numbers if n.layers]
    if not numbers:
        return ()
    page = _maps(analysis, numbers, place, "significant", "directions above chance")
    percent = 100 * (1 - float(analysis.settings.get("null_quantile", 0.95)))
    found = "; ".join(f"{n.name} {short(n.significant.median)}" for n in numbers)
    drawn = [saved(page, folder, "significant", percent=percent, found=found)]
    if any(n.dimension[0] != n.dimension[1] for n in numbers):
        page = _maps(analysis, numbers, place, "dimension", "dimensions of the basis")
        found = "; ".join(f"{n.name} {n.dimension[0]} to {n.dimension[1]}" for n in numbers)
        drawn.append(saved(page, folder, "dimension", found=found))
    return tuple(drawn)


def _maps(
    analysis: Analysis, numbers: Sequence[AttributeNumbers], place: Places, field: str, label: str
) -> plots.Sheet:
    from matplotlib.ticker import MaxNLocator

    largest = max(getattr(row, field) for row in analysis.layers)
    page = plots.sheet(len(numbers), 1, 0.15 * len(place.rows) + 0.05, left=0.98, top=0.3, bottom=1.0, gap_y=0.28)
    for axes, n in zip(page.axes[:, 0], numbers, strict=True):
        grid = place.grid((row.layer, getattr(row, field)) for row in layers_of(analysis, n.name))
        mesh = draw_places(axes, grid, place, "cividis_r", 0, max(1, largest))
        axes.set_title(n.name, loc="left", pad=3)
    for axes in page.axes[:-1, 0]:
        axes.set_xticks([])
    page.axes[-1, 0].set_xlabel("depth of the layer", labelpad=2)
    plots.colour_bar(plots.bar_axes(page.figure, 1.2, 3.2), mesh, label, ticks=MaxNLocator(6, integer=True))
    return page
