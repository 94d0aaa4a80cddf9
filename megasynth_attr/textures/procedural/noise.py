"""Periodic noise on the unit tile: gradient noise, fractal sums and Voronoi cells.

Everything here is a function of continuous tile coordinates x, y in [0, 1) (x to the right, y **down**, like image
rows) and is exactly periodic with period 1, because lattices are indexed modulo their period. A material therefore
tiles by construction, and a smaller image samples the same function more coarsely.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Standard deviation of one octave of 2D gradient noise with unit gradients and quintic fade.
_PERLIN_STD = 0.25
# Rows worked on at a time: their intermediate arrays stay in the processor's cache (twice as fast at 512 px).
_BAND = 32


@dataclass(frozen=True)
class Tile:
    """One square tile to be painted: its size and the name every random stream in it is derived from."""

    key: str  # e.g. "1/oak_planks"; two tiles with the same key and size are equal to the bit
    size_px: int
    origin: float = 0.0  # coordinate of the upper left corner; moved by a test that looks for seams

    def rng(self, label: str) -> np.random.Generator:
        """Return the generator named ``label``; a stream never depends on other streams or on the image size."""
        digest = hashlib.sha256(f"megasynth-attr/textures/{self.key}/{label}".encode()).digest()
        words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))

    @cached_property
    def axis(self) -> Array:
        """Return the pixel centres along one axis, (size_px,) in tile widths."""
        return ((np.arange(self.size_px) + 0.5) / self.size_px + self.origin).astype(np.float32)

    @cached_property
    def x(self) -> Array:
        """Return x of every pixel centre, (size_px, size_px)."""
        return np.ascontiguousarray(np.broadcast_to(self.axis[None, :], (self.size_px, self.size_px)))

    @cached_property
    def y(self) -> Array:
        """Return y (down) of every pixel centre, (size_px, size_px)."""
        return np.ascontiguousarray(np.broadcast_to(self.axis[:, None], (self.size_px, self.size_px)))

    @property
    def pixel(self) -> float:
        """Return the width of a pixel in tile widths; the softest edge that is still crisp."""
        return 1.0 / self.size_px


def _fade(f: Array) -> Array:
    """Return the quintic 6f⁵ − 15f⁴ + 10f³: zero first and second derivative at the lattice lines."""
    return f * f * f * (f * (f * 6.0 - 15.0) + 10.0)


def _gradients(tile: Tile, label: str, px: int, py: int) -> tuple[Array, Array]:
    angle = tile.rng(label).random((py, px)) * (2.0 * np.pi)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def perlin(tile: Tile, label: str, px: int, py: int) -> Array:
    """Return gradient noise with ``px`` × ``py`` lattice cells in the tile, (N, N), zero mean, about unit deviation.

    Pixels lie on a regular grid, so the interpolation is separable: rows first, then columns (about 3 ms at 512 px).
    """
    gx, gy = _gradients(tile, label, px, py)
    xs, ys = tile.axis * px, tile.axis * py
    i0, j0 = np.floor(xs).astype(np.int64), np.floor(ys).astype(np.int64)
    fx, fy = (xs - i0).astype(np.float32)[None, :], (ys - j0).astype(np.float32)[:, None]
    wx, wy = _fade(fx), _fade(fy)
    i0, j0 = i0 % px, j0 % py
    j1, i1 = (j0 + 1) % py, (i0 + 1) % px
    along_x = gx[j0] * (1.0 - wy) + gx[j1] * wy
    along_y = gy[j0] * (fy * (1.0 - wy)) + gy[j1] * ((fy - 1.0) * wy)
    left = np.take(along_x, i0, axis=1) * fx + np.take(along_y, i0, axis=1)
    right = np.take(along_x, i1, axis=1) * (fx - 1.0) + np.take(along_y, i1, axis=1)
    return (left + (right - left) * wx) * np.float32(1.0 / _PERLIN_STD)


def perlin_at(tile: Tile, label: str, px: int, py: int, x: Array, y: Array) -> Array:
    """Return the same noise as ``perlin`` at arbitrary coordinates (N, N) in tile widths, for warped domains."""
    gx, gy = _gradients(tile, label, px, py)
    bands = [_perlin_band(gx, gy, px, py, x[i : i + _BAND], y[i : i + _BAND]) for i in range(0, len(x), _BAND)]
    return np.concatenate(bands)


def _perlin_band(gx: Array, gy: Array, px: int, py: int, x: Array, y: Array) -> Array:
    xs, ys = x * np.float32(px), y * np.float32(py)
    xf, yf = np.floor(xs), np.floor(ys)
    fx, fy = xs - xf, ys - yf
    i0, j0 = xf.astype(np.int32) % px, yf.astype(np.int32) % py
    i1, j1 = (i0 + 1) % px, (j0 + 1) % py
    wx, wy = _fade(fx), _fade(fy)
    fx1, fy1 = fx - 1.0, fy - 1.0

    def corner(j: npt.NDArray[np.int32], i: npt.NDArray[np.int32], dx: Array, dy: Array) -> Array:
        flat = j * px + i
        return gx.ravel()[flat] * dx + gy.ravel()[flat] * dy

    top = corner(j0, i0, fx, fy)
    top += (corner(j0, i1, fx1, fy) - top) * wx
    bottom = corner(j1, i0, fx, fy1)
    bottom += (corner(j1, i1, fx1, fy1) - bottom) * wx
    return (top + (bottom - top) * wy) * np.float32(1.0 / _PERLIN_STD)


def fbm(
    tile: Tile,
    label: str,
    period: int | tuple[int, int] = 4,
    octaves: int = 5,
    gain: float = 0.5,
    kind: str = "plain",
    at: tuple[Array, Array] | None = None,
) -> Array:
    """Return a fractal sum of gradient noise, (N, N), zero mean, about unit standard deviation.

    ``period`` counts lattice cells of the first octave across the tile, as one number or (x, y); unequal numbers give
    grain. ``kind`` is "plain" or "ridged" (sharp crests at the zero crossings of each octave). ``at`` evaluates
    at warped coordinates. Octaves finer than two pixels are left out and not compensated: they would be averaged away.
    """
    px, py = (period, period) if isinstance(period, int) else period
    total = np.zeros((tile.size_px, tile.size_px), np.float32)
    amplitude, energy = 1.0, 0.0
    for octave in range(octaves):
        energy += amplitude * amplitude
        if 2 * max(px, py) <= tile.size_px or octave == 0:
            name = f"{label}/{octave}"
            layer = perlin(tile, name, px, py) if at is None else perlin_at(tile, name, px, py, *at)
            if kind == "ridged":
                layer = (0.8 - np.abs(layer)) * np.float32(1.66)  # |N(0,1)| has mean 0.8 and deviation 0.6
            total += layer * np.float32(amplitude)
        px, py, amplitude = px * 2, py * 2, amplitude * gain
    return total * np.float32(1.0 / np.sqrt(energy))


def unit(noise: Array, spread: float = 0.22) -> Array:
    """Return zero-mean noise moved into [0, 1] around 0.5; ``spread`` is what one standard deviation becomes."""
    return np.clip(0.5 + noise * np.float32(spread), 0.0, 1.0)


def warped(tile: Tile, label: str, amount: float, period: int = 4, octaves: int = 3) -> tuple[Array, Array]:
    """Return coordinates (x, y), each (N, N), displaced by fractal noise of ``amount`` tile widths (deviation)."""
    return (
        tile.x + fbm(tile, f"{label}/warp-x", period, octaves) * np.float32(amount),
        tile.y + fbm(tile, f"{label}/warp-y", period, octaves) * np.float32(amount),
    )


@dataclass(frozen=True)
class Voronoi:
    """Voronoi cells of a periodic jittered lattice, each field (N, N); distances in units of a cell's width."""

    f1: Array  # distance to the nearest point
    f2: Array  # distance to the second nearest point
    border: Array  # distance to the nearest cell border, along the straight line to it
    cell: IntArray  # index of the nearest point, 0 … count − 1
    dx: Array  # vector to the nearest point
    dy: Array
    count: int


