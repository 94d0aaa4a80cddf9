"""How all figures look, and their files: one PNG and one SVG each, the same bytes for the same analysis.

Figures are built on Figure objects, without pyplot. They are about 5 inches wide with text of 9 points, so that they
stay readable on a phone. Colours are those of Okabe and Ito, which the colour-blind can tell apart; depth and amounts
go from light to dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAPER, INK, MUTED, GRID = "#f6f7f9", "#3a404a", "#6a7280", "#dfe3e8"
CHANCE = "#1d2128"  # everything that shows chance: dashed or grey, never a colour
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5c00", "#4b3f91")
WIDTH = 4.8  # inches
_STYLE = {
    "figure.dpi": 180,
    "savefig.dpi": 180,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titley": 1.0,  # fixed: looking for room above the ticks takes a tenth of the time
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": "#b6bcc5",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "text.parse_math": False,  # an attribute may be named with a $
    "svg.hashsalt": "megasynth-attr",
}


@dataclass(frozen=True)
class Drawing:
    """A figure that was written as ``figures/<stem>.png`` and ``.svg``, and what to say about it."""

    stem: str
    title: str
    shows: str  # one sentence
    chance: str  # one sentence: what it would look like if nothing was there
    alt: str  # what a person would see, in words and numbers

    @property
    def png(self) -> str:
        """Return the picture's path inside the report."""
        return f"figures/{self.stem}.png"

    @property
    def svg(self) -> str:
        """Return the drawing's path inside the report."""
        return f"figures/{self.stem}.svg"


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw with the project's style, whatever matplotlib was told elsewhere; afterwards that holds again."""
    from matplotlib import style

    with style.context([_STYLE], after_reset=True):
        yield


@dataclass(frozen=True)
class Sheet:
    """A figure with panels in rows and columns; all lengths in inches. ``axes`` is rows × columns."""

    figure: Any
    axes: np.ndarray


def sheet(
    rows: int,
    columns: int,
    panel_height: float,
    *,
    width: float = WIDTH,
    left: float = 0.62,
    right: float = 0.12,
    top: float = 0.3,
    bottom: float = 0.5,
    gap_x: float = 0.3,
    gap_y: float = 0.42,
) -> Sheet:
    """Return an empty sheet of ``rows`` × ``columns`` panels of one size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = top + rows * panel_height + (rows - 1) * gap_y + bottom
    panel_width = (width - left - right - (columns - 1) * gap_x) / columns
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        x = left + column * (panel_width + gap_x)
        y = height - top - (row + 1) * panel_height - row * gap_y
        box = (x / width, y / height, panel_width / width, panel_height / height)
        axes[row, column] = figure.add_axes(box)
    return Sheet(figure, axes)


def bar_axes(page: Sheet, left: float, width: float, bottom: float = 0.34, height: float = 0.09) -> Any:
    """Return axes for a horizontal colour bar near the lower edge; inches."""
    total_width, total_height = page.figure.get_size_inches()
    return page.figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def colour_bar(page: Sheet, axes: Any, mappable: Any, label: str, **options: Any) -> Any:
    """Draw a horizontal colour bar in ``axes`` with its label below."""
    axes.grid(False)
    bar = page.figure.colorbar(mappable, cax=axes, orientation="horizontal", **options)
    bar.set_label(label, fontsize=8.5, labelpad=2)
    bar.ax.tick_params(labelsize=8, length=2, pad=2)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    return bar


_PER_LINE = 3  # names beside each other in a legend


def legend_room(names: int) -> float:
    """Return the inches that the legend of so many names needs above the panels."""
    return 0.2 * -(-names // _PER_LINE)


def top_legend(page: Sheet, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend along the upper edge, three names in a line, the first line first."""
    lines = -(-len(labels) // _PER_LINE)
    columns = -(-len(labels) // lines)
    order = [i for column in range(columns) for i in range(column, len(labels), columns)]  # it fills column by column
    width, height = page.figure.get_size_inches()
    page.figure.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="upper left", ncols=columns,
        bbox_to_anchor=(0.08 / width, 1 - 0.08 / height), borderaxespad=0, borderpad=0, handlelength=1.4,
        handletextpad=0.5, columnspacing=1.4, labelspacing=0.35,
    )  # fmt: skip


def save(page: Sheet, folder: Path, stem: str) -> None:
    """Write ``<folder>/<stem>.png`` and ``.svg``, without time stamps."""
    page.figure.savefig(folder / f"{stem}.png", metadata={"Software": None})
    page.figure.savefig(folder / f"{stem}.svg", metadata={"Date": None, "Creator": None})


def attribute_colours(attributes: Sequence[str]) -> dict[str, str]:
    """Return one colour per attribute; after the eighth they come again."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(attributes)}


def depth_colours(depths: int) -> tuple[Any, Any]:
    """Return colour map and norm for the depth of a layer: early light, late dark."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, Normalize

    shades = colormaps["viridis_r"](np.linspace(0.12, 1.0, 256))
    return ListedColormap(shades), Normalize(0, max(depths - 1, 1))


def log_axis(axes: Any, which: str, values: Sequence[float] | None = None) -> None:
    """Make an axis (``"x"`` or ``"y"``) logarithmic, with plain numbers on it: at ``values``, or at powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    if values is not None:
        axis.set_major_locator(FixedLocator(list(values)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(numticks=7))


def short(value: float | None) -> str:
    """Return a number with two or three figures, as people write it; – for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return text.replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    power = "".join("⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".index(c)] for c in str(int(exponent)))
    mantissa = mantissa.removesuffix(".0").replace("-", "−")
    return f"10{power}" if mantissa == "1" else f"{mantissa}·10{power}"
