"""How many directions exceed chance, and how many dimensions the basis has, by depth and kind of layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megasynth_attr.core.pages.figures import Sheet, bar_axes, colour_bar, sheet
from megasynth_attr.core.pages.words import short
from megasynth_train.subspace.analysis import Analysis
from megasynth_train.subspace.figures.layout import Drawing, Places, draw_places, layers_of, saved
from megasynth_train.subspace.figures.numbers import AttributeNumbers


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


def _maps(analysis: Analysis, numbers: Sequence[AttributeNumbers], place: Places, field: str, label: str) -> Sheet:
    from matplotlib.ticker import MaxNLocator

    largest = max(getattr(row, field) for row in analysis.layers)
    page = sheet(len(numbers), 1, 0.15 * len(place.rows) + 0.05, left=0.98, top=0.3, bottom=1.0, gap_y=0.28)
    for axes, n in zip(page.axes[:, 0], numbers, strict=True):
        grid = place.grid((row.layer, getattr(row, field)) for row in layers_of(analysis, n.name))
        mesh = draw_places(axes, grid, place, "cividis_r", 0, max(1, largest))
        axes.set_title(n.name, loc="left", pad=3)
    for axes in page.axes[:-1, 0]:
        axes.set_xticks([])
    page.axes[-1, 0].set_xlabel("depth of the layer", labelpad=2)
    colour_bar(bar_axes(page.figure, 1.2, 3.2), mesh, label, ticks=MaxNLocator(6, integer=True))
    return page