def voronoi(
    tile: Tile,
    label: str,
    cells: int | tuple[int, int],
    jitter: float = 0.9,
    stagger: bool = False,
    at: tuple[Array, Array] | None = None,
    borders: bool = True,
) -> Voronoi:
    """Return the Voronoi diagram of one random point per lattice cell; ``stagger`` without jitter gives hexagons.

    ``borders`` False leaves the distance to the border out (a large number) and saves a third of the time.
    The 3 × 3 neighbourhood is searched; with jitter ≤ 1 a nearer point outside it is possible only in corners and then
    differs by a fraction of a pixel in practice.
    """
    cx, cy = (cells, cells) if isinstance(cells, int) else cells
    rng = tile.rng(label)
    offset_x = (0.5 + jitter * (rng.random((cy, cx)) - 0.5)).astype(np.float32)
    offset_y = (0.5 + jitter * (rng.random((cy, cx)) - 0.5)).astype(np.float32)
    if stagger:
        offset_x += np.where(np.arange(cy) % 2 == 0, -0.25, 0.25).astype(np.float32)[:, None]
    x, y = (tile.x, tile.y) if at is None else at
    points = (offset_x.ravel(), offset_y.ravel())
    bands = [
        _voronoi_band(points, cx, cy, x[i : i + _BAND], y[i : i + _BAND], borders) for i in range(0, len(x), _BAND)
    ]
    f1, f2, border, dx, dy = (np.concatenate([band[k] for band in bands]) for k in range(5))
    cell = np.concatenate([band[5] for band in bands]).astype(np.int64)
    return Voronoi(f1, f2, border, cell, dx, dy, cx * cy)


