"""Periodic cell patterns: bricks, planks, herringbone, scales, weaves … as cell index, edge distance and local u, v."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.textures.procedural.noise import Array, IntArray, Tile, Voronoi

Coordinates = tuple[Array, Array]


@dataclass(frozen=True)
class Cells:
    """A partition of the tile, each field (N, N)."""

    cell: IntArray  # index of the cell, 0 … count − 1
    count: int
    edge: Array  # distance to the cell's border, tile widths
    u: Array  # position inside the cell along its length, 0 … 1
    v: Array  # position inside the cell across, 0 … 1
    turned: Array | None = None  # 1 where the cell's length runs down the image, 0 where it runs across


def per_index(tile: Tile, label: str, index: IntArray, count: int, low: float = 0.0, high: float = 1.0) -> Array:
    """Return one uniform random number for each ``index`` 0 … count − 1, spread to its pixels, (N, N)."""
    return tile.rng(label).uniform(low, high, count).astype(np.float32)[index]


def per_cell(tile: Tile, label: str, cells: Cells | Voronoi, low: float = 0.0, high: float = 1.0) -> Array:
    """Return one uniform random number per cell, spread to pixels, (N, N)."""
    return per_index(tile, label, cells.cell, cells.count, low, high)


def shifted(tile: Tile, label: str, image: Array, cells: Cells) -> Array:
    """Return ``image`` read at another random (periodic) offset in every cell: each board shows its own grain."""
    n = tile.size_px
    rng = tile.rng(label)
    dx = (rng.random(cells.count) * n).astype(np.int64)[cells.cell]
    dy = (rng.random(cells.count) * n).astype(np.int64)[cells.cell]
    steps = np.arange(n)
    return image[(steps[:, None] + dy) % n, (steps[None, :] + dx) % n]


def centred(value: Array) -> Array:
    """Return where in its unit interval each value lies, counted from the middle: −0.5 … 0.5."""
    return value - np.floor(value) - np.float32(0.5)


def _wrapped_floor(value: Array, period: int) -> tuple[IntArray, Array]:
    whole = np.floor(value)
    return whole.astype(np.int64) % period, value - whole


def bricks(tile: Tile, columns: int, rows: int, bond: float = 0.5, at: Coordinates | None = None) -> Cells:
    """Return ``rows`` courses of ``columns`` bricks; each course is moved by ``bond`` of a brick.

    ``rows`` × ``bond`` must be whole, or the courses would not meet at the tile's border.
    """
    if abs(rows * bond - round(rows * bond)) > 1e-6:
        raise ValueError(f"rows × bond must be a whole number, got {rows} × {bond}")
    x, y = at or (tile.x, tile.y)
    row, v = _wrapped_floor(y * np.float32(rows), rows)
    column, u = _wrapped_floor(x * np.float32(columns) + row.astype(np.float32) * np.float32(bond), columns)
    edge = np.minimum(np.minimum(u, 1 - u) / columns, np.minimum(v, 1 - v) / rows)
    return Cells(row * columns + column, rows * columns, edge.astype(np.float32), u, v)


def planks(tile: Tile, rows: int, per_row: int, label: str = "planks", at: Coordinates | None = None) -> Cells:
    """Return ``rows`` courses of boards across the tile, with ``per_row`` joints at random places in each course."""
    x, y = at or (tile.x, tile.y)
    row, v = _wrapped_floor(y * np.float32(rows), rows)
    rng = tile.rng(label)
    phase = rng.random((rows, 1))
    joints = (phase + (np.arange(per_row) + 0.45 * (rng.random((rows, per_row)) - 0.5)) / per_row).astype(np.float32)
    edge = np.minimum(v, 1 - v) / np.float32(rows)
    index = np.zeros(row.shape, np.int64)
    u = np.full(row.shape, np.float32(9.0))
    for k in range(per_row):
        along = x - joints[row, k]
        along = along - np.floor(along)  # distance to the right of joint k, periodic
        nearer = along < u
        index, u = np.where(nearer, k, index), np.where(nearer, along, u)
        if per_row > 1:
            edge = np.minimum(edge, np.minimum(along, 1 - along))
    return Cells(row * per_row + index, rows * per_row, edge.astype(np.float32), u, v)


def herringbone(tile: Tile, repeats: int, length: int = 3) -> Cells:
    """Return a herringbone of boards ``length`` times as long as wide, ``2·length·repeats`` board widths per tile.

    On the unit lattice, t = (i − j) mod 2·length decides: t < length lies in a horizontal board, the rest stands.
    """
    n = 2 * length * repeats
    i, fx = _wrapped_floor(tile.x * np.float32(n), n)
    j, fy = _wrapped_floor(tile.y * np.float32(n), n)
    t = (i - j) % (2 * length)
    lying = t < length
    step = np.where(lying, t, 2 * length - 1 - t)
    first_x, first_y = np.where(lying, i - step, i) % n, np.where(lying, j, j - step) % n
    along = np.where(lying, fx, fy) + step
    across = np.where(lying, fy, fx)
    edge = np.minimum(np.minimum(along, length - along), np.minimum(across, 1 - across)) / n
    cell = first_y * n + first_x
    return Cells(
        cell,
        n * n,
        edge.astype(np.float32),
        (along / length).astype(np.float32),
        across,
        (~lying).astype(np.float32),
    )


def basket(tile: Tile, squares: int, slats: int) -> Cells:
    """Return ``squares``² fields of ``slats`` parallel slats, lying and standing in turn (``squares`` even)."""
    i, fx = _wrapped_floor(tile.x * np.float32(squares), squares)
    j, fy = _wrapped_floor(tile.y * np.float32(squares), squares)
    standing = (i + j) % 2 == 1
    along, across = np.where(standing, fy, fx), np.where(standing, fx, fy)
    slat, v = _wrapped_floor(across * np.float32(slats), slats)
    edge = np.minimum(np.minimum(along, 1 - along), np.minimum(v, 1 - v) / slats) / squares
    cell = (j * squares + i) * slats + slat
    return Cells(cell, squares * squares * slats, edge.astype(np.float32), along, v, standing.astype(np.float32))


def scales(tile: Tile, columns: int, rows: int, depth: float = 0.6, shape: float = 2.0) -> Cells:
    """Return overlapping rows of rounded scales (``rows`` even); ``v`` runs from a scale's hidden to its free end.

    A scale hangs ``depth`` rows over the next course; ``shape`` is the exponent of its free edge (2 round, 1 pointed).
    """
    y = tile.y * np.float32(rows)

    def course(layer: int) -> tuple[IntArray, Array, Array, Array]:
        """Return index, u, depth v and distance to the free edge (in rows) of the scale ``layer`` courses above."""
        row = np.floor(y).astype(np.int64) - layer
        stagger = (row % 2).astype(np.float32) * np.float32(0.5)
        column, u = _wrapped_floor(tile.x * np.float32(columns) + stagger, columns)
        rim = np.float32(depth) * (1 - np.abs(2 * u - 1) ** np.float32(shape)) ** np.float32(1 / shape)
        v = y - row
        index = (row % rows) * columns + column
        return index, u, (v / (1 + depth)).astype(np.float32), (1 + rim - v).astype(np.float32)

    own, above = course(0), course(1)
    hidden = above[3] > 0  # the course above covers this place
    cell = np.where(hidden, above[0], own[0])
    u, v, edge = (np.where(hidden, above[k], own[k]) for k in (1, 2, 3))
    return Cells(cell, rows * columns, edge / np.float32(rows), u, v)


@dataclass(frozen=True)
class Weave:
    """Interlaced threads, each field (N, N)."""

    height: Array  # 0 … 1
    warp_on_top: Array  # 1 where the thread that runs down the image is visible, 0 where the one across is
    warp: IntArray  # index of the thread running down
    weft: IntArray  # index of the thread running across
    across: Array  # position across the visible thread, −1 … 1
    along: Array  # position along the visible thread in thread widths


def weave(tile: Tile, pattern: list[list[int]], warps: int, wefts: int, at: Coordinates | None = None) -> Weave:
    """Return a cloth of ``warps`` × ``wefts`` threads; ``pattern[j][i]`` is 1 where warp i passes over weft j.

    The pattern repeats and must divide the thread counts. Between two crossings a thread rises and sinks smoothly.
    """
    over = np.array(pattern, np.float32) * 2 - 1
    rows, columns = over.shape
    if warps % columns or wefts % rows:
        raise ValueError(f"a {rows}×{columns} pattern does not divide {wefts} wefts × {warps} warps")
    x, y = at or (tile.x, tile.y)
    xs, ys = x * np.float32(warps), y * np.float32(wefts)
    i, fx = _wrapped_floor(xs, warps)
    j, fy = _wrapped_floor(ys, wefts)

    def level(position: Array, fixed: IntArray, horizontal: bool) -> Array:
        centred = position - np.float32(0.5)
        base = np.floor(centred)
        f = centred - base
        k = base.astype(np.int64)
        if horizontal:
            a, b = over[fixed % rows, k % columns], over[fixed % rows, (k + 1) % columns]
        else:
            a, b = over[k % rows, fixed % columns], over[(k + 1) % rows, fixed % columns]
        return a + (b - a) * (f * f * (3 - 2 * f))

    warp_level = level(ys, i, horizontal=False)
    weft_level = -level(xs, j, horizontal=True)
    u, v = 2 * fx - 1, 2 * fy - 1
    warp_height = np.sqrt(np.maximum(1 - u * u, 0)) * np.float32(0.75) + warp_level * np.float32(0.35)
    weft_height = np.sqrt(np.maximum(1 - v * v, 0)) * np.float32(0.75) + weft_level * np.float32(0.35)
    top = warp_height > weft_height
    height = np.clip((np.maximum(warp_height, weft_height) + 0.1) / 1.2, 0, 1)
    return Weave(
        height.astype(np.float32),
        top.astype(np.float32),
        i,
        j,
        np.where(top, u, v),
        np.where(top, ys, xs),
    )
