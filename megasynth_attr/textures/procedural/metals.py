"""Metals: brushed, hammered, rusted, painted, plates with a relief, sheets with holes, foil."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megasynth_attr.textures.procedural.noise import Array, Tile, fbm, unit, voronoi, warped
from megasynth_attr.textures.procedural.patterns import bricks, centred, per_cell
from megasynth_attr.textures.surface import Surface, mix, ramp, rgb, smooth, tint


def brushed(tile: Tile, *, color: str, roughness: float, strength: float = 1.0, stain: float = 0.0) -> Surface:
    """Return metal with fine parallel scratches along x, a few longer marks and faint stains."""
    lines = fbm(tile, "lines", (2, 160), 2, 0.9) * np.float32(0.7) + fbm(tile, "broad", (2, 24), 3, 0.7) * 0.5
    at = warped(tile, "scratch", 0.02, 3, 2)
    marks = smooth(1.15, 1.33, fbm(tile, "marks", (1, 18), 1, kind="ridged", at=at)) * np.float32(0.3)
    cloud = fbm(tile, "cloud", 3, 4)
    paint = tint(rgb(color), 1 + lines * np.float32(0.05 * strength) + cloud * np.float32(0.015))
    rough = np.clip(roughness + lines * np.float32(0.07 * strength) + marks * 0.15, 0.05, 1)
    if stain:
        old = smooth(0.5, 0.85, unit(fbm(tile, "stain", 4, 5, 0.6))) * np.float32(stain)
        paint, rough = tint(paint, 1 - old * np.float32(0.35)), rough + old * np.float32(0.25)
    height = lines * np.float32(0.12 * strength) - marks * np.float32(0.4)
    return Surface(paint, height, rough, 1.0, 0.0012)


def hammered(
    tile: Tile,
    *,
    color: str,
    dents: int,
    roughness: float,
    patina: tuple[str, float] | None = None,
) -> Surface:
    """Return beaten metal: overlapping round dents, bright rims, patina in the hollows."""
    at = warped(tile, "dents", 0.006, 8, 2)
    hits = voronoi(tile, "hits", dents, 0.85, True, at)
    bowl = np.clip(hits.f1, 0, 1) ** 2
    rim = smooth(0.14, 0.0, hits.border)
    fine = fbm(tile, "fine", 32, 3)
    paint = tint(rgb(color), 0.9 + rim * np.float32(0.12) + fine * np.float32(0.025))
    rough = np.clip(roughness + fine * np.float32(0.05) - rim * np.float32(0.05), 0.05, 1)
    metal = np.ones_like(rough)
    if patina:
        where = smooth(0.45, 0.75, unit(fbm(tile, "patina", 4, 6, 0.65)) + (1 - bowl) * 0.12) * np.float32(patina[1])
        paint = mix(paint, tint(rgb(patina[0]), 1 + fine * np.float32(0.1)), where)
        rough, metal = rough + where * np.float32(0.4), 1 - where * np.float32(0.8)
    level = per_cell(tile, "level", hits, -0.1, 0.1) * (1 - rim)
    return Surface(paint, bowl + level * 0.3 + fine * np.float32(0.01), np.clip(rough, 0, 1), metal, 0.02)


def corroded(
    tile: Tile,
    *,
    base: str,
    base_metallic: float,
    base_roughness: float,
    rust: Sequence[str],
    amount: float,  # share of the surface that is corroded
    flake: float = 0.0,  # > 0: the base is a coat of paint of this thickness that flakes off
    streaks: float = 0.0,  # corrosion runs down the image
) -> Surface:
    """Return metal or painted metal under corrosion: rust, verdigris, flaking paint."""
    at = warped(tile, "rust", 0.06, 4, 4)
    field = fbm(tile, "field", 3, 7, 0.62, at=at)
    if streaks:
        field = field + fbm(tile, "streak", (16, 2), 4, 0.6) * np.float32(streaks)
    limit = float(np.quantile(field, 1 - amount))
    width = 0.06 if flake else 0.5
    mask = smooth(limit - width, limit + width, field)
    deep = np.clip((field - limit) * 0.45, 0, 1)
    fine = fbm(tile, "fine", 24, 5, 0.7)
    scale = fbm(tile, "scale", 12, 4, 0.6)
    oxide = ramp(np.clip(0.25 + deep * 0.5 + fine * np.float32(0.14), 0, 1), rust)
    coat = tint(rgb(base), 1 + scale * np.float32(0.025) + fine * np.float32(0.02))
    halo = smooth(limit - 0.9, limit, field) * np.float32(0.3)
    coat = mix(coat, rgb(rust[len(rust) // 2]), halo * (0.4 + 0.6 * unit(fine)))
    color = mix(coat, oxide, mask)
    rough = mix(np.clip(base_roughness + scale * np.float32(0.05), 0.05, 1), np.clip(0.88 + fine * 0.04, 0, 1), mask)
    metal = mix(base_metallic, 0.12, mask)
    crust = mask * (fine * np.float32(0.2) + np.float32(0.1))
    height = crust - mask * np.float32(flake) + (1 - mask) * scale * np.float32(0.03)
    if flake:  # the edge of the paint curls up a little
        height = height + smooth(0.25, 0.0, np.abs(field - limit + 0.12)) * (1 - mask) * np.float32(0.4 * flake)
    return Surface(color, height, rough, metal, 0.012)


def _pressed(tile: Tile, motif: str, repeats: int) -> tuple[Array, Array, Array]:
    """Return the height of a motif, its fine brightness (about unit deviation) and where it has holes, 0 … 1."""
    r = np.float32(repeats)
    xs, ys = tile.x * r, tile.y * r
    u, v = centred(xs), centred(ys)
    fine = fbm(tile, "fine", 24, 4, 0.65)
    hole = np.zeros_like(u)
    if motif == "diamond":
        side = np.where((np.floor(xs) + np.floor(ys)) % 2 == 0, 1.0, -1.0).astype(np.float32)
        a, b = (u + side * v) * np.float32(0.7071), (u - side * v) * np.float32(0.7071)
        height = smooth(1.0, 0.75, np.sqrt((a / 0.42) ** 2 + (b / 0.13) ** 2))
    elif motif in ("studs", "holes"):
        shift = np.where(np.floor(ys) % 2 == 0, 0.0, 0.5).astype(np.float32)
        d = np.hypot(centred(xs + shift), v)
        height = smooth(0.36, 0.28, d) * np.float32(0.5) + np.sqrt(np.clip(1 - (d / 0.3) ** 2, 0, 1)) * np.float32(0.5)
        if motif == "holes":
            soft = repeats * tile.pixel * 1.5
            hole = smooth(0.3 + soft, 0.3 - soft, d)
            height = smooth(0.28, 0.4, d)
    elif motif == "rivets":
        cells = bricks(tile, repeats, repeats, 0.5)
        seam = smooth(0.002, 0.006 + 2 * tile.pixel, cells.edge)
        ring = (cells.u < 1 / 6) | (cells.u > 5 / 6) | (cells.v < 0.25) | (cells.v > 0.75)
        d = np.hypot(centred(cells.u * 6), centred(cells.v * 4) * 1.5)
        rivet = np.sqrt(np.clip(1 - (d / 0.22) ** 2, 0, 1)) * ring
        height = seam * np.float32(0.6) + rivet * np.float32(0.7)
        height = height + per_cell(tile, "sheet", cells, -0.1, 0.1)
        fine = fine + per_cell(tile, "tone", cells, -1.5, 1.5)
        hole = (1 - seam) * np.float32(0.8)
    elif motif == "waves":
        height = np.float32(0.5) + np.float32(0.5) * np.cos(xs * np.float32(2 * np.pi))
    elif motif == "spun":
        height = np.zeros_like(u)
        for k, (ox, oy) in enumerate(((0.0, 0.0), (0.5, 0.5))):  # two staggered layers of overlapping discs
            du, dv = centred(xs + ox), centred(ys + oy)
            d = np.hypot(du, dv)
            groove = np.sin(d * np.float32(2 * np.pi * 11)) * np.float32(0.5) + np.float32(0.2) * (0.5 - d)
            fan = np.cos(2 * np.arctan2(dv, du) + np.float32(0.8)) * np.float32(4.0)  # the sheen of circular brushing
            height = np.where(d < 0.5, groove, height) if k else groove
            fine = np.where(d < 0.5, fan, fine) if k else fan
    else:
        raise ValueError(f"unknown motif {motif!r}")
    return height, fine, hole


def plate(
    tile: Tile,
    *,
    motif: str,  # "diamond", "studs", "rivets", "waves", "spun", "holes"
    repeats: int,
    color: str,
    roughness: float,
    wear: float = 0.3,
    relief: float = 0.02,
) -> Surface:
    """Return sheet metal with a regular motif pressed, spun or punched into it."""
    height, fine, hole = _pressed(tile, motif, repeats)
    cloud = fbm(tile, "cloud", 3, 5)
    polish = smooth(0.55, 1.0, height) * np.float32(wear)
    paint = tint(rgb(color), 1 + fine * np.float32(0.03) + cloud * np.float32(0.03) + polish * np.float32(0.12))
    dust = smooth(0.55, 0.9, unit(cloud)) * (1 - polish) * np.float32(0.3 * wear)
    paint = tint(paint, 1 - dust)
    paint = mix(paint, rgb("#15161a"), hole)
    rough = np.clip(roughness + fine * np.float32(0.04) - polish * 0.2 + dust * 0.6, 0.06, 1)
    rough = mix(rough, 0.85, hole)
    return Surface(paint, height + fine * np.float32(0.01), rough, 1 - hole, relief)


def spangle(tile: Tile, *, color: str, crystals: int, roughness: float) -> Surface:
    """Return hot-dip galvanised sheet: large frost-like zinc crystals of different brightness."""
    at = warped(tile, "spangle", 0.01, 10, 3)
    grains = voronoi(tile, "spangle", crystals, 1.0, False, at)
    each = per_cell(tile, "each", grains, -1, 1)
    angle = per_cell(tile, "angle", grains, 0, 3.1416)
    along = grains.dx * np.cos(angle) + grains.dy * np.sin(angle)
    feather = np.sin(along * 40 + fbm(tile, "feather", 24, 2)) * np.float32(0.5)
    cloud = fbm(tile, "cloud", 4, 4)
    paint = tint(rgb(color), 1 + each * np.float32(0.13) + feather * np.float32(0.045) + cloud * np.float32(0.02))
    rough = np.clip(roughness + each * np.float32(0.1) + feather * np.float32(0.04), 0.05, 1)
    edge = smooth(0.0, 0.05, grains.border)
    return Surface(tint(paint, 0.93 + 0.07 * edge), each * 0.1 + feather * 0.06 + edge * 0.2, rough, 1.0, 0.002)


def foil(
    tile: Tile, *, color: str, folds: int, roughness: float, metallic: float = 1.0, relief: float = 0.06
) -> Surface:
    """Return a crumpled sheet: facets that meet in sharp ridges; foil with metallic 1, paper with metallic 0."""
    height = np.zeros((tile.size_px, tile.size_px), np.float32)
    crease = np.zeros_like(height)
    for number, scale in enumerate((1, 2, 4)):
        at = warped(tile, f"fold{number}", 0.05 / scale, 3 * scale, 2)
        facet = voronoi(tile, f"fold{number}", folds * scale, 1.0, False, at)
        height += (facet.f2 - facet.f1 + 0.6 * facet.f1) * np.float32(0.8 / scale**1.1)
        crease = np.maximum(crease, smooth(0.05, 0.0, facet.border) / np.float32(scale**0.5))
    fine = fbm(tile, "fine", 48, 2)
    paint = tint(rgb(color), 0.97 + crease * np.float32(0.05) + fine * np.float32(0.015))
    rough = np.clip(roughness + crease * 0.12 + fine * np.float32(0.02), 0.05, 1)
    return Surface(paint, height, rough, metallic, relief)


def damascus(tile: Tile, *, colors: Sequence[str], layers: int, roughness: float) -> Surface:
    """Return folded steel: contour lines of a strongly warped field, etched dark and bright."""
    at = warped(tile, "fold", 0.045, 3, 3)
    field = fbm(tile, "field", 2, 2, 0.35, at=at) * np.float32(0.5 * layers)
    wave = np.sin(field * np.float32(2 * np.pi)) * np.float32(0.5) + np.float32(0.5)
    second = np.sin(field * np.float32(2 * np.pi * 2.3)) * np.float32(0.5) + np.float32(0.5)
    etched = smooth(0.35, 0.65, wave * 0.75 + second * 0.25)
    lines = fbm(tile, "lines", (3, 128), 2)
    color = tint(ramp(etched, colors), 1 + lines * np.float32(0.03))
    rough = np.clip(roughness + (1 - etched) * 0.25 + lines * np.float32(0.04), 0.05, 1)
    return Surface(color, etched * np.float32(0.4) + lines * np.float32(0.03), rough, 1.0, 0.003)
