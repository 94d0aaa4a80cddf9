"""Figures of the adapters: how similar they are, how robust mining weighs them, how far they moved from the start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.pages import figures as plots
from megasynth_attr.core.pages.words import short
from megasynth_train.subspace.analysis import Analysis, DriftRow
from megasynth_train.subspace.figures.layout import (
    Drawing,
    draw_groups,
    heat_map,
    layers_of,
    name_legend,
    quantiles,
    saved,
)
from megasynth_train.subspace.figures.numbers import AttributeNumbers

_PRINTED = 12  # with more adapters a matrix shows no numbers


def draw_coherence(analysis: Analysis, numbers: Sequence[AttributeNumbers], folder: Path) -> tuple[Drawing, ...]:
    """Draw one matrix of cosines per attribute, the mean over its layers; nothing if no attribute has two adapters."""
    chosen = [n for n in numbers if n.adapters > 1 and n.layers]
    if not chosen:
        return ()
    columns = min(2, len(chosen))
    lines = math.ceil(len(chosen) / columns)
    size = (4.8 - 0.4 - 0.12 - (columns - 1) * 0.45) / columns if columns > 1 else 2.6
    page = plots.sheet(
        lines,
        columns,
        size,
        left=0.4,
        right=0.12 if columns > 1 else 1.8,
        top=0.36,
        bottom=1.02,
        gap_x=0.45,
        gap_y=0.55,
    )
    # One colour scale for all, without the trivial ones on the diagonal
    matrices = {n.name: np.mean([row.coherence for row in layers_of(analysis, n.name)], axis=0) for n in chosen}
    largest = max(float(np.abs(m[~np.eye(len(m), dtype=bool)]).max()) for m in matrices.values())
    limit = max(0.1, math.ceil(largest * 10) / 10)
    for axes, n in plots.panels_for(page, chosen):
        _draw_matrix(axes, matrices[n.name], limit)
        axes.set_title(n.name, loc="left", fontweight="bold")
    for axes in page.axes[-1]:
        axes.set_xlabel("adapter", labelpad=2)
    mappable = plots.scale(-limit, limit, "RdBu")
    plots.colour_bar(
        plots.bar_axes(page.figure, 0.9, 3.0, 0.4), mappable, "cosine of two updates, mean over the layers"
    )
    found = "; ".join(f"{n.name} {short(n.coherence.median)}" for n in chosen)
    by_chance = short(max(n.coherence_chance or 0 for n in chosen))
    return (saved(page, folder, "coherence", found=found, by_chance=by_chance),)


def _draw_matrix(axes: Any, matrix: np.ndarray, limit: float) -> None:
    count = len(matrix)
    others = np.where(np.eye(count, dtype=bool), np.nan, matrix)
    heat_map(axes, others, cmap="RdBu", vmin=-limit, vmax=limit, linewidth=0.5)
    if count <= _PRINTED:
        for i, j in np.ndindex(count, count):
            if i != j:
                dark = abs(matrix[i, j]) > 0.6 * limit
                text = f"{matrix[i, j]:.2f}".replace("0.", ".").replace("-", "−")
                axes.text(
                    j + 0.5, i + 0.5, text, ha="center", va="center", color="white" if dark else "#3a404a",
                    fontsize=7.2 if count > 8 else 8.5,
                )  # fmt: skip
    ticks = range(0, count, max(1, math.ceil(count / 10)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([t + 0.5 for t in ticks], [str(t + 1) for t in ticks])
    axes.tick_params(labelsize=8)


def draw_weights(analysis: Analysis, numbers: Sequence[AttributeNumbers], folder: Path) -> tuple[Drawing, ...]:
    """Draw every adapter's weight in the basis relative to equal weights: median and 5–95 % over the layers."""
    chosen = [n for n in numbers if n.adapters > 1 and len(_weights_of(analysis, n.name))]
    if not chosen:
        return ()
    colours = plots.attribute_colours(analysis.attributes)
    columns = min(2, len(chosen))
    page = plots.sheet(math.ceil(len(chosen) / columns), columns, 1.15, left=0.55, gap_y=0.5)
    words, reach = [], [0.9, 1.1]
    for axes, n in plots.panels_for(page, chosen):
        table = _weights_of(analysis, n.name)
        low, middle, high = np.percentile(table * n.adapters, (5, 50, 95), axis=0)
        place = np.arange(1, n.adapters + 1)
        axes.vlines(place, low, high, color=colours[n.name], linewidth=2.2, alpha=0.45)
        axes.plot(place, middle, "o", color=colours[n.name], markersize=4)
        axes.axhline(1, color=plots.CHANCE, linestyle=plots.DASHED, linewidth=1)
        axes.set_title(n.name, loc="left")
        axes.set_xlim(0.4, n.adapters + 0.6)
        axes.locator_params(axis="x", integer=True, nbins=10)
        axes.locator_params(axis="y", nbins=4)
        words.append(f"{n.name} {short(float(middle.min()))} to {short(float(middle.max()))}")
        reach += [float(low.min()), float(high.max())]
    for axes in page.axes.ravel()[: len(chosen)]:
        axes.set_ylim(max(0, min(reach) - 0.08), max(reach) + 0.08)
    for axes in page.axes[-1]:
        axes.set_xlabel("adapter", labelpad=2)
    for axes in page.axes[:, 0]:
        axes.set_ylabel("weight × adapters")
    return (saved(page, folder, "weights", found="; ".join(words)),)


