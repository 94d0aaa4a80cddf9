"""How many boxes and primitives a scene has: the preset's ranges, or a grid of them indexed by the dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, TypeVar

import numpy as np

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import range_setting, setting
from megasynth_attr.core.ranges import Range, Uniform

T = TypeVar("T")
Pair = tuple[int, int]


def _boxes(help: str) -> Any:
    return range_setting(None, f"number of {help}", minimum=0, maximum=200)


def _primitives(low: int, high: int, what: str) -> Any:
    return range_setting(Uniform(low, high), f"primitives per {what} box", minimum=1, maximum=64)


def _weights(default: tuple[float, ...], what: str) -> Any:
    help = (
        f"weights of the numbers of primitives per {what} box, fewest first; interpolated over the range; empty: equal"
    )
    return setting(default, help, minimum=0)


@dataclass(frozen=True)
class CountSettings:
    """Numbers of boxes and of the primitives in them."""

    large_count: Range[int] | None = _boxes("large boxes; empty: [2,5] in a room, [3,6] objects")
    small_count: Range[int] | None = _boxes("small boxes; empty: [4,8] in a room, [3,6] objects")
    large_primitives: Range[int] = _primitives(4, 8, "large")
    large_primitive_weights: tuple[float, ...] = _weights((5.0, 7.0, 10.0, 7.0, 5.0), "large")
    small_primitives: Range[int] = _primitives(2, 5, "small")
    small_primitive_weights: tuple[float, ...] = _weights((2.0, 3.0, 2.0, 1.0), "small")
    roof_primitives: Range[int] = _primitives(2, 5, "roof")
    roof_primitive_weights: tuple[float, ...] = _weights((2.0, 3.0, 2.0, 1.0), "roof")
    wall_primitives: Range[int] = _primitives(2, 5, "wall")
    wall_primitive_weights: tuple[float, ...] = _weights((2.0, 3.0, 2.0, 1.0), "wall")
    frame_primitives: Range[int] = _primitives(1, 3, "frame")
    frame_primitive_weights: tuple[float, ...] = _weights((2.0, 1.0, 1.0), "frame")
    grid_box_max: tuple[int, ...] = setting(
        (),
        "grid over datasets: largest number of large and of small boxes, e.g. [3,5,7]; empty: no grid",
        minimum=1,
        maximum=200,
    )
    grid_primitives: tuple[int, ...] = setting(
        (),
        "grid over datasets: primitives per large box, pairs in a flat list, e.g. [1,3,4,6,7,9]",
        minimum=1,
        maximum=64,
    )

    def check_counts(self, name: str) -> None:
        """Raise ConfigError for numbers that do not fit each other."""
        for kind in ("large", "small", "roof", "wall", "frame"):
            weights = getattr(self, f"{kind}_primitive_weights")
            if weights and not has_weight(weights):
                raise ConfigError(f"{name}.{kind}_primitive_weights: at least one weight must be positive")
        grid = self.grid_primitives
        if bool(self.grid_box_max) != bool(grid) or len(grid) % 2 or any(a > b for a, b in pairs(grid)):
            raise ConfigError(
                f"{name}.grid_box_max={list(self.grid_box_max)}, {name}.grid_primitives={list(grid)}: "
                "set both or neither, and the second as low, high, low, high, ..., e.g. [1,3,4,6,7,9]"
            )
        for key in ("large_count", "small_count") if grid else ():
            if not isinstance(given := getattr(self, key), Uniform | None):
                raise ConfigError(
                    f"{name}.{key}: the grid replaces the largest number of boxes, which {given} does not allow; "
                    f"write it as [fewest, most] or set {name}.grid_box_max and {name}.grid_primitives to []"
                )


def has_weight(weights: Iterable[float]) -> bool:
    """Return whether one can be drawn with these weights: all finite and not negative, at least one positive."""
    weights = tuple(weights)
    return all(0 <= w < np.inf for w in weights) and sum(weights) > 0


@dataclass(frozen=True)
class Counts:
    """What the numbers of large and small boxes, and of primitives per large box, are drawn from."""

    large: Range[int]
    small: Range[int]
    large_primitives: Range[int]


def counts_of(settings: CountSettings, large: Range[int], small: Range[int], dataset_index: int) -> Counts:
    """Return the counts of one dataset; ``large`` and ``small`` are the layout's own, where the settings give none.

    With a grid, its cell's box maximum becomes the largest number of large and of small boxes (and caps the smallest),
    its other entry the range of primitives per large box.
    """
    large, small = settings.large_count or large, settings.small_count or small
    if not settings.grid_box_max:
        return Counts(large, small, settings.large_primitives)
    box_max, primitives = grid_cell(settings.grid_box_max, pairs(settings.grid_primitives), dataset_index)
    boxes = [Uniform(min(of_kind.low, box_max), box_max) for of_kind in (large, small)]
    return Counts(boxes[0], boxes[1], Uniform(*primitives))


def number_weights(limits: Range[int], weights: tuple[float, ...]) -> np.ndarray:
    """Return the probabilities of the whole numbers of ``limits``, in their order.

    ``weights`` are a profile over the range: if there are more or fewer of them than numbers, they are interpolated
    linearly; if all become 0, the numbers are equally likely.
    """
    numbers, often = limits.whole_numbers()
    profile = np.array(weights or (1.0,))
    spread = np.interp(np.linspace(0, 1, len(numbers)), np.linspace(0, 1, len(profile)), profile)
    spread = (spread if spread.sum() > 0 else np.ones(len(numbers))) * often
    return spread / spread.sum()


def pick(weights: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return indices drawn with ``weights`` from uniform draws in [0, 1); never one of weight 0."""
    possible = np.flatnonzero(weights > 0)
    steps = np.cumsum(weights[possible] / weights.sum())
    return possible[np.searchsorted(steps[:-1], draws, side="right")]


def grid_cell(box_max: tuple[int, ...], primitives: tuple[Pair, ...], index: int) -> tuple[int, Pair]:
    """Return cell ``index`` of the grid: row-major (box maxima × primitive ranges), no cell ever twice.

    Where ``index`` exceeds the cells, the grid is refined as often as needed: midpoints are inserted between
    neighbours (of a range: low ends down, high ends up) and the new cells follow, row-major. When integers leave no
    midpoint, a row with the next larger box maximum is added. The first cells never depend on how many there are.
    """
    return next(islice(_cells(box_max, primitives), index, None))


def pairs(flat: tuple[int, ...]) -> tuple[Pair, ...]:
    """Return (low, high) pairs from a flat list low, high, low, high, ..."""
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _cells(box_max: tuple[int, ...], primitives: tuple[Pair, ...]) -> Iterator[tuple[int, Pair]]:
    rows, columns = list(box_max), list(primitives)
    seen: set[tuple[int, Pair]] = set()
    while True:
        for cell in [(row, column) for row in rows for column in columns]:
            if cell not in seen:
                seen.add(cell)
                yield cell
        finer_rows = _with_midpoints(rows, lambda a, b: (a + b) // 2)
        finer_columns = _with_midpoints(columns, lambda a, b: ((a[0] + b[0]) // 2, -(-(a[1] + b[1]) // 2)))
        if (finer_rows, finer_columns) == (rows, columns):
            finer_rows = [*rows, max(rows) + 1]
        rows, columns = finer_rows, finer_columns


def _with_midpoints(values: list[T], middle: Callable[[T, T], T]) -> list[T]:
    """Return ``values`` with the midpoint of each neighbouring pair between them, without repetitions."""
    dense = values[:1]
    for before, after in pairwise(values):
        dense += [middle(before, after), after]
    return list(dict.fromkeys(dense))
