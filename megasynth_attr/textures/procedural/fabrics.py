"""Cloth and leather: weaves, knits, pile, quilting, hide grain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megasynth_attr.textures.procedural.noise import Array, Tile, fbm, unit, voronoi, warped
from megasynth_attr.textures.procedural.patterns import centred, per_cell, per_index, weave
from megasynth_attr.textures.surface import Surface, mix, pick, ramp, rgb, smooth, tint

PATTERNS: dict[str, list[list[int]]] = {
    "plain": [[1, 0], [0, 1]],
    "basket": [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]],
    "twill": [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]],
    "denim": [[1, 1, 0], [0, 1, 1], [1, 0, 1]],
    "satin": [[1, 1, 1, 1, 0], [1, 1, 0, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 0, 1], [1, 0, 1, 1, 1]],
    "chevron": [
        [1, 1, 0, 0, 0, 0, 1, 1],
        [0, 1, 1, 0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0, 0, 1],
    ],
}


def woven(
    tile: Tile,
    *,
    pattern: str,
    threads: tuple[int, int],  # running down, running across
    warp_colors: Sequence[str],  # the sequence of coloured threads, repeated
    weft_colors: Sequence[str],
    slub: float = 0.15,  # uneven thickness and colour along a thread
    twist: float = 0.1,  # visible twist of the yarn
    wobble: float = 0.0012,
    hole: str | None = None,  # colour seen between loose threads
    fuzz: float = 0.06,
    wear: tuple[str, float] | None = None,  # colour and strength of worn, faded areas
    roughness: float = 0.88,
    metallic: float = 0.0,
    relief: float | None = None,
) -> Surface:
    """Return a cloth of coloured threads in a named weave."""
    warps, wefts = threads
    at = warped(tile, "threads", wobble, 10) if wobble else None
    cloth = weave(tile, PATTERNS[pattern], warps, wefts, at)
    on_top = cloth.warp_on_top
    color = mix(pick(weft_colors, cloth.weft), pick(warp_colors, cloth.warp), on_top)
    along_warp = per_index(tile, "warp", cloth.warp, warps, -1, 1) + fbm(tile, "warp-slub", (warps, 8), 2)
    along_weft = per_index(tile, "weft", cloth.weft, wefts, -1, 1) + fbm(tile, "weft-slub", (8, wefts), 2)
    uneven = mix(along_weft, along_warp, on_top)
    phase = cloth.along * np.float32(3.0) + cloth.across * np.float32(0.9)
    strand = np.sin(phase * np.float32(2 * np.pi))
    hair = fbm(tile, "fuzz", 96, 2, 0.8)
    deep = smooth(0.1, 0.75, cloth.height)
    light = 0.62 + 0.38 * deep + uneven * np.float32(slub * 0.5) + strand * np.float32(twist * 0.5)
    color = tint(color, light + hair * np.float32(fuzz))
    if hole:
        gap = smooth(0.42, 0.3, cloth.height)
        color = mix(color, rgb(hole), gap)
    if wear:
        old = unit(fbm(tile, "wear", 4, 6, 0.6)) * (0.5 + 0.5 * deep)
        color = mix(color, rgb(wear[0]), smooth(0.2, 0.9, old) * np.float32(wear[1]))
    height = cloth.height + uneven * np.float32(slub * 0.12) + strand * np.float32(twist * 0.12)
    rough = np.clip(roughness + hair * np.float32(0.03) - deep * np.float32(0.03), 0.1, 1)
    return Surface(color, height, rough, metallic, relief or 0.45 / max(warps, wefts))


def _yarn(tile: Tile, label: str, across: Array, along: Array) -> Array:
    """Return the brightness of a twisted yarn: fine slanted plies, zero mean."""
    plies = np.sin((along * 2.2 + across * 1.1) * np.float32(2 * np.pi))
    return plies * np.float32(0.5) + fbm(tile, label, 96, 2, 0.8) * np.float32(0.5)


def knitted(
    tile: Tile, *, columns: int, rows: int, colors: Sequence[str], chart: Sequence[str] = ("0",), rib: int = 0
) -> Surface:
    """Return a stocking-stitch knit: columns of V-shaped stitches, coloured by a ``chart`` of digits, rows × columns.

    ``rib`` > 0 sinks every second group of ``rib`` columns.
    """
    x, y = warped(tile, "loops", 0.0015, 8)
    xs = x * np.float32(columns)
    column_f = np.floor(xs)
    u = np.abs((xs - column_f) * 2 - 1)  # 0 in the middle of the V, 1 between columns
    ys = y * np.float32(rows) + u * np.float32(0.75)
    row_f = np.floor(ys)
    v = ys - row_f
    column, row = column_f.astype(np.int64) % columns, row_f.astype(np.int64) % rows
    leg = np.sqrt(np.maximum(1 - ((u - 0.5) / 0.52) ** 2, 0))
    round_ = np.sqrt(np.maximum(1 - (2 * v - 1) ** 2, 0))
    height = leg * np.float32(0.55) + round_ * leg * np.float32(0.6)
    codes = np.array([[int(c) for c in line] for line in chart])
    index = codes[row % codes.shape[0], column % codes.shape[1]]
    yarn = _yarn(tile, "yarn", (2 * v - 1), u * np.float32(1.5))
    uneven = fbm(tile, "uneven", (columns, rows), 2)
    color = tint(pick(colors, index), 0.5 + 0.5 * smooth(0.1, 0.9, height) + yarn * 0.09 + uneven * np.float32(0.04))
    height = height + yarn * np.float32(0.06)
    if rib:
        group = (xs / np.float32(2 * rib)) % 1.0
        wave = smooth(0.05, 0.25, np.abs(group - 0.5) * 2 * 0.5)
        height = height + wave * np.float32(1.2)
        color = tint(color, 0.6 + 0.4 * wave)
    return Surface(color, height, np.full_like(height, 0.92), 0.0, 0.5 / columns)


def pile(
    tile: Tile,
    *,
    tufts: int,
    colors: Sequence[str],
    length: float = 1.0,  # how deep the gaps between the tufts are
    pattern: str = "plain",  # "plain" or "rings": a large design knotted into the pile
    relief: float = 0.02,
    roughness: float = 0.96,
    sheen: float = 0.0,
) -> Surface:
    """Return upright pile: carpet loops, towel, velvet nap."""
    at = warped(tile, "lean", 0.006, 8, 3)
    loops = voronoi(tile, "loops", tufts, 0.8, True, at)
    dome = np.clip(1 - loops.f1 * loops.f1 * 2.2, 0, 1)
    nap = fbm(tile, "nap", 4, 4, 0.55)
    hair = fbm(tile, "hair", 96, 2, 0.8)
    if pattern == "rings":
        cx = (loops.cell % tufts + 0.5) / tufts
        cy = (loops.cell // tufts + 0.5) / tufts
        dist = np.hypot((cx * 2) % 1 - 0.5, (cy * 2) % 1 - 0.5)
        index = np.clip(dist * 1.4 * len(colors), 0, len(colors) - 1).astype(np.int64)
        color = pick(colors, index)
    else:
        color = ramp(per_cell(tile, "tuft", loops) * 0.7 + unit(nap, 0.12) * 0.3, colors)
    depth = np.float32(1 - 0.5 * length) + np.float32(0.5 * length) * dome
    light = depth + hair * np.float32(0.08) + nap * np.float32(0.05 + sheen)
    height = dome * np.float32(length) + hair * np.float32(0.1) + nap * np.float32(0.1)
    return Surface(tint(color, light), height, np.clip(roughness + nap * np.float32(0.03), 0, 1), 0.0, relief)


def corduroy(tile: Tile, *, wales: int, colors: Sequence[str], relief: float) -> Surface:
    """Return ridged cloth whose wales run down the image."""
    x, _ = warped(tile, "wales", 0.0015, 6)
    phase = x * np.float32(wales)
    wale = np.floor(phase).astype(np.int64) % wales
    profile = np.sqrt(np.maximum(1 - (2 * (phase - np.floor(phase)) - 1) ** 2, 0))
    tufts = fbm(tile, "tufts", (wales, 160), 1)
    nap = fbm(tile, "nap", (8, 3), 4)
    tone = np.clip(0.2 + 0.55 * profile + nap * 0.1 + per_index(tile, "wale", wale, wales, -0.08, 0.08), 0, 1)
    color = tint(ramp(tone, colors), 1 + tufts * np.float32(0.06))
    return Surface(color, profile + tufts * np.float32(0.06), np.clip(0.92 - profile * 0.08, 0, 1), 0.0, relief)


def felt(tile: Tile, *, colors: Sequence[str], fibres: float = 0.1) -> Surface:
    """Return matted fibres: ridged noise stretched along several directions by shearing the domain."""
    total = np.zeros((tile.size_px, tile.size_px), np.float32)
    wx, wy = warped(tile, "curl", 0.02, 5, 3)
    for k, (a, b) in enumerate(((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))):
        at = (wx + np.float32(a) * wy, wy + np.float32(b) * wx)
        period = (8, 72) if b == 0 else (72, 8)
        total = np.maximum(total, smooth(0.5, 1.25, fbm(tile, f"fibre{k}", period, 1, kind="ridged", at=at)))
    cloud = fbm(tile, "cloud", 6, 5, 0.6)
    grain = fbm(tile, "grain", 64, 2, 0.8)
    color = ramp(unit(cloud, 0.12) + (total - 0.4) * np.float32(fibres) + grain * np.float32(0.05), colors)
    return Surface(color, total * np.float32(0.6) + grain * np.float32(0.2) + cloud * 0.2, 0.97, 0.0, 0.004)


def hide(
    tile: Tile,
    *,
    cells: int,
    colors: Sequence[str],
    crease: float = 0.5,  # how deep the creases between the pebbles are
    wrinkles: float = 0.3,
    plates: bool = False,  # large flat plates (crocodile) instead of pebbles
    quilt: tuple[int, str] | None = None,  # diamonds per tile and colour of the stitches
    roughness: float = 0.45,
    wear: float = 0.25,
    relief: float = 0.008,
) -> Surface:
    """Return leather: pebbled grain, long wrinkles, worn high spots, optionally quilted with stitched seams."""
    at = warped(tile, "grain", 0.012 if not plates else 0.008, 6, 4 if not plates else 2)
    shape = (cells, cells * 3 // 2) if plates else (cells, cells)
    big = voronoi(tile, "pebbles", shape, 0.85 if not plates else 0.45, plates, at)
    fine = voronoi(tile, "fine", cells * 2, 0.9, False, at)
    width = 0.22 if plates else 0.3
    small = np.float32(0.06 if plates else 0.3)
    pebble = smooth(0.0, width, big.border) * (1 - small) + smooth(0.0, 0.35, fine.border) * small
    if plates:
        pebble = pebble * (0.75 + 0.25 * np.sqrt(np.clip(big.border * 2, 0, 1)))  # plates bulge
    fold = smooth(0.9, 1.45, fbm(tile, "folds", 4, 4, 0.5, kind="ridged", at=at))
    cloud = fbm(tile, "cloud", 4, 5, 0.6)
    pores = fbm(tile, "pores", 80, 2, 0.8)
    height = pebble * np.float32(crease) - fold * np.float32(wrinkles) + pores * np.float32(0.03) + cloud * 0.08
    each = per_cell(tile, "plate", big, -0.12, 0.12) if plates else 0.0
    tone = np.clip(unit(cloud, 0.1 + 0.1 * wear) + (pebble - 0.6) * np.float32(wear) + each - fold * 0.25, 0, 1)
    color = tint(ramp(tone, colors), 0.78 + 0.22 * pebble + pores * np.float32(0.02))
    rough = np.clip(roughness + (1 - pebble) * 0.25 + cloud * np.float32(0.04), 0.08, 1)
    if quilt:
        count, thread = quilt
        p, q = (tile.x + tile.y) * np.float32(count), (tile.x - tile.y) * np.float32(count)
        dp, dq = np.abs(centred(p)), np.abs(centred(q))
        seam = 0.5 - np.maximum(dp, dq)  # 0 on a seam, 0.5 in the middle of a diamond
        cushion = np.sqrt(np.clip((0.5 - dp) * (0.5 - dq) * 4, 0, 1))
        height = height * np.float32(0.12) + cushion * np.float32(1.6)
        color = tint(color, 0.72 + 0.28 * smooth(0.0, 0.3, cushion))
        run = np.where(dp > dq, q, p) * np.float32(9)
        stitch = smooth(0.038, 0.018, seam) * smooth(0.42, 0.3, np.abs(centred(run)))
        color, height = mix(color, rgb(thread), stitch), height + stitch * np.float32(0.12)
    return Surface(color, height, rough, 0.0, relief)


def braid(
    tile: Tile, *, strips: int, colors: Sequence[str], pattern: str = "plain", roughness: float = 0.45
) -> Surface:
    """Return wide flat strips woven into each other: wicker, rattan, woven leather."""
    cloth = weave(tile, PATTERNS[pattern], strips, strips)
    lines = np.sin(cloth.across * np.float32(3.0 * np.pi)) * np.float32(0.5)
    grain = mix(fbm(tile, "g-across", (8, 96), 2), fbm(tile, "g-down", (96, 8), 2), cloth.warp_on_top)
    each = mix(
        per_index(tile, "weft", cloth.weft, strips),
        per_index(tile, "warp", cloth.warp, strips),
        cloth.warp_on_top,
    )
    color = ramp(np.clip(each * 0.6 + 0.2 + grain * 0.08, 0, 1), colors)
    color = tint(color, 0.35 + 0.65 * smooth(0.15, 0.75, cloth.height) + lines * 0.05)
    height = cloth.height + lines * np.float32(0.02) + grain * np.float32(0.02)
    return Surface(color, height, np.clip(roughness + grain * np.float32(0.05), 0, 1), 0.0, 0.4 / strips)
