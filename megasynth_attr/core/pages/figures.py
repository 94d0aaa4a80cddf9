"""The look of every figure of the project, and its files: the same bytes for the same numbers.

Figures are built on Figure objects, without pyplot: no global state, no window. Most are about 5 inches wide with text
of 9 points, so that they stay readable on a phone. Colours are those of Okabe and Ito, which the colour-blind can tell
apart; depth and amounts go from light to dark. Lengths are inches. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.pages.words import short

PAPER, INK, MUTED, GRID, EDGE = "#f6f7f9", "#3a404a", "#6a7280", "#dfe3e8", "#b6bcc5"
PAPER_RGB, INK_RGB = (246, 247, 249), (58, 64, 74)  # the same for pixels; behind pictures in light and dark pages
CHANCE = "#1d2128"  # everything that shows chance: dashed or grey, never a colour
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5c00", "#4b3f91")
DASHED = (0, (4, 2))
WIDTH = 4.8
_STYLE = {
    "figure.dpi": 180,
    "savefig.dpi": "figure",
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
    "axes.edgecolor": EDGE,
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
    "text.parse_math": False,  # a name may hold dollar signs
    "svg.hashsalt": "megasynth-attr",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the project's style, whatever matplotlib's settings are; they are restored afterwards.

    Also a decorator of functions that draw: ``@figure_style()``.
    """
    from matplotlib import style

    with style.context([_STYLE], after_reset=True):
        yield


def new_figure(width: float, height: float, **options: Any) -> Any:
    """Return an empty figure of this size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def place(figure: Any, left: float, top: float, width: float, height: float, **options: Any) -> Any:
    """Return new axes of this size, ``left`` and ``top`` away from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down), **options)


def write(figure: Any, left: float, top: float, text: str, **style: Any) -> None:
    """Write ``text``, its baseline starting ``left`` and ``top`` away from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    figure.text(left / across, 1 - top / down, text, **style)


def show_pixels(axes: Any, pixels: np.ndarray, **options: Any) -> Any:
    """Fill ``axes`` with a picture, without ticks and frame."""
    axes.set_axis_off()
    return axes.imshow(pixels, interpolation="antialiased", aspect="auto", **options)


@dataclass(frozen=True)
class Sheet:
    """A figure with panels in rows and columns. ``axes`` is rows × columns."""

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
    figure = new_figure(width, top + rows * panel_height + (rows - 1) * gap_y + bottom)
    panel_width = (width - left - right - (columns - 1) * gap_x) / columns
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        corner = left + column * (panel_width + gap_x), top + row * (panel_height + gap_y)
        axes[row, column] = place(figure, *corner, panel_width, panel_height)
    return Sheet(figure, axes)


def panels_for(page: Sheet, items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield a panel for each of ``items``, row by row; the panels left over are removed."""
    for number, axes in enumerate(page.axes.ravel()):
        if number < len(items):
            yield axes, items[number]
        else:
            axes.remove()


def scale(low: float, high: float, colours: Any) -> Any:
    """Return the mapping of ``low`` to ``high`` onto ``colours`` (a colour map or its name), for a colour bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(low, high), colours)


def bar_axes(figure: Any, left: float, width: float, bottom: float = 0.34, height: float = 0.09) -> Any:
    """Return axes for a horizontal colour bar, ``bottom`` above the lower edge."""
    return place(figure, left, figure.get_figheight() - bottom - height, width, height)


def colour_bar(axes: Any, mappable: Any, label: str = "", *, upright: bool = False, **options: Any) -> Any:
    """Draw a colour bar in ``axes`` with its label below, or beside it if it stands ``upright``."""
    axes.grid(False)
    bar = axes.figure.colorbar(mappable, cax=axes, orientation="vertical" if upright else "horizontal", **options)
    bar.set_label(label, fontsize=8.5, labelpad=3 if upright else 2)
    bar.ax.tick_params(labelsize=8, length=2, pad=2)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    return bar


def few_ticks(axis: Any, count: int, **options: Any) -> None:
    """Give an axis at most about ``count`` ticks, at round numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(count, **options))


_PER_LINE = 3  # names beside each other in a legend


def legend_room(names: int) -> float:
    """Return the height that a legend of this many names needs above the panels."""
    return 0.2 * -(-names // _PER_LINE)


def top_legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend along the upper edge, three names per line, to be read line by line."""
    lines = -(-len(labels) // _PER_LINE)
    columns = -(-len(labels) // lines)
    order = [i for column in range(columns) for i in range(column, len(labels), columns)]  # it fills column by column
    width, height = figure.get_size_inches()
    figure.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="upper left", ncols=columns,
        bbox_to_anchor=(0.08 / width, 1 - 0.08 / height), borderaxespad=0, borderpad=0, handlelength=1.4,
        handletextpad=0.5, columnspacing=1.4, labelspacing=0.35,
    )  # fmt: skip


def save_png(figure: Any, path: Path) -> None:
    """Write a figure as PNG, without time stamps; characters of paths that no font can have are replaced."""
    for text in _texts(figure):
        if not (shown := text.get_text()).isascii():
            text.set_text(shown.encode("utf-8", "replace").decode())
    figure.savefig(path, metadata={"Software": None})


def _texts(artist: Any) -> Iterator[Any]:
    """Yield the texts in ``artist``; not those of axes without ticks, which would be made only to be looked at."""
    for child in artist.get_children():
        if hasattr(child, "get_text"):
            yield child
        elif not (hasattr(child, "get_ticklabels") and not child.axes.axison):
            yield from _texts(child)


def save(page: Sheet, folder: Path, stem: str) -> None:
    """Write ``<folder>/<stem>.png`` and ``.svg``, without time stamps."""
    save_png(page.figure, folder / f"{stem}.png")
    page.figure.savefig(folder / f"{stem}.svg", metadata={"Date": None, "Creator": None})


def attribute_colours(attributes: Sequence[str]) -> dict[str, str]:
    """Return one colour per attribute; they repeat after the eighth."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(attributes)}


def false_colour(
    values: np.ndarray, low: float, high: float, valid: np.ndarray | None = None, colours: str = "viridis_r"
) -> np.ndarray:
    """Return ``values`` as uint8 RGB, from ``low`` to ``high`` in matplotlib's ``colours``; paper where not valid.

    The default makes depth monotone in lightness, near surfaces bright and far ones dark: the background is light, so
    near surfaces stand out by hue and far ones by darkness.
    """
    from matplotlib import colormaps

    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    pixels = np.round(colormaps[colours](share)[..., :3] * 255).astype(np.uint8)
    return pixels if valid is None else np.where(valid[..., None], pixels, np.array(PAPER_RGB, dtype=np.uint8))


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


def evenly(count: int, limit: int) -> list[int]:
    """Return at most ``limit`` indices below ``count``, evenly spaced, the first and the last included."""
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)] if limit > 1 else [0]
