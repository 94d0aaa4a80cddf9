"""How many boxes and primitives a scene has: the preset's ranges, or a grid of them indexed by the dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from megasynth_attr.scene.factors.geometry import GeometrySettings

T = TypeVar("T")
IntRange = tuple[int, int]
DEFAULTS: dict[str, tuple[IntRange, IntRange]] = {  # large and small boxes where the preset does not say
    "room": ((2, 5), (4, 8)),
    "objects": ((3, 6), (3, 6)),
    "plane": ((0, 0), (0, 0)),
}


@dataclass(frozen=True)
class Counts:
    """Ranges of the number of large and small boxes, and of primitives per large box."""

    large: IntRange
    small: IntRange
    large_primitives: IntRange


def counts_of(settings: GeometrySettings, dataset_index: int) -> Counts:
    """Return the counts of one dataset.

    With a grid, its cell's box maximum becomes the largest number of large and of small boxes (and caps the smallest),
    its other entry the range of primitives per large box.
    """
    default_large, default_small = DEFAULTS[settings.layout]
    large, small = _pair(settings.large_count) or default_large, _pair(settings.small_count) or default_small
    if not settings.grid_box_max:
        return Counts(large, small, settings.large_primitives)
    box_max, primitives = grid_cell(settings.grid_box_max, pairs(settings.grid_primitives), dataset_index)
    return Counts((min(large[0], box_max), box_max), (min(small[0], box_max), box_max), primitives)


def grid_cell(box_max: tuple[int, ...], primitives: tuple[IntRange, ...], index: int) -> tuple[int, IntRange]:
    """Return cell ``index`` of the grid: row-major (box maxima × primitive ranges), no cell ever twice.

    Where ``index`` exceeds the cells, the grid is refined as often as needed: midpoints are inserted between
    neighbours (of a range: low ends down, high ends up) and the new cells follow, row-major. When integers leave no
    midpoint, a row with the next larger box maximum is added. The first cells never depend on how many there are.
    """
    return next(islice(_cells(box_max, primitives), index, None))


def pairs(flat: tuple[int, ...]) -> tuple[IntRange, ...]:
    """Return (low, high) pairs from a flat list low, high, low, high, ..."""
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _pair(values: tuple[int, ...]) -> IntRange | None:
    return (values[0], values[1]) if values else None


def _cells(box_max: tuple[int, ...], primitives: tuple[IntRange, ...]) -> Iterator[tuple[int, IntRange]]:
    rows, columns = list(box_max), list(primitives)
    seen: set[tuple[int, IntRange]] = set()
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