def _weights_of(analysis: Analysis, attribute: str) -> np.ndarray:
    """Return layers × adapters: weights in the basis that is used."""
    return np.array([row.extractors[0].weights for row in layers_of(analysis, attribute) if row.extractors])


def draw_drift(analysis: Analysis, folder: Path) -> tuple[Drawing, ...]:
    """Draw change and largest angle of ``lora_A`` since its start by depth; nothing if no drift was recorded."""
    rows = [row for row in analysis.drift if row.relative_change is not None and row.largest_angle_deg is not None]
    if not rows:
        return ()
    attribute_of = {adapter.name: adapter.attribute for adapter in analysis.adapters}
    colours = plots.attribute_colours(analysis.attributes)
    page = plots.sheet(
        2, 1, 1.25, left=0.62, top=0.36 + plots.legend_room(len(analysis.attributes)), bottom=0.48, gap_y=0.42
    )
    words = []
    for attribute in analysis.attributes:
        own = [row for row in rows if attribute_of.get(row.adapter) == attribute]
        if own:
            for axes, field in zip(page.axes[:, 0], ("relative_change", "largest_angle_deg"), strict=True):
                _draw_by_depth(axes, own, field, colours[attribute], attribute)
            change, angle = (quantiles(getattr(r, f) for r in own) for f in ("relative_change", "largest_angle_deg"))
            words.append(f"{attribute} {short(change.median)} and {short(angle.median)}°")
    upper, lower = page.axes[:, 0]
    upper.set_title("‖A − A₀‖ / ‖A₀‖", loc="left")
    lower.set_title("largest angle between row spaces of A and A₀, degrees", loc="left")
    lower.axhline(90, color=plots.CHANCE, linestyle=plots.DASHED, linewidth=1)
    lower.set_ylim(0, 96)
    lower.set_yticks([0, 30, 60, 90])
    upper.set_ylim(0, None)
    lower.set_xlabel("depth of the layer", labelpad=2)
    for axes in (upper, lower):
        axes.locator_params(axis="x", integer=True)
    plots.top_legend(page.figure, *upper.get_legend_handles_labels())
    return (saved(page, folder, "drift", found="; ".join(words)),)


def _draw_by_depth(axes: Any, rows: Sequence[DriftRow], field: str, colour: str, label: str) -> None:
    depths = sorted({row.layer.depth for row in rows})
    spreads = [quantiles(getattr(row, field) for row in rows if row.layer.depth == depth) for depth in depths]
    low, middle, high = (np.array([getattr(s, name) for s in spreads]) for name in ("low", "median", "high"))
    marker = "o" if len(depths) < 8 else None
    axes.fill_between(depths, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(depths, middle, color=colour, linewidth=1.5, marker=marker, markersize=3.5, label=label)


def draw_energy(analysis: Analysis, numbers: Sequence[AttributeNumbers], folder: Path) -> tuple[Drawing, ...]:
    """Draw the share of its adapters' energy that each basis holds, by extractor, with two chance levels."""
    chosen = [n for n in numbers if n.energy and any(s.count for s in n.energy.values())]
    if not chosen:
        return ()
    known = plots.attribute_colours(analysis.attributes)
    colours = {n.name: known[n.name] for n in chosen}
    extractors = tuple(dict.fromkeys(name for n in chosen for name in n.energy))
    # The height grows with the rows, so that text keeps its size: one group per extractor, attributes by colour
    page = plots.sheet(
        1,
        1,
        0.17 * len(extractors) * (len(chosen) + 1) + 0.1,
        left=0.95,
        top=0.36 + plots.legend_room(len(chosen)),
        bottom=0.48,
    )
    axes = page.axes[0, 0]
    groups = {name: {n.name: n.energy[name] for n in chosen if name in n.energy} for name in extractors}
    draw_groups(axes, groups, colours)
    unrelated = [n.energy_unrelated for n in chosen if n.energy_unrelated is not None]
    random = max((n.energy_chance or 0.0) for n in chosen)
    least = min(unrelated, default=random)
    axes.axvline(random, color=plots.CHANCE, linestyle=":", linewidth=1.2)
    axes.axvline(least, color=plots.CHANCE, linestyle=plots.DASHED, linewidth=1)
    axes.set_xlim(-0.01, 1.01)
    axes.set_xlabel("share of an adapter's energy inside the basis", labelpad=2)
    name_legend(page, colours)
    found = "; ".join(
        f"{n.name}: " + ", ".join(f"{name} {short(share.median)}" for name, share in n.energy.items()) for n in chosen
    )
    layers = " or ".join(dict.fromkeys(n.energy_layers for n in chosen))
    values = {"random": short(random), "unrelated": short(least), "layers": layers}
    return (saved(page, folder, "energy", found=found, **values),)
