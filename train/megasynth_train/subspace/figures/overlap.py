"""How close two attributes are: λ distributions (the paper's Figures 35–40), maps over the layers, joint operators; and
whether two halves of one attribute's adapters find the same subspace, and other halves another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.pages import figures as plots
from megasynth_attr.core.pages.words import short
from megasynth_train.subspace.angles import lambdas, operator_cosines
from megasynth_train.subspace.figures.layout import Drawing, Places, draw_places, file_stem, saved
from megasynth_train.subspace.figures.numbers import PairLayer, PairNumbers, SplitNumbers
from megasynth_train.subspace.null_angles import Chance

BINS = 30
MOST_COSINES = 64  # of a joint operator space, beginning with the largest


def draw_lambdas(pairs: Sequence[PairNumbers], place: Places, chance: Chance, folder: Path) -> tuple[Drawing, ...]:
    """Draw one figure per pair: λ of all layers, by kind and side, with λ of random subspaces of the same sizes."""
    drawn = []
    for number, pair in enumerate(pairs):
        kinds = [kind for kind in place.kinds if any(layer.layer.kind == kind for layer in pair.layers)]
        if not kinds:
            continue
        page = plots.sheet(len(kinds), 2, 0.78, left=0.52, top=0.78, bottom=0.5, gap_y=0.42)
        groups = {
            (line, side): _Group([layer for layer in pair.layers if layer.layer.kind == kind], side, chance)
            for line, kind in enumerate(kinds)
            for side in (0, 1)
        }
        low = min(group.lowest for group in groups.values())
        for (line, side), group in groups.items():
            _draw_histogram(page.axes[line, side], group, place.attentions, low)
            title = f"{kinds[line]}, {('outputs', 'inputs')[side]} ({group.sizes_text})"
            page.axes[line, side].set_title(title, loc="left", fontsize=8.5)
        for axes in page.axes[-1]:
            axes.set_xlabel("λ = 1 − cos θ", labelpad=2)
        _legend(page, place.attentions, pair.name)
        drawn.append(_saved(page, folder, "lambda", number, pair))
    return tuple(drawn)


def _saved(page: plots.Sheet, folder: Path, figure: str, number: int, pair: PairNumbers) -> Drawing:
    """Write the figure of one pair; its texts state the medians over the layers."""
    fields = {"outputs": "lambda_out_ratio", "inputs": "lambda_in_ratio", "energy": "energy_ratio"}
    return saved(
        page,
        folder,
        figure,
        file_stem(figure, str(number), pair.first, pair.second),
        pair=pair.name,
        first=pair.first,
        second=pair.second,
        layers=len(pair.layers),
        **{word: short(pair.over_layers(field).median) for word, field in fields.items()},
    )


class _Group:
    """λ of one kind of layer on one side: by attention type, and of random subspaces."""

    def __init__(self, layers: Sequence[PairLayer], side: int, chance: Chance) -> None:
        sizes = [(layer.row.inputs if side else layer.row.outputs, *layer.sizes) for layer in layers]
        self.sizes_text = " or ".join(str(size) for size in sorted({size[0] for size in sizes}))
        angles: dict[str, list[float]] = {}
        for layer in layers:
            of_attention = angles.setdefault(layer.layer.attention, [])
            of_attention += layer.row.angles_in_deg if side else layer.row.angles_out_deg
        self.by_attention = {attention: lambdas(np.radians(found))[0] for attention, found in angles.items()}
        drawn = {size: lambdas(chance.angles(*size))[0].ravel() for size in sorted(set(sizes))}
        self.random = np.concatenate(list(drawn.values()))
        # Sizes are weighted by their number of layers, whatever the number of draws
        self.weights = np.concatenate([np.full(len(v), sizes.count(size) / len(v)) for size, v in drawn.items()])
        self.lowest = float(min(self.random.min(), *(values.min() for values in self.by_attention.values())))


def _draw_histogram(axes: Any, group: _Group, attentions: Sequence[str], low: float) -> None:
    edges = np.linspace(math.floor(low * 20) / 20, 1, BINS + 1)
    by_chance = np.histogram(group.random, edges, weights=group.weights)[0]
    for attention, values in group.by_attention.items():
        colour = plots.COLOURS[attentions.index(attention) % len(plots.COLOURS)]
        share = 100 * np.histogram(values, edges)[0] / len(values)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.22)
        axes.stairs(share, edges, color=colour, linewidth=1.3)
    axes.stairs(
        100 * by_chance / by_chance.sum(), edges, color=plots.CHANCE, linewidth=1.1, linestyle=(0, (3, 1.5)), zorder=5
    )
    axes.set_xlim(edges[0], 1.0)
    axes.set_ylim(0, None)
    axes.locator_params(axis="y", nbins=3)
    axes.locator_params(axis="x", nbins=5)


def _legend(page: plots.Sheet, attentions: Sequence[str], title: str) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=plots.COLOURS[i % len(plots.COLOURS)], label=name) for i, name in enumerate(attentions)
    ]
    handles.append(Line2D([], [], color=plots.CHANCE, linestyle=(0, (3, 1.5)), label="chance"))
    height = page.figure.get_figheight()
    plots.write(page.figure, 0.06, 0.09, title, va="top", fontweight="bold")
    page.figure.legend(
        handles=handles, loc="upper right", bbox_to_anchor=(1, 1 - 0.24 / height), ncols=len(handles),
        handlelength=1.6, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip
    plots.write(page.figure, 0.06, 0.3, "% of all λ per bin", va="top", fontsize=8.5, color=plots.MUTED)


def draw_maps(pairs: Sequence[PairNumbers], place: Places, folder: Path) -> tuple[Drawing, ...]:
    """Draw one figure per pair: λ_min and energy overlap of every layer as ratios to chance, kind by depth."""
    reach = _reach(r for p in pairs for layer in p.layers for r in (layer.lambda_out_ratio, layer.lambda_in_ratio))
    energy_reach = _reach(layer.energy_ratio for p in pairs for layer in p.layers)
    drawn = []
    for number, pair in enumerate(pairs):
        if not pair.layers:
            continue
        panel = 0.15 * len(place.rows) + 0.05
        page = plots.sheet(3, 1, panel, left=0.98, top=0.56, bottom=1.62, gap_y=0.26)
        plots.write(page.figure, 0.06, 0.09, pair.name, va="top", fontweight="bold")
        fields = ("lambda_out_ratio", "lambda_in_ratio", "energy_ratio")
        titles = ("λ min of outputs ÷ chance", "λ min of inputs ÷ chance", "energy overlap ÷ chance")
        meshes = []
        for axes, field, title in zip(page.axes[:, 0], fields, titles, strict=True):
            # Blue is closer than chance everywhere: small λ, large energy
            colours, limit = ("RdBu_r", reach) if field != "energy_ratio" else ("RdBu", energy_reach)
            grid = place.grid((layer.layer, getattr(layer, field)) for layer in pair.layers)
            meshes.append(draw_places(axes, np.log2(np.maximum(grid, 2.0**-limit)), place, colours, -limit, limit))
            axes.set_title(title, loc="left", pad=3)
        for axes in page.axes[:2, 0]:
            axes.set_xticks([])
        page.axes[2, 0].set_xlabel("depth of the layer", labelpad=2)
        _ratio_bar(page, 0.94, meshes[0], reach, "λ min ÷ chance (blue: closer than chance)")
        _ratio_bar(page, 0.38, meshes[2], energy_reach, "energy overlap ÷ chance (blue: more than chance)")
        drawn.append(_saved(page, folder, "map", number, pair))
    return tuple(drawn)


def _reach(ratios: Iterable[float]) -> float:
    """Return the end of a symmetric log₂ colour scale for these ratios: a half, whole octaves, at most 2⁸."""
    largest = float(np.max(np.abs(np.log2(np.maximum(list(ratios), 2.0**-8))), initial=0.0))
    return 0.5 if largest <= 0.5 else float(min(8, math.ceil(largest)))


def _ratio_bar(page: plots.Sheet, bottom: float, mesh: Any, limit: float, label: str) -> None:
    ticks = [-0.5, 0, 0.5] if limit <= 0.5 else np.linspace(-limit, limit, 5 if limit % 2 == 0 else 3)
    bar = plots.colour_bar(plots.bar_axes(page.figure, 1.2, 3.2, bottom), mesh, label, ticks=list(ticks), extend="both")
    bar.set_ticklabels([f"×{2.0**t:.2g}" for t in ticks])


def draw_joint(pairs: Sequence[PairNumbers], chance: Chance, folder: Path) -> tuple[Drawing, ...]:
    """Draw the largest cosines between operators A M Bᵀ of every pair, with chance, in one figure."""
    pairs = [pair for pair in pairs if pair.layers]
    if not pairs:
        return ()
    columns = min(2, len(pairs))
    page = plots.sheet(math.ceil(len(pairs) / columns), columns, 1.15, left=0.55, bottom=0.5, gap_y=0.5)
    measured = [
        np.stack([_largest(np.radians(x.row.angles_out_deg), np.radians(x.row.angles_in_deg)) for x in pair.layers])
        for pair in pairs
    ]
    random = [np.stack([_random_cosines(layer, chance) for layer in pair.layers]) for pair in pairs]
    highest = max(float(np.nanpercentile(table[:, 0], 95)) for table in (*measured, *random))
    for axes, (pair, found, by_chance) in plots.panels_for(page, list(zip(pairs, measured, random, strict=True))):
        _draw_joint(axes, found, by_chance, top=min(1.02, 1.08 * highest))
        axes.set_title(pair.name, loc="left")
    for axes in page.axes[-1]:
        axes.set_xlabel("cosine, largest first", labelpad=2)
    words = "; ".join(
        f"{pair.name}: {short(pair.over_layers('joint').median)} "
        f"(chance {short(pair.over_layers('joint_chance').median)})"
        for pair in pairs
    )
    return (saved(page, folder, "joint_cosines", found=words),)


def _largest(out: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the MOST_COSINES largest joint cosines, padded with NaN."""
    # Of sorted factors the k largest products are among the first k of each
    found = operator_cosines(out[:MOST_COSINES], inner[:MOST_COSINES])[:MOST_COSINES]
    return np.pad(found, (0, MOST_COSINES - len(found)), constant_values=np.nan)