def _voronoi_band(
    points: tuple[Array, Array], cx: int, cy: int, x: Array, y: Array, borders: bool
) -> tuple[Array, Array, Array, Array, Array, npt.NDArray[np.int32]]:
    """Return f1, f2, border, dx, dy and cell of a few rows."""
    xs, ys = x * np.float32(cx), y * np.float32(cy)
    xf, yf = np.floor(xs), np.floor(ys)
    fx, fy = xs - xf, ys - yf
    ix, iy = xf.astype(np.int32), yf.astype(np.int32)
    columns = [(ix + n) % cx for n in (-1, 0, 1)]
    rows = [(iy + n) % cy * cx for n in (-1, 0, 1)]
    stretch = np.float32(cx / cy)  # makes distances isotropic when the lattice is not square
    shape = xs.shape
    best = np.full(shape, np.float32(1e9))
    second = best
    near_x, near_y = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    cell = np.zeros(shape, np.int32)
    around: list[tuple[Array, Array, Array]] = []
    for m in range(3):
        for n in range(3):
            index = rows[m] + columns[n]
            dx = points[0][index] + (np.float32(n - 1) - fx)
            dy = (points[1][index] + (np.float32(m - 1) - fy)) * stretch
            d2 = dx * dx + dy * dy
            around.append((dx, dy, d2))
            nearer = d2 < best
            second = np.minimum(second, np.maximum(d2, best))
            best = np.where(nearer, d2, best)
            near_x, near_y = np.where(nearer, dx, near_x), np.where(nearer, dy, near_y)
            cell = np.where(nearer, index, cell)
    border = np.full(shape, np.float32(1e9))
    for dx, dy, d2 in around if borders else ():
        gap = (dx - near_x) ** 2 + (dy - near_y) ** 2
        # The point itself (gap 0) has no bisector; the floor keeps the division finite there.
        distance = np.where(gap > 1e-6, 0.5 * (d2 - best) / np.sqrt(np.maximum(gap, 1e-6)), np.float32(1e9))
        border = np.minimum(border, distance)
    return np.sqrt(best), np.sqrt(second), border, near_x, near_y, cell
