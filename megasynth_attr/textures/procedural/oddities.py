"""Materials that fit no craft: circuit boards, cork, honeycomb, crackle glaze, chalkboard, sponge, wallpaper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megasynth_attr.textures.procedural.noise import Tile, fbm, unit, voronoi, warped
from megasynth_attr.textures.procedural.patterns import centred, per_cell, per_index
from megasynth_attr.textures.surface import Surface, mix, ramp, rgb, smooth, tint


def circuit(tile: Tile, *, board: str, trace: str, pad: str, cells: int) -> Surface:
    """Return a printed circuit: traces along random lattice paths, round pads, a few rectangular chips."""
    rng = tile.rng("routes")
    horizontal = rng.random((cells, cells)) < 0.5
    vertical = rng.random((cells, cells)) < 0.5
    xs, ys = tile.x * np.float32(cells), tile.y * np.float32(cells)
    i, j = np.floor(xs).astype(np.int64) % cells, np.floor(ys).astype(np.int64) % cells
    u, v = centred(xs), centred(ys)
    right, left = horizontal[j, i], horizontal[j, (i - 1) % cells]
    down, up = vertical[j, i], vertical[(j - 1) % cells, i]
    far = np.float32(9.0)
    distance = np.minimum(
        np.where(np.where(u > 0, right, left), np.abs(v), far),
        np.where(np.where(v > 0, down, up), np.abs(u), far),
    )
    links = right.astype(np.int64) + left + down + up
    radius = np.hypot(u, v)
    soft = cells * tile.pixel
    line = smooth(
        0.13 + soft, 0.13 - soft, np.minimum(distance, np.where(links > 0, np.maximum(radius - 0.02, 0), far))
    )
    is_pad = (links == 1) | (links == 3)
    ring = smooth(0.3 + soft, 0.3 - soft, radius) * is_pad
    drill = smooth(0.12 + soft, 0.12 - soft, radius) * is_pad
    fine = fbm(tile, "fine", 64, 2)
    color = tint(rgb(board), 1 + fine * np.float32(0.04))
    color = mix(color, rgb(trace), line)
    color = mix(color, rgb(pad), ring)
    metal, rough = ring.copy(), np.full_like(fine, 0.42) - line * 0.06
    height = line * np.float32(0.25) + ring * np.float32(0.2)
    chips = cells // 4
    cx, cy = tile.x * np.float32(chips), tile.y * np.float32(chips)
    a, b = centred(cx), centred(cy)
    index = (np.floor(cy).astype(np.int64) % chips) * chips + np.floor(cx).astype(np.int64) % chips
    place = per_index(tile, "chip", index, chips * chips) < 0.3
    pins = (np.abs((b * 14) % 1.0 - 0.5) < 0.25) & (np.abs(b) < 0.31)
    body = smooth(0.0, 0.03, 0.32 - np.maximum(np.abs(a) * 1.35, np.abs(b))) * place
    legs = ((np.abs(a) < 0.31) & pins) * place
    legs = legs.astype(np.float32)
    color = mix(mix(color, rgb("#05070a"), drill), rgb("#c9ccd1"), legs)
    notch = smooth(0.05, 0.03, np.hypot(a, b + 0.26))
    color = mix(color, rgb("#24262a"), body)
    color = mix(color, rgb("#5b5e63"), notch * body)
    metal = np.clip(mix(metal * (1 - drill), np.ones_like(metal), legs), 0, 1) * (1 - body)
    height = mix(np.maximum(height * (1 - drill), legs * 0.6), np.full_like(height, 1.6) - notch * 0.2, body)
    rough = mix(mix(rough, 0.3, np.maximum(ring, legs)), np.full_like(rough, 0.6), body)
    return Surface(color, height, rough, metal, 0.012)


def cork(tile: Tile, *, colors: Sequence[str], grains: int) -> Surface:
    """Return pressed cork: granules of several shades with dark specks between them."""
    at = warped(tile, "grains", 0.25 / grains, grains, 3)
    big = voronoi(tile, "grains", grains, 1.0, False, at)
    small = voronoi(tile, "small", grains * 2, 1.0, False, at)
    use_small = per_cell(tile, "split", big) < 0.45
    tone = np.where(use_small, per_cell(tile, "s", small), per_cell(tile, "b", big)).astype(np.float32)
    border = np.where(use_small, np.minimum(big.border, small.border * 0.5), big.border)
    fine = fbm(tile, "fine", 48, 3, 0.75)
    speck = smooth(0.78, 0.86, unit(fbm(tile, "speck", 32, 3, 0.6)))
    color = ramp(np.clip(tone * 0.8 + 0.1 + fine * np.float32(0.06), 0, 1), colors)
    body = smooth(0.0, 0.14, border)
    color = tint(color, 0.72 + 0.28 * body - speck * np.float32(0.5))
    height = body * (0.7 + 0.3 * tone) + fine * np.float32(0.06) - speck * np.float32(0.4)
    return Surface(color, height, 0.88, 0.0, 0.006)


def honeycomb(
    tile: Tile, *, columns: int, rows: int, wax: Sequence[str], fill: Sequence[str], filled: float
) -> Surface:
    """Return wax cells, some open and dark, some filled with glossy honey."""
    cells = voronoi(tile, "comb", (columns, rows), 0.0, True, warped(tile, "comb", 0.004, 6, 2))
    wall = smooth(0.14, 0.07, cells.border)
    fine = fbm(tile, "fine", 32, 4)
    is_full = per_cell(tile, "full", cells) < filled
    each = per_cell(tile, "each", cells)
    open_color = tint(
        ramp(np.clip(0.2 + each * 0.3 + fine * 0.05, 0, 1), wax), 0.25 + 0.5 * smooth(0.5, 0.1, cells.border)
    )
    honey = ramp(np.clip(each * 0.7 + fine * 0.06 + 0.15, 0, 1), fill)
    inside = np.where(is_full[..., None], honey, open_color)
    rim = tint(ramp(unit(fine, 0.15) + 0.2, wax), 1 + fine * np.float32(0.04))
    bulge = np.sqrt(np.clip(cells.border * 2, 0, 1))
    level = np.where(is_full, 0.62 + bulge * 0.15, 0.1).astype(np.float32)
    rough = mix(np.where(is_full, 0.12, 0.6).astype(np.float32), 0.5, wall)
    return Surface(mix(inside, rim, wall), level + (1 - level) * wall + fine * 0.01, rough, 0.0, 0.03)


def crackle(tile: Tile, *, glaze: Sequence[str], line: str, cells: int) -> Surface:
    """Return a crackled glaze: a glassy coat with a net of fine stained cracks of two generations."""
    at = warped(tile, "net", 0.02, 5, 4)
    first = voronoi(tile, "first", cells, 1.0, False, at)
    second = voronoi(tile, "second", cells * 3, 1.0, False, at)
    cloud = fbm(tile, "cloud", 3, 5)
    coarse = smooth(0.025, 0.006, first.border)
    hair = smooth(0.045, 0.012, second.border) * np.float32(0.55) * smooth(0.35, 0.6, unit(fbm(tile, "w", 4, 3)))
    net = np.maximum(coarse, hair)
    color = ramp(np.clip(unit(cloud, 0.12) + per_cell(tile, "e", first, -0.06, 0.06), 0, 1), glaze)
    wave = fbm(tile, "wave", 5, 3)
    height = wave * np.float32(0.25) - net * np.float32(0.2)
    return Surface(mix(color, rgb(line), net * np.float32(0.8)), height, np.clip(0.1 + net * 0.3, 0, 1), 0.0, 0.006)


def chalkboard(tile: Tile, *, board: str, chalk: str) -> Surface:
    """Return a wiped chalkboard: broad smears of dust, faint remains of strokes."""
    x, y = warped(tile, "arm", 0.06, 2, 2)
    smear = fbm(tile, "smear", (2, 14), 5, 0.7, at=(x, y))
    wipe = fbm(tile, "wipe", 3, 4)
    grain = fbm(tile, "grain", 96, 2, 0.9)
    loops = np.abs(fbm(tile, "strokes", (5, 5), 2, 0.4, at=(x, y)))
    stroke = smooth(0.05, 0.012, loops) * smooth(0.3, 1.2, fbm(tile, "where", 3, 3)) * smooth(-0.6, 0.8, grain)
    dust = np.clip(0.11 + smear * np.float32(0.05) + wipe * np.float32(0.05) + grain * np.float32(0.02), 0, 1)
    color = mix(rgb(board), rgb(chalk), np.clip(dust + stroke * 0.6, 0, 1))
    return Surface(color, grain * np.float32(0.1), np.clip(0.82 + dust * 0.4, 0, 1), 0.0, 0.001)


def porous(tile: Tile, *, colors: Sequence[str], scales: Sequence[int], inside: str, roughness: float) -> Surface:
    """Return a body full of holes of several sizes: sponge, foam, coral, pumice."""
    height = np.ones((tile.size_px, tile.size_px), np.float32)
    for number, cells in enumerate(scales):
        holes = voronoi(
            tile, f"holes{number}", cells, 1.0, False, warped(tile, f"h{number}", 0.15 / cells, cells * 2, 2)
        )
        radius = per_cell(tile, f"radius{number}", holes, 0.12, 0.5)
        pit = smooth(1.0, 0.45, holes.f1 / radius)
        height = np.minimum(height, 1 - pit * np.float32((scales[0] / cells) ** 0.5))
    fine = fbm(tile, "fine", 40, 3, 0.7)
    cloud = fbm(tile, "cloud", 4, 4)
    color = tint(ramp(unit(cloud * 0.6 + fine * 0.4), colors), 1 + fine * np.float32(0.05))
    color = mix(rgb(inside), color, smooth(0.1, 0.95, height))
    return Surface(color, height + fine * np.float32(0.03), roughness, 0.0, 0.04)


def wallpaper(tile: Tile, *, ground: str, print_color: str, repeats: int, metallic: float = 0.0) -> Surface:
    """Return embossed damask wallpaper: a mirrored leaf ornament in staggered columns."""
    fine = fbm(tile, "fine", 64, 2, 0.8)
    xs, ys = tile.x * np.float32(repeats), tile.y * np.float32(repeats)
    column = np.floor(xs)
    u = np.abs(xs - column - 0.5) * 2  # mirrored about the axis of a column
    v = (ys + np.where(column % 2 == 0, 0.0, 0.5)) % 1.0 * 2 - 1
    soft = repeats * tile.pixel * 2.5

    def leaf(cu: float, cv: float, angle: float, length: float, width: float) -> np.ndarray:
        c, s = np.cos(angle), np.sin(angle)
        a = (u - cu) * c + (v - cv) * s
        b = -(u - cu) * s + (v - cv) * c
        bow = b - np.float32(0.35) * (a * a) / np.float32(length)
        return np.abs(bow) / np.float32(width) + (a / np.float32(length)) ** 2 - 1

    shapes = [
        leaf(0.0, -0.05, 1.5708, 0.5, 0.13),
        leaf(0.3, 0.1, 1.1, 0.38, 0.1),
        leaf(0.42, -0.28, 0.5, 0.36, 0.09),
        leaf(0.25, 0.55, 0.2, 0.3, 0.08),
        leaf(0.68, 0.3, 1.9, 0.28, 0.07),
        leaf(0.2, -0.62, -0.5, 0.25, 0.07),
        leaf(0.75, -0.6, 1.2, 0.3, 0.07),
    ]
    field = np.minimum.reduce(shapes)
    dots = np.hypot(u - 0.92, v - 0.85) / np.float32(0.07) - 1
    mask = smooth(soft * 4, -soft * 4, np.minimum(field, dots))
    paper = tint(rgb(ground), 1 + fine * np.float32(0.025))
    ink = tint(rgb(print_color), 1 + fine * np.float32(0.04))
    rough = 0.75 - mask * np.float32(0.3)
    return Surface(
        mix(paper, ink, mask), mask * np.float32(0.5) + fine * 0.04, rough, mask * np.float32(metallic), 0.004
    )