def _random_cosines(layer: PairLayer, chance: Chance) -> np.ndarray:
    """Return the cosines that the median random angles of this layer's sizes give."""
    out, inner = (
        np.median(chance.angles(size, *layer.sizes), axis=0) for size in (layer.row.outputs, layer.row.inputs)
    )
    return _largest(out, inner)


def _draw_joint(axes: Any, measured: np.ndarray, random: np.ndarray, top: float) -> None:
    there = np.isfinite(measured).any(axis=0)
    index = np.arange(1, MOST_COSINES + 1)[there]
    for table, colour, shade, line in (
        (random, plots.CHANCE, "#9aa2ae", (0, (3, 1.5))),
        (measured, *(plots.COLOURS[:1] * 2), "-"),
    ):
        low, middle, high = np.nanpercentile(table[:, there], (5, 50, 95), axis=0)
        axes.fill_between(index, low, high, color=shade, alpha=0.3, linewidth=0)
        axes.plot(index, middle, color=colour, linewidth=1.4, linestyle=line)
    plots.log_axis(axes, "x", [tick for tick in (1, 2, 5, 10, 20, 50) if tick <= index[-1]])
    axes.set_xlim(0.9, index[-1] * 1.1 + 0.1)
    axes.set_ylim(0, top)
    axes.locator_params(axis="y", nbins=4)


