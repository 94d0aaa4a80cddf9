"""How many directions stand out of chance, and how many the basis has, by depth and kind of layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megasynth_attr.core.pages.figures import bar_axes, colour_bar, save, sheet
from megasynth_attr.core.pages.words import short
from megasynth_train.subspace.analysis import Analysis
from megasynth_train.subspace.figures.layout import Drawing, Places, layers_of
from megasynth_train.subspace.figures.numbers import AttributeNumbers
from megasynth_train.subspace.figures.overlap import draw_map


def draw_ranks(
    analysis: Analysis, numbers: Sequence[AttributeNumbers], place: Places, folder: Path
) -> tuple[Drawing, ...]:
    """Draw maps of significant directions; of dimensions too where layers differ in them."""
    numbers = [n for n in numbers if n.layers]
    significant = Drawing(
        "significant",
        "Directions above chance",
        "Number of singular values of the mean update above the largest that chance gives, in every layer.",
        f"Unrelated adapters give 0 in most layers, and 1 or more in about "
        f"{100 * (1 - float(analysis.settings.get('null_quantile', 0.95))):.0f} % of them.",
        "Heat maps of kinds of layers by depth. Median number of directions above chance: "
        + "; ".join(f"{n.name} {short(n.significant.median)}" for n in numbers)
        + ".",
    )
    dimension = Drawing(
        "dimension",
        "Dimensions of the basis",
        "Dimensions that each attribute got in every layer; a layer with 0 stays unadapted.",
        "Not a measurement: the rule of allocation, named at the top of the page, set these numbers.",
        "Heat maps of kinds of layers by depth. Smallest and largest number of dimensions: "
        + "; ".join(f"{n.name} {n.dimension[0]} to {n.dimension[1]}" for n in numbers)
        + ".",
    )
    drawn = []
    for drawing, field in ((significant, "significant"), (dimension, "dimension")):
        if numbers and (field == "significant" or any(n.dimension[0] != n.dimension[1] for n in numbers)):
            _draw(analysis, numbers, place, field, folder, drawing)
            drawn.append(drawing)
    return tuple(drawn)


def _draw(
    analysis: Analysis,
    numbers: Sequence[AttributeNumbers],
    place: Places,
    field: str,
    folder: Path,
    drawing: Drawing,
) -> None:
    from matplotlib.ticker import MaxNLocator

    largest = max(getattr(row, field) for row in analysis.layers)
    page = sheet(len(numbers), 1, 0.15 * len(place.rows) + 0.05, left=0.98, top=0.3, bottom=1.0, gap_y=0.28)
    for axes, n in zip(page.axes[:, 0], numbers, strict=True):
        grid = place.grid((row.layer, getattr(row, field)) for row in layers_of(analysis, n.name))
        mesh = draw_map(axes, grid, place, "cividis_r", max(1, largest), low=0)
        axes.set_title(n.name, loc="left", pad=3)
    for axes in page.axes[:-1, 0]:
        axes.set_xticks([])
    page.axes[-1, 0].set_xlabel("depth of the layer", labelpad=2)
    ticks = MaxNLocator(6, integer=True)
    colour_bar(bar_axes(page.figure, 1.2, 3.2), mesh, drawing.title.lower(), ticks=ticks)
    save(page, folder, drawing.stem)
