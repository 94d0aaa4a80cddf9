"""Cast, trowelled and moulded surfaces: concrete, plaster, plastics, and the miscellaneous rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megasynth_attr.textures.procedural.noise import Array, Tile, fbm, perlin, unit, voronoi, warped
from megasynth_attr.textures.procedural.patterns import bricks, centred, per_cell, per_index
from megasynth_attr.textures.surface import Surface, mix, pick, ramp, rgb, smooth, tint


def _pores(tile: Tile, label: str, cells: int, share: float, size: float) -> Array:
    """Return small round holes 0 … 1 of random radius; ``share`` of the lattice cells have one."""
    spots = voronoi(tile, label, cells, 0.8)
    radius = per_cell(tile, f"{label}/radius", spots, 0.3 * size, size)
    keep = per_cell(tile, f"{label}/keep", spots) < share
    return np.asarray(np.clip((radius - spots.f1) / (0.5 * radius) + 0.3, 0, 1) * keep, np.float32)


def cast(
    tile: Tile,
    *,
    colors: Sequence[str],
    pores: tuple[int, float, float] | None = None,  # cells, share, size
    panels: tuple[int, int, bool] | None = None,  # columns, rows, with tie holes
    planks: int = 0,  # board marks of the formwork, boards per tile
    cracks: float = 0.0,
    stains: tuple[str, float] | None = None,
    lumps: float = 0.15,
    roughness: float = 0.8,
    relief: float = 0.012,
) -> Surface:
    """Return concrete or cement: clouded, with pores, formwork joints and tie holes, board marks, cracks, stains."""
    cloud = fbm(tile, "cloud", 3, 6, 0.6)
    fine = fbm(tile, "fine", 40, 4, 0.75)
    lump = fbm(tile, "lumps", 6, 5, 0.5)
    light = fine * np.float32(0.05)
    height = lump * np.float32(lumps) + fine * np.float32(0.03)
    tone = unit(cloud * 0.7 + fine * 0.3, 0.2)
    if planks:
        row = np.floor(tile.y * np.float32(planks)).astype(np.int64) % planks
        v = tile.y * np.float32(planks) - np.floor(tile.y * np.float32(planks))
        fibre = fbm(tile, "boards", (3, 64), 4, 0.65)
        tone = tone + per_index(tile, "board", row, planks, -0.18, 0.18) + fibre * np.float32(0.06)
        seam = smooth(0.05, 0.0, np.minimum(v, 1 - v))
        height = height + per_index(tile, "level", row, planks, -0.35, 0.35) + fibre * np.float32(0.08) + seam * 0.3
        light = light - seam * np.float32(0.12)
    color = ramp(np.clip(tone, 0, 1), colors)
    if pores:
        holes = _pores(tile, "pores", *pores)
        height, light = height - holes * np.float32(0.6), light - holes * np.float32(0.35)
    if panels:
        columns, rows, ties = panels
        cells = bricks(tile, columns, rows, 0.0)
        groove = smooth(0.006, 0.002, cells.edge)
        height, light = height - groove * np.float32(1.2), light - groove * np.float32(0.35)
        light = light + per_cell(tile, "panel", cells, -0.05, 0.05)
        if ties:
            du, dv = (np.abs(cells.u - 0.5) - 0.28) / columns, (np.abs(cells.v - 0.5) - 0.28) / rows
            d = np.hypot(du, dv)
            hole = smooth(0.017, 0.013, d)
            ring = smooth(0.006, 0.0, np.abs(d - 0.021))
            height = height - hole * np.float32(2.2) - ring * np.float32(0.15)
            light = light - hole * np.float32(0.5) - ring * np.float32(0.1)
    if cracks:
        at = warped(tile, "cracks", 0.05, 5, 5)
        crack = voronoi(tile, "cracks", 3, 1.0, False, at)
        line = smooth(0.014, 0.003, crack.border) * smooth(0.45, 0.55, unit(fbm(tile, "where", 4, 4)))
        height, light = height - line * np.float32(cracks * 1.5), light - line * np.float32(0.55 * cracks)
    color = tint(color, 1 + light)
    rough = np.clip(roughness + cloud * np.float32(0.05) + fine * np.float32(0.02), 0.1, 1)
    if stains:
        drip = fbm(tile, "drips", (10, 2), 4, 0.6) * 0.7 + fbm(tile, "stain", 3, 5, 0.6) * 0.6
        wet = smooth(0.3, 1.6, drip) * np.float32(stains[1])
        color, rough = mix(color, rgb(stains[0]), wet), rough - wet * np.float32(0.15)
    return Surface(color, height, rough, 0.0, relief)


def stucco(
    tile: Tile,
    *,
    colors: Sequence[str],
    style: str,  # "sprayed", "trowelled", "combed", "popcorn", "swirls"
    scale: int,
    roughness: float = 0.9,
    relief: float = 0.02,
    dirt: tuple[str, float] | None = None,
) -> Surface:
    """Return plaster in one of several techniques."""
    fine = fbm(tile, "fine", 48, 3, 0.75)
    cloud = fbm(tile, "cloud", 3, 5)
    gloss = np.zeros_like(fine)
    if style == "sprayed":
        blob = fbm(tile, "blob", scale, 4, 0.55)
        height = smooth(-0.5, 1.6, blob) + fine * np.float32(0.06)
    elif style == "popcorn":
        grains = voronoi(tile, "grains", scale, 1.0, False, warped(tile, "grains", 0.2 / scale, scale, 2))
        size = per_cell(tile, "size", grains, 0.3, 1.0)
        height = np.sqrt(np.clip(1 - (grains.f1 / (0.75 * size)) ** 2, 0, 1)) * size + fine * np.float32(0.05)
    elif style == "combed":
        bend = fbm(tile, "bend", (2, 3), 3) * np.float32(0.6)
        phase = tile.y * np.float32(scale) + bend
        height = np.abs((phase - np.floor(phase)) * 2 - 1) ** 0.8 + fine * np.float32(0.07)
    elif style == "swirls":
        fans = voronoi(tile, "fans", scale, 0.6, True)
        start = per_cell(tile, "phase", fans, 0, 6.28)
        spiral = np.hypot(fans.dx, fans.dy) * 34 + np.arctan2(fans.dy, fans.dx) + start
        height = (np.sin(spiral) * 0.5 + 0.5) * smooth(0.0, 0.15, fans.border) + fine * np.float32(0.06)
    elif style == "trowelled":  # overlapping broad strokes, each a slightly tilted, polished plane
        height = np.zeros_like(fine)
        for k in range(3):
            strokes = voronoi(tile, f"strokes{k}", scale + k, 1.0, False, warped(tile, f"strokes{k}", 0.05, 5, 4))
            tilt_x = per_cell(tile, f"tx{k}", strokes, -1, 1)
            tilt_y = per_cell(tile, f"ty{k}", strokes, -1, 1)
            height += (strokes.dx * tilt_x + strokes.dy * tilt_y) * np.float32(0.25)
            cloud = cloud * 0.9 + per_cell(tile, f"tone{k}", strokes, -0.9, 0.9)
        gloss = unit(cloud) * np.float32(0.25)
        height += fine * np.float32(0.015)
    else:
        raise ValueError(f"unknown style {style!r}")
    tone = unit(cloud * 0.6 + (height - height.mean()) * 1.6, 0.2)
    color = tint(ramp(tone, colors), 1 + fine * np.float32(0.025))
    rough = np.clip(roughness - gloss + fine * np.float32(0.02), 0.1, 1)
    if dirt:
        stain = smooth(0.2, 1.7, fbm(tile, "dirt", (8, 2), 5, 0.6) - (height - 0.5) * 0.5) * np.float32(dirt[1])
        color = mix(color, rgb(dirt[0]), stain)
    return Surface(color, height, rough, 0.0, relief)


def peeling(
    tile: Tile, *, coats: Sequence[str], under: Sequence[str], left: float, bricks_below: tuple[int, int] | None = None
) -> Surface:
    """Return old wall paint in several coats that flake off in patches and show plaster or brick below."""
    fine = fbm(tile, "fine", 40, 4, 0.7)
    cloud = fbm(tile, "cloud", 4, 5)
    color = tint(ramp(unit(cloud + fine * 0.5), under), 1 + fine * np.float32(0.06))
    height = fine * np.float32(0.06)
    if bricks_below:
        wall = bricks(tile, *bricks_below, 0.5, at=warped(tile, "wall", 0.003, 12))
        face = smooth(0.004, 0.012, wall.edge)
        each = per_cell(tile, "brick", wall, 0.8, 1.15)
        color = mix(rgb("#b5aa99"), tint(color, each), face)
        height = height + face * np.float32(0.4)
    rough = np.full_like(fine, 0.92)
    at = warped(tile, "flakes", 0.05, 5, 5)
    field = fbm(tile, "field", 3, 6, 0.6, at=at)
    for number, hue in enumerate(coats):
        limit = float(np.quantile(field, 1 - left * (0.8**number)))
        inner = field + fbm(tile, f"ragged{number}", 24, 3) * np.float32(0.12)
        mask = smooth(limit - 0.03, limit + 0.05, inner)
        lip = smooth(0.22, 0.0, np.abs(inner - limit - 0.1)) * mask
        coat = tint(rgb(hue), 1 + cloud * np.float32(0.03) + lip * np.float32(0.06))
        color = mix(tint(color, 1 - 0.3 * smooth(limit - 0.3, limit, inner)), coat, mask)
        height = height * (1 - mask * 0.85) + mask * np.float32(0.55 + 0.15 * number) + lip * np.float32(0.12)
        rough = mix(rough, 0.6, mask)
    return Surface(color, height, rough, 0.0, 0.014)


def _motif(tile: Tile, motif: str, repeats: int, colors: Sequence[str]) -> tuple[Array, Array]:
    """Return the colour (N, N, 3) and the height, about 0 … 1, of a motif of ``repeats``² squares."""
    r = np.float32(repeats)
    xs, ys = tile.x * r, tile.y * r
    u, v = centred(xs), centred(ys)
    i, j = np.floor(xs).astype(np.int64) % repeats, np.floor(ys).astype(np.int64) % repeats
    index = np.zeros_like(i)
    staggered = xs + np.where(j % 2 == 0, 0.0, 0.5).astype(np.float32)  # every other row is moved by half a square
    if motif == "checker":
        index = (i + j) % len(colors)
        height = smooth(0.0, 0.05, 0.5 - np.maximum(np.abs(u), np.abs(v)))
    elif motif == "stripes":
        p = xs + ys
        index = np.floor(p).astype(np.int64) % len(colors)
        height = smooth(0.0, 0.06, 0.5 - np.abs(centred(p)))
    elif motif == "dots":
        d, soft = np.hypot(centred(staggered), v), repeats * tile.pixel * 1.2
        hue = (np.floor(staggered).astype(np.int64) % repeats + 2 * j) % max(1, len(colors) - 1)
        color = mix(rgb(colors[0]), pick(colors[1:], hue), smooth(0.3 + soft, 0.3 - soft, d))
        return color, smooth(0.33, 0.26, d)
    elif motif == "studs":
        d = np.hypot(u, v)
        height = smooth(0.32, 0.29, d) + 0.12 * smooth(0.03, 0.0, np.abs(d - 0.2))
        height = height + smooth(0.0, 0.02, 0.5 - np.maximum(np.abs(u), np.abs(v))) * np.float32(0.08)
        index = ((i // 4) % 2 + (j // 2) * 3 + ((i // 4) * (j // 2)) % 5) % len(colors)
    elif motif == "grip":
        ridge = np.minimum(np.abs(centred(xs + ys)), np.abs(centred(xs - ys)))
        height = smooth(0.15, 1.0, ridge * np.float32(4))
    elif motif == "bubbles":
        d = np.hypot(centred(staggered), v) / np.float32(0.46)
        height = np.sqrt(np.clip(1 - d * d, 0, 1))
        index = (np.floor(staggered).astype(np.int64) + j) % len(colors)
    elif motif == "waves":
        p = ys + np.sin(xs * np.float32(2 * np.pi)) * np.float32(0.22)
        index = np.floor(p).astype(np.int64) % len(colors)
        height = smooth(0.0, 0.3, 0.5 - np.abs(centred(p)))
    else:
        raise ValueError(f"unknown motif {motif!r}")
    return pick(colors, index), height


def moulded(
    tile: Tile,
    *,
    colors: Sequence[str],
    motif: str,  # "checker", "stripes", "dots", "studs", "grip", "bubbles", "waves"
    repeats: int,
    roughness: float,
    grain: float = 0.0,  # fine moulded grain
    scratches: float = 0.2,
    height_of: float = 1.0,
    relief: float = 0.015,
) -> Surface:
    """Return coloured plastic or rubber with a printed or moulded motif."""
    color, height = _motif(tile, motif, repeats, colors)
    cloud = fbm(tile, "cloud", 4, 5)
    fine = fbm(tile, "grain", 72, 2, 0.8)
    at = warped(tile, "scratch", 0.05, 3, 2)
    line = smooth(1.2, 1.33, fbm(tile, "scratch", 7, 1, kind="ridged", at=at)) * np.float32(scratches)
    color = tint(color, 1 + cloud * np.float32(0.015) + fine * np.float32(grain * 0.15))
    rough = np.clip(roughness + cloud * np.float32(0.03) + line * 0.3 + (1 - np.clip(height, 0, 1)) * 0.05, 0.05, 1)
    body = height * np.float32(height_of) + fine * np.float32(grain) - line * np.float32(0.03)
    return Surface(color, body, rough, 0.0, relief)


def swirl(tile: Tile, *, colors: Sequence[str], warp: float, bands: int, roughness: float) -> Surface:
    """Return poured or marbled resin: flowing bands of colour, perfectly smooth."""
    at = warped(tile, "one", warp, 2, 3)
    again = fbm(tile, "two-x", 3, 3, at=at), fbm(tile, "two-y", 3, 3, at=at)
    at = (at[0] + again[0] * np.float32(0.3 * warp), at[1] + again[1] * np.float32(0.3 * warp))
    phase = fbm(tile, "bands", 2, 3, 0.4, at=at) * np.float32(0.5 * bands)
    wave = np.abs((phase - np.floor(phase)) * 2 - 1)
    color = ramp(wave, colors)
    mica = smooth(1.6, 2.4, perlin(tile, "mica", 96, 96))
    return Surface(mix(color, rgb("#fff6e0"), mica * np.float32(0.25)), wave * np.float32(0.05), roughness, 0.0, 0.004)


def confetti(
    tile: Tile, *, ground: str, colors: Sequence[str], pieces: int, layers: int, metallic: float, roughness: float
) -> Surface:
    """Return flakes scattered in layers: glitter (metallic 1), rubber granulate, sprinkles."""
    fine = fbm(tile, "fine", 48, 2)
    color = tint(rgb(ground), 1 + fine * np.float32(0.05))
    height = fine * np.float32(0.03)
    rough = np.full_like(fine, min(1.0, roughness + 0.25))
    metal = np.zeros_like(fine)
    for k in range(layers):
        flake = voronoi(tile, f"flake{k}", pieces, 0.9, True)
        keep = per_cell(tile, f"keep{k}", flake) < 0.7
        inset = per_cell(tile, f"inset{k}", flake, 0.06, 0.2)
        soft = max(0.015, 0.75 * pieces * tile.pixel)
        mask = smooth(0.015 - soft, 0.015 + soft, flake.border - inset) * keep
        hue = per_cell(tile, f"hue{k}", flake)
        paint = pick(colors, (hue * len(colors)).astype(np.int64))
        paint = tint(paint, per_cell(tile, f"light{k}", flake, 0.8, 1.1))
        lean = flake.dx * (hue - 0.5) * 1.5 + flake.dy * ((hue * 9.7) % 1 - 0.5) * 1.5
        color, metal = mix(color, paint, mask), mix(metal, metallic, mask)
        height = mix(height, np.float32(0.3 + 0.1 * k) + lean * np.float32(0.5), mask)
        rough = mix(rough, np.clip(roughness + (hue - 0.5) * 0.2, 0.05, 1), mask)
    return Surface(color, height, rough, metal, 0.25 / pieces)