def draw_halves(splits: Sequence[SplitNumbers], folder: Path) -> tuple[Drawing, ...]:
    """Draw mean cos² between bases from halves, one line per pair, both sides; nothing without splits."""
    splits = [numbers for numbers in splits if numbers.out.count]
    if not splits:
        return ()
    longest = max(len(numbers.name) for numbers in splits)
    page = plots.sheet(
        2,
        1,
        0.2 * len(splits) + 0.1,
        left=min(2.2, 0.25 + 0.068 * longest),
        top=0.36 + plots.legend_room(3),
        bottom=0.48,
        gap_y=0.48,
    )
    highest = max(value or 0.0 for n in splits for value in (n.out.high, n.inner.high))
    for axes, side in zip(page.axes[:, 0], ("out", "inner"), strict=True):
        for line, numbers in enumerate(splits):
            found, by_chance = getattr(numbers, side), getattr(numbers, f"{side}_chance")
            colour = plots.COLOURS[0] if numbers.same else plots.COLOURS[1]
            axes.plot((found.low, found.high), (line, line), color=colour, linewidth=2.4, alpha=0.45)
            axes.plot(found.median, line, "o" if numbers.same else "s", color=colour, markersize=4.8)
            axes.plot((by_chance.low, by_chance.high), (line + 0.28,) * 2, color="#9aa2ae", linewidth=1.6)
            axes.plot(by_chance.median, line + 0.28, "|", color=plots.CHANCE, markersize=5, markeredgewidth=1.4)
        axes.set_yticks(range(len(splits)), [numbers.name for numbers in splits], fontsize=8)
        axes.set_ylim(len(splits) - 0.4, -0.6)
        axes.set_xlim(0, min(1.02, max(0.05, 1.05 * highest)))
        axes.grid(False, axis="y")
        axes.set_title("outputs" if side == "out" else "inputs", loc="left", pad=3)
    page.axes[1, 0].set_xlabel("mean cos² of the principal angles", labelpad=2)
    _halves_legend(page)
    found = "; ".join(
        f"{n.name} {short(n.out.median)} and {short(n.inner.median)} "
        f"(chance {short(n.out_chance.median)} and {short(n.inner_chance.median)})"
        for n in splits
    )
    return (saved(page, folder, "halves", found=found, layers=" or ".join(dict.fromkeys(n.layers for n in splits))),)


def _halves_legend(page: plots.Sheet) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=plots.COLOURS[0], marker="o", markersize=4.8, linewidth=0),
        Line2D([], [], color=plots.COLOURS[1], marker="s", markersize=4.8, linewidth=0),
        Line2D([], [], color=plots.CHANCE, marker="|", markersize=6, markeredgewidth=1.4, linewidth=0),
    ]
    plots.top_legend(page.figure, handles, ["one attribute", "two attributes", "chance"])
