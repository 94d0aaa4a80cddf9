"""What a sceptic asks: energy outside the sample, the share of the mean, directions above chance by three tests, and
what makes two adapters alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasynth_attr.core.pages import figures as plots
from megasynth_attr.core.pages.words import short
from megasynth_train.subspace.analysis import Analysis, LayerRow
from megasynth_train.subspace.figures.layout import (
    Drawing,
    Places,
    Quantiles,
    draw_groups,
    layers_of,
    name_legend,
    quantiles,
    saved,
)
from megasynth_train.subspace.held_out import mean_share, same

BASES = {  # of HeldOutRow, from the most alike to the least
    "seeds": "same dataset, other seeds",
    "adapter": "own attribute",
    "dataset": "own, other datasets",
    "around": "the same, less its mean",
    "others": "other attributes",
}
TESTS = {"significant": "mean", "significant_reweighted": "reweighted", "significant_normalised": "normalised"}
ALIKE = ("same dataset, other seed", "same attribute, other dataset", "other attribute")
LINE = 0.1  # height of one attribute's line


@dataclass(frozen=True)
class HeldOutNumbers:
    """Shares of one attribute's updates in one kind of layer and of basis, over the layers, with those of chance."""

    attribute: str
    kind: str
    basis: str  # one of BASES
    out: Quantiles
    out_chance: Quantiles
    inner: Quantiles
    inner_chance: Quantiles


def held_out_numbers(analysis: Analysis, kinds: Sequence[str]) -> tuple[HeldOutNumbers, ...]:
    """Return the numbers of every attribute, kind of layer and basis that was tested, in this order."""
    found = []
    for attribute in analysis.attributes:
        for kind in kinds:
            for basis in BASES:
                rows = [
                    row
                    for row in analysis.held_out
                    if (row.attribute, row.layer.kind, row.basis) == (attribute, kind, basis)
                ]
                if rows:
                    fields = ("out", "out_chance", "inner", "inner_chance")
                    measured = (quantiles(getattr(row, field) for row in rows) for field in fields)
                    found.append(HeldOutNumbers(attribute, kind, basis, *measured))
    return tuple(found)


def alike_numbers(analysis: Analysis) -> dict[str, dict[str, Quantiles]]:
    """Return mean cosines of two adapters over the layers, by what they have in common (ALIKE) and attribute."""
    found: dict[str, dict[str, Quantiles]] = {name: {} for name in ALIKE}
    for attribute in analysis.attributes:
        own = [row for row in analysis.adapters if row.attribute == attribute]
        datasets = [row.dataset or row.name for row in own]
        equal, pairs = same(datasets), ~np.eye(len(own), dtype=bool)
        rows = layers_of(analysis, attribute)
        found[ALIKE[0]][attribute] = quantiles(_mean(row, pairs & equal) for row in rows)
        found[ALIKE[1]][attribute] = quantiles(_mean(row, pairs & ~equal) for row in rows)
        found[ALIKE[2]][attribute] = quantiles(
            pair.coherence for pair in analysis.pairs if attribute in (pair.first, pair.second)
        )
    return {name: group for name, group in found.items() if any(q.count for q in group.values())}


def _mean(row: LayerRow, chosen: np.ndarray) -> float | None:
    """Return the mean of the chosen cosines (k × k) between updates that are not zero; None if there are none."""
    chosen = chosen & np.outer(row.norms, row.norms).astype(bool)
    return float(np.asarray(row.coherence)[chosen].mean()) if chosen.any() else None


def draw_held_out(numbers: Sequence[HeldOutNumbers], analysis: Analysis, folder: Path) -> tuple[Drawing, ...]:
    """Draw energy in bases mined without the adapter: a row of panels per kind of layer, outputs beside inputs."""
    if not numbers:
        return ()
    kinds, bases = (list(dict.fromkeys(getattr(n, field) for n in numbers)) for field in ("kind", "basis"))
    bases = [name for name in BASES if name in bases]
    colours = plots.attribute_colours(analysis.attributes)
    page = plots.sheet(
        len(kinds), 2, LINE * len(bases) * (len(colours) + 1) + 0.1,
        left=1.62, top=0.36 + plots.legend_room(len(colours)), bottom=0.48,
    )  # fmt: skip
    for line, kind in enumerate(kinds):
        for column, side in enumerate(("out", "inner")):
            axes, own = page.axes[line, column], [n for n in numbers if n.kind == kind]
            groups = {BASES[basis]: {n.attribute: getattr(n, side) for n in own if n.basis == basis} for basis in bases}
            draw_groups(axes, groups, colours)
            by_chance = quantiles(getattr(n, f"{side}_chance").median for n in own).median
            axes.axvline(by_chance, color=plots.CHANCE, linestyle=plots.DASHED, linewidth=1)
            axes.set_xlim(0, None)
            axes.set_title(f"{kind}, {('outputs', 'inputs')[column]}", loc="left", pad=3)
            plots.few_ticks(axes.xaxis, 4)
            axes.tick_params(axis="y", labelsize=8, labelleft=not column)
    for axes in page.axes[-1]:
        axes.set_xlabel("share of its energy", labelpad=2)
    name_legend(page, colours)
    found = "; ".join(f"{BASES[basis]} {medians(numbers, basis)}" for basis in bases)
    return (saved(page, folder, "held_out", found=found, random=medians(numbers, bases[-1], "_chance")),)


