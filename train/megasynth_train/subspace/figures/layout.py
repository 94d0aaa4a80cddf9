"""What all figures share: the place of a layer (attention type, kind, depth), quantiles over layers, captions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from megasynth_attr.core.pages.figures import PAPER, Sheet, save, scale, top_legend
from megasynth_attr.core.pages.words import count_text
from megasynth_train.subspace.analysis import Analysis, LayerKey, LayerRow, PairRow

ATTENTIONS, KINDS = (
    ("frame", "global"),
    ("qkv", "proj", "fc1", "fc2"),
)  # these first, in this order; then others by name
Row = TypeVar("Row", LayerRow, PairRow)


@dataclass(frozen=True)
class Quantiles:
    """Median and 5–95 % range of some numbers; all None if there are none."""

    median: float | None
    low: float | None
    high: float | None
    count: int


def quantiles(values: Iterable[float | None]) -> Quantiles:
    """Return the quantiles of those ``values`` that are not None."""
    numbers = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(numbers):
        return Quantiles(None, None, None, 0)
    low, middle, high = np.percentile(numbers, (5, 50, 95))
    return Quantiles(float(middle), float(low), float(high), len(numbers))


@dataclass(frozen=True)
class Places:
    """All places of an analysis; a heat map has one row per (attention, kind) and one column per depth."""

    rows: tuple[tuple[str, str], ...]
    depths: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of layers, in order."""
        return _ordered((kind for _, kind in self.rows), KINDS)

    @property
    def attentions(self) -> tuple[str, ...]:
        """Return the attention types, in order."""
        return _ordered((attention for attention, _ in self.rows), ATTENTIONS)

    def grid(self, values: Iterable[tuple[LayerKey, float]]) -> np.ndarray:
        """Return rows × depths; NaN where no value is given. Of two layers at one place the last is kept."""
        filled = np.full((len(self.rows), self.depths), np.nan)
        for layer, value in values:
            filled[self.rows.index((layer.attention, layer.kind)), layer.depth] = value
        return filled


def places(analysis: Analysis) -> Places:
    """Return where the layers of ``analysis`` are."""
    found = {(row.layer.attention, row.layer.kind) for row in analysis.layers}
    attentions = _ordered((attention for attention, _ in found), ATTENTIONS)
    kinds = _ordered((kind for _, kind in found), KINDS)
    rows = tuple((a, k) for a in attentions for k in kinds if (a, k) in found)
    return Places(rows, 1 + max((row.layer.depth for row in analysis.layers), default=0))


def _ordered(names: Iterable[str], first: Sequence[str]) -> tuple[str, ...]:
    unique = set(names)
    return tuple(n for n in first if n in unique) + tuple(sorted(unique - set(first)))


def layers_of(analysis: Analysis, attribute: str) -> tuple[LayerRow, ...]:
    """Return the rows of one attribute, by depth."""
    return by_depth(row for row in analysis.layers if row.attribute == attribute)


def by_depth(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return ``rows`` sorted by the depth of their layer."""
    return tuple(sorted(rows, key=lambda row: (row.layer.depth, row.layer.module)))


def module_count(analysis: Analysis) -> int:
    """Return how many layers of the model were mined."""
    return len({row.layer.module for row in analysis.layers})


def of_layers(analysis: Analysis, modules: Iterable[str]) -> str:
    """Return in how many of the mined layers something was computed, e.g. "32 of 192 layers"."""
    count, total = len(set(modules)), module_count(analysis)
    return count_text(total, "layer") if count == total else f"{count} of {count_text(total, 'layer')}"


def file_stem(*words: str) -> str:
    """Return a file name that is safe in any file system and URL: other characters than letters and digits become -."""
    return "_".join(re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-") or "x" for word in words)


def depth_colours(depths: int) -> Any:
    """Return the colours of layers by depth: early light, late dark."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    shades = colormaps["viridis_r"](np.linspace(0.12, 1.0, 256))
    return scale(0, max(depths - 1, 1), ListedColormap(shades))


@dataclass(frozen=True)
class Drawing:
    """A figure that was written as ``figures/<stem>.png`` and ``.svg``, with its texts."""

    stem: str
    title: str
    shows: str  # one sentence
    chance: str  # one sentence: what it would look like by chance
    alt: str  # what a person would see, in words and numbers


def saved(page: Sheet, folder: Path, figure: str, stem: str = "", **values: object) -> Drawing:
    """Write a sheet into ``folder`` and return it with its texts from texts.yaml, ``values`` filled in.

    ``figure`` is its name there, and also that of its files unless ``stem`` is given.
    """
    stem = stem or figure
    save(page, folder, stem)
    return Drawing(stem, **{name: text.format(**values) for name, text in _texts()[figure].items()})


@cache
def _texts() -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text("utf-8"))
    return texts


def heat_map(axes: Any, values: np.ndarray, **options: Any) -> Any:
    """Draw a matrix as coloured cells, the first row on top, hatched where a value is missing (NaN), without frame."""
    axes.grid(False)
    axes.patch.set(hatch="////", edgecolor="#c3c8d0", linewidth=0)
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), edgecolors=PAPER, **options)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return mesh


def draw_groups(axes: Any, groups: Mapping[str, Mapping[str, Quantiles]], colours: Mapping[str, str]) -> None:
    """Draw dots (medians) with bars (5–95 %), group under group, in each group one line per name of ``colours``."""
    step = len(colours) + 1
    for number, group in enumerate(groups.values()):
        for line, (name, colour) in enumerate(colours.items(), number * step):
            if name in group and group[name].median is not None:
                axes.plot((group[name].low, group[name].high), (line, line), color=colour, linewidth=2.2, alpha=0.45)
                axes.plot(group[name].median, line, "o", color=colour, markersize=4.5)
    axes.set_yticks([number * step + (step - 2) / 2 for number in range(len(groups))], list(groups))
    axes.set_ylim(len(groups) * step - 1, -1)
    axes.grid(False, axis="y")


def name_legend(page: Sheet, colours: Mapping[str, str]) -> None:
    """Put the names of ``draw_groups`` along the upper edge."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, marker="o", markersize=4.5, linewidth=0) for colour in colours.values()]
    top_legend(page.figure, handles, list(colours))


def draw_places(axes: Any, values: np.ndarray, place: Places, colours: str, low: float, high: float) -> Any:
    """Draw a grid of kinds × depths (``Places.grid``) between ``low`` and ``high``."""
    mesh = heat_map(axes, values, cmap=colours, vmin=low, vmax=high, linewidth=0.3)
    axes.set_yticks(np.arange(len(place.rows)) + 0.5, [f"{a} {k}" for a, k in place.rows], fontsize=8)
    shown = range(0, place.depths, max(1, math.ceil(place.depths / 12)))
    axes.set_xticks([d + 0.5 for d in shown], [str(d) for d in shown], fontsize=8)
    return mesh
