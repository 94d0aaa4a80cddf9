"""Natural stone: marble, granite, terrazzo, strata, rock faces, lava."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megasynth_attr.textures.procedural.noise import Array, Tile, fbm, unit, voronoi, warped
from megasynth_attr.textures.procedural.patterns import bricks, per_cell, per_index, shifted
from megasynth_attr.textures.surface import Surface, mix, pick, ramp, rgb, smooth, tint


def _veins(tile: Tile, label: str, period: int, warp: float, width: float) -> Array:
    """Return thin branching lines 0 … 1: the zero crossings of noise in a strongly warped domain.

    The noise is divided by its gradient, which makes it a distance, so that a vein keeps its ``width`` (tile widths);
    the floor under the gradient keeps flat places from becoming blots. Veins swell and fade along their way.
    """
    at = warped(tile, label, warp, 3, 4)
    field = fbm(tile, f"{label}/line", period, 3, 0.4, at=at)
    step = np.float32(0.5 * tile.size_px)
    slope_x = (np.roll(field, -1, axis=1) - np.roll(field, 1, axis=1)) * step
    slope_y = (np.roll(field, -1, axis=0) - np.roll(field, 1, axis=0)) * step
    distance = np.abs(field) / np.sqrt(slope_x**2 + slope_y**2 + np.float32((1.2 * period) ** 2))
    swell = unit(fbm(tile, f"{label}/thick", 4, 4), 0.35)
    thickness = np.float32(width) * (0.15 + 1.2 * swell**2) + np.float32(0.8 * tile.pixel)
    fade = smooth(0.12, 0.5, unit(fbm(tile, f"{label}/fade", 3, 3), 0.3))
    return np.clip(1 - distance / thickness, 0, 1) ** np.float32(1.3) * fade


def marble(
    tile: Tile,
    *,
    ground: Sequence[str],
    veins: Sequence[tuple[str, int, float, float, float]],  # colour, period, warp, width, strength
    cloud: float = 0.2,
    cloud_warp: float = 0.08,
    bands: int = 0,  # layered onyx: number of bands down the tile
    roughness: float = 0.12,
    slabs: int = 0,  # > 0: cut into slabs² polished tiles with book-like different offsets
    checker: Sequence[str] | None = None,  # second ground for every other slab
) -> Surface:
    """Return polished marble: clouded ground and several systems of veins."""
    at = warped(tile, "cloud", cloud_warp, 3, 4)
    body = fbm(tile, "body", 3, 6, 0.55, at=at)
    tone = unit(body, cloud)
    if bands:
        layer = tile.y * np.float32(bands) + fbm(tile, "bands", (2, 3), 5, 0.5) * np.float32(0.55)
        fine = fbm(tile, "fine", (2, 4 * bands), 4, 0.6, at=at)
        tone = np.clip(0.5 + 0.42 * np.sin(layer * np.float32(2 * np.pi)) + fine * np.float32(0.14), 0, 1)
    dark = ramp(1 - tone, checker) if checker else None
    color = ramp(tone, ground)
    grain = fbm(tile, "grain", 64, 2, 0.7)
    rough = np.clip(roughness + np.abs(body) * np.float32(0.03), 0.04, 1)
    lines = []
    for number, (hue, period, warp, width, strength) in enumerate(veins):
        line = _veins(tile, f"vein{number}", period, warp, width) * np.float32(strength)
        lines.append(line)
        color = mix(color, rgb(hue), line)
        if dark is not None:
            dark = mix(dark, np.float32(1) - rgb(hue) * np.float32(0.5), line * np.float32(0.8))
        rough = rough + line * np.float32(0.06)
    color = tint(color, 1 + grain * np.float32(0.015))
    height = grain * np.float32(0.02)
    if slabs:
        cells = bricks(tile, slabs, slabs, 0.0)
        offset = [shifted(tile, "slab", np.ascontiguousarray(color[..., c]), cells) for c in range(3)]
        color = np.stack(offset, axis=-1)
        if dark is not None:
            other = [shifted(tile, "slab", np.ascontiguousarray(dark[..., c]), cells) for c in range(3)]
            odd = ((cells.cell // slabs + cells.cell % slabs) % 2).astype(np.float32)
            color = mix(color, np.stack(other, axis=-1), odd)
        color = tint(color, per_cell(tile, "light", cells, 0.94, 1.04))
        line = smooth(0.0015 - tile.pixel, 0.0015 + tile.pixel, cells.edge)
        color = mix(rgb("#8d877d"), color, line)
        height = height + smooth(0.001, 0.006, cells.edge)
        rough = mix(0.8, rough, line)
    return Surface(color, height, rough, 0.0, 0.004)


def granite(
    tile: Tile, *, minerals: Sequence[tuple[str, float]], grain: int, roughness: float, sparkle: float = 0.0
) -> Surface:
    """Return polished granite: interlocking crystals of ``minerals`` (colour, share) at three sizes."""
    names = [hue for hue, _ in minerals]
    shares = np.cumsum([share for _, share in minerals])
    bounds = (shares / shares[-1]).astype(np.float32)
    color = np.zeros((tile.size_px, tile.size_px, 3), np.float32)
    height = np.zeros((tile.size_px, tile.size_px), np.float32)
    rough = np.full_like(height, roughness)
    for number, (scale, weight) in enumerate(((1, 1.0), (2, 0.6), (4, 0.55))):
        at = warped(tile, f"crystal{number}", 0.35 / (grain * scale), grain * scale, 2)
        crystals = voronoi(tile, f"crystal{number}", grain * scale, 1.0, False, at)
        value = per_cell(tile, f"kind{number}", crystals)
        paint = pick(names, np.minimum(np.searchsorted(bounds, value), len(names) - 1))
        paint = tint(paint, per_cell(tile, f"light{number}", crystals, 0.85, 1.12))
        keep = smooth(1 - weight, 1.05 - weight, per_cell(tile, f"keep{number}", crystals))
        color = mix(color, paint, keep) if number else paint
        height = height + per_cell(tile, f"level{number}", crystals, -0.05, 0.05)
    cloud = fbm(tile, "cloud", 5, 4)
    if sparkle:
        flakes = voronoi(tile, "flakes", 48, 1.0)
        bright = (per_cell(tile, "bright", flakes) < sparkle) * smooth(0.02, 0.1, flakes.border)
        color = mix(color, rgb("#f0ebe0"), bright * np.float32(0.6))
        rough = rough - bright * np.float32(0.1)
    return Surface(
        tint(color, 1 + cloud * np.float32(0.03)), height, np.clip(rough + cloud * 0.02, 0.05, 1), 0.0, 0.004
    )


def terrazzo(
    tile: Tile, *, ground: str, chips: Sequence[str], sizes: Sequence[int], share: float = 0.75, roughness: float = 0.2
) -> Surface:
    """Return terrazzo: angular chips of several sizes set in a coloured cement and ground flat."""
    fine = fbm(tile, "cement", 48, 3, 0.7)
    color = tint(rgb(ground), 1 + fine * np.float32(0.04))
    rough = np.clip(roughness + 0.15 + fine * np.float32(0.03), 0, 1)
    height = np.zeros_like(fine)
    for number, cells in enumerate(sorted(sizes, reverse=True)):  # small chips first, large ones cover them
        at = warped(tile, f"chip{number}", 0.08 / cells, cells * 2, 2)
        chip = voronoi(tile, f"chip{number}", cells, 1.0, False, at)
        keep = per_cell(tile, f"keep{number}", chip) < share
        inset = per_cell(tile, f"inset{number}", chip, 0.07, 0.26)
        mask = smooth(-0.6 * cells * tile.pixel, 0.9 * cells * tile.pixel, chip.border - inset) * keep
        paint = pick(chips, (per_cell(tile, f"hue{number}", chip) * len(chips)).astype(np.int64))
        inner = fbm(tile, f"inner{number}", 24, 3)
        light = per_cell(tile, f"light{number}", chip, 0.85, 1.1) + inner * np.float32(0.05)
        color = mix(color, tint(paint, light), mask)
        rough = mix(rough, roughness, mask)
        height = mix(height, 0.3, mask)
    return Surface(color, height + fine * np.float32(0.03), rough, 0.0, 0.002)


def strata(
    tile: Tile,
    *,
    layers: int,
    colors: Sequence[str],
    wave: float = 0.5,
    steps: float = 0.7,  # how much the layers stand out as ledges
    grit: float = 0.12,
    pits: float = 0.0,  # share of holes along the layers (travertine)
    roughness: float = 0.88,
    relief: float = 0.03,
) -> Surface:
    """Return layered rock: sandstone beds, slate, travertine; the layers run across the image."""
    bend = fbm(tile, "bend", (2, 3), 5, 0.5) * np.float32(wave)
    field = tile.y * np.float32(layers) + bend
    bed = np.floor(field).astype(np.int64) % layers
    inside = field - np.floor(field)
    each = per_index(tile, "bed", bed, layers)
    below = tile.rng("bed").uniform(0, 1, layers).astype(np.float32)[(bed + 1) % layers]
    blend = smooth(0.75, 1.0, inside)
    level = each + (below - each) * blend
    lines = fbm(tile, "lines", (4, layers * 3), 4, 0.6, at=warped(tile, "lines", 0.012, 5, 3))
    fine = fbm(tile, "grit", 48, 3, 0.75)
    color = ramp(np.clip(level * 0.75 + 0.12 + lines * np.float32(0.09), 0, 1), colors)
    color = tint(color, 1 + fine * np.float32(grit * 0.6) + lines * np.float32(0.03))
    height = level * np.float32(steps) + lines * np.float32(0.07) + fine * np.float32(grit * 0.5)
    rough = np.clip(roughness + fine * np.float32(0.03), 0, 1)
    if pits:
        hole_field = fbm(tile, "pits", (10, 48), 3, 0.6)
        limit = float(np.quantile(hole_field, 1 - pits))
        hole = smooth(limit - 0.05, limit + 0.35, hole_field)
        color, height = mix(color, rgb("#6b5a45"), hole * np.float32(0.75)), height - hole * np.float32(0.9)
        rough = mix(rough, 0.9, hole)
    return Surface(color, height, rough, 0.0, relief)


def rock(
    tile: Tile,
    *,
    colors: Sequence[str],
    facets: int,
    lichen: tuple[str, float] | None = None,
    cracks: float = 0.5,
    glow: str | None = None,  # colour inside the cracks instead of shade
    roughness: float = 0.9,
    relief: float = 0.06,
) -> Surface:
    """Return a broken rock face: tilted facets, cracks, mineral stains; with ``glow`` a lava crust."""
    at = warped(tile, "facets", 0.05, 5, 5)
    big = voronoi(tile, "facets", facets, 1.0, False, at)
    lean_x = per_cell(tile, "lean-x", big, -1, 1) * big.dx
    lean_y = per_cell(tile, "lean-y", big, -1, 1) * big.dy
    ridges = fbm(tile, "ridges", 5, 6, 0.55, kind="ridged", at=at)
    fine = fbm(tile, "fine", 32, 4, 0.65)
    crack = smooth(0.07, 0.0, big.border) * np.float32(cracks)
    height = (lean_x + lean_y) * 0.35 + ridges * np.float32(0.13) + fine * np.float32(0.045) - crack * 0.5
    tone = unit(fbm(tile, "stain", 3, 6, 0.6) * 0.8 + ridges * 0.3 + fine * 0.25, 0.2)
    color = tint(ramp(tone, colors), 1 + (ridges * np.float32(0.08)) - crack * np.float32(0.45))
    rough = np.clip(roughness + fine * np.float32(0.03), 0, 1)
    if lichen:
        spot = smooth(0.6, 0.68, unit(fbm(tile, "lichen", 7, 6, 0.7))) * np.float32(lichen[1])
        color = mix(color, tint(rgb(lichen[0]), 1 + fine * np.float32(0.12)), spot)
    if glow:
        heat = smooth(0.12, 0.0, big.border) * smooth(0.35, 0.6, unit(fbm(tile, "heat", 3, 3)))
        color = mix(color, rgb(glow), heat * np.float32(0.95))
        rough = mix(rough, 0.5, heat)
    return Surface(color, height, rough, 0.0, relief)