def medians(numbers: Sequence[HeldOutNumbers], basis: str, field: str = "") -> str:
    """Return the medians over attributes and kinds of layers, of outputs and inputs."""
    out, inner = (
        quantiles(getattr(n, side + field).median for n in numbers if n.basis == basis).median
        for side in ("out", "inner")
    )
    return f"{short(out)} and {short(inner)}"


def draw_mean_share(analysis: Analysis, place: Places, folder: Path) -> tuple[Drawing, ...]:
    """Draw the share of the updates' energy that is in their mean, by kind of layer; nothing for single adapters."""
    counts = {name: sum(row.attribute == name for row in analysis.adapters) for name in analysis.attributes}
    counts = {name: count for name, count in counts.items() if count > 1}
    rows = {name: layers_of(analysis, name) for name in counts}
    groups = {
        kind: {name: _mean_shares(row for row in rows[name] if row.layer.kind == kind) for name in counts}
        for kind in place.kinds
    }
    if not any(found.count for of_kind in groups.values() for found in of_kind.values()):
        return ()
    by_chance = sorted({1 / count for count in counts.values()})
    page = _one_panel(analysis, groups, "share of the energy in the mean update", left=0.62)
    for chance in by_chance:
        page.axes[0, 0].axvline(chance, color=plots.CHANCE, linestyle=plots.DASHED, linewidth=1)
    page.axes[0, 0].set_xlim(0, None)
    random = " or ".join(short(chance) for chance in by_chance)
    return (saved(page, folder, "mean_share", found=_words(groups), random=random),)


def _mean_shares(rows: Iterable[LayerRow]) -> Quantiles:
    return quantiles(mean_share(row.spectrum, row.norms) for row in rows)


def _words(groups: Mapping[str, Mapping[str, Quantiles]]) -> str:
    """Return the medians of every group, for readers who do not see the figure."""
    return "; ".join(
        f"{label}: " + ", ".join(f"{name} {short(found.median)}" for name, found in group.items())
        for label, group in groups.items()
    )


def draw_tests(analysis: Analysis, folder: Path) -> tuple[Drawing, ...]:
    """Draw how many directions exceed chance by each of the three tests; nothing for analyses with only one."""
    rows = {name: layers_of(analysis, name) for name in analysis.attributes}
    groups = {
        label: {name: quantiles(getattr(row, field) for row in rows[name]) for name in rows}
        for field, label in TESTS.items()
    }
    if not any(found.count for found in groups["reweighted"].values()):
        return ()
    page = _one_panel(analysis, groups, "directions above chance", left=0.95)
    page.axes[0, 0].set_xlim(left=min(0, page.axes[0, 0].get_xlim()[0]))
    plots.few_ticks(page.axes[0, 0].xaxis, 6, integer=True)
    percent = 100 * (1 - float(analysis.settings.get("null_quantile", 0.95)))
    return (saved(page, folder, "tests", found=_words(groups), percent=percent),)


def draw_alike(analysis: Analysis, folder: Path) -> tuple[Drawing, ...]:
    """Draw mean cosines of two adapters by what they have in common; nothing without cosines across attributes."""
    groups = alike_numbers(analysis)
    if ALIKE[2] not in groups:
        return ()
    page = _one_panel(analysis, groups, "cosine of two updates, mean over the pairs", left=1.95)
    page.axes[0, 0].axvline(0, color=plots.CHANCE, linestyle=plots.DASHED, linewidth=1)
    return (saved(page, folder, "alike", found=_words(groups)),)


def _one_panel(
    analysis: Analysis, groups: Mapping[str, Mapping[str, Quantiles]], label: str, left: float
) -> plots.Sheet:
    colours = plots.attribute_colours(analysis.attributes)
    height = 0.15 * len(groups) * (len(colours) + 1) + 0.1
    page = plots.sheet(1, 1, height, left=left, top=0.36 + plots.legend_room(len(colours)), bottom=0.48)
    draw_groups(page.axes[0, 0], groups, colours)
    page.axes[0, 0].set_xlabel(label, labelpad=2)
    name_legend(page, colours)
    return page
