"""Ground: soil, mud, sand, gravel, grass, moss, snow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megasynth_attr.textures.procedural.noise import Tile, fbm, unit, voronoi, warped
from megasynth_attr.textures.procedural.patterns import per_cell
from megasynth_attr.textures.surface import Surface, mix, ramp, rgb, smooth, tint


def cracked(
    tile: Tile, *, plates: int, colors: Sequence[str], crack_color: str, width: float = 0.05, curl: float = 0.4
) -> Surface:
    """Return dried mud: plates with curled rims, deep cracks, finer hairline cracks inside the plates."""
    at = warped(tile, "cracks", 0.02, 6, 4)
    big = voronoi(tile, "big", plates, 0.95, False, at)
    small = voronoi(tile, "small", plates * 3, 0.95, False, at)
    uneven = width * (0.6 + 0.8 * unit(fbm(tile, "width", 8, 3)))
    body = np.clip((big.border - uneven) / 0.08, 0, 1)
    body = body * body * (3 - 2 * body)
    hair = smooth(0.05, 0.0, small.border) * smooth(0.5, 0.6, unit(fbm(tile, "hair", 5, 3)))
    fine = fbm(tile, "fine", 40, 4, 0.7)
    each = per_cell(tile, "plate", big)
    cloud = fbm(tile, "cloud", 4, 5)
    color = ramp(np.clip(each * 0.5 + 0.25 + cloud * np.float32(0.1) + fine * np.float32(0.05), 0, 1), colors)
    rim = smooth(0.25, 0.02, big.border - uneven) * body
    color = tint(color, 1 + fine * np.float32(0.05) + rim * np.float32(0.1) - hair * np.float32(0.3))
    color = mix(rgb(crack_color), color, body)
    height = body * (0.7 + rim * np.float32(curl)) + fine * np.float32(0.03) - hair * np.float32(0.2) + each * 0.1
    return Surface(color, height, np.clip(0.93 + fine * 0.02, 0, 1), 0.0, 0.03)


def pebbles(
    tile: Tile,
    *,
    sizes: Sequence[int],  # stones across the tile, one layer each, finest first
    colors: Sequence[str],
    ground: str,
    share: float = 0.9,
    roundness: float = 0.5,  # exponent of a stone's profile: 0.5 round, 1 flat cone
    roughness: float = 0.75,
    wet: float = 0.0,
    smoothness: float = 0.0,  # 0 broken polygons … 1 water-worn discs
    relief: float = 0.05,
) -> Surface:
    """Return loose stones in layers: gravel, river pebbles, crushed aggregate."""
    fine = fbm(tile, "fine", 48, 3, 0.75)
    color = tint(rgb(ground), 1 + fine * np.float32(0.15))
    height = fine * np.float32(0.04)
    rough = np.full_like(fine, 0.95)
    for number, cells in enumerate(sizes):
        at = warped(tile, f"stone{number}", (0.12 - 0.07 * smoothness) / cells, cells * 2, 2 if smoothness < 0.5 else 1)
        stone = voronoi(tile, f"stone{number}", cells, 0.95, False, at)
        keep = per_cell(tile, f"keep{number}", stone) < (1.0 if number == 0 else share)
        inset = per_cell(tile, f"inset{number}", stone, 0.03, 0.14)
        rim = mix(stone.border, 0.5 - 0.85 * stone.f1, smoothness) - inset
        body = np.clip(rim / 0.34, 0, 1)
        profile = (1 - (1 - body) ** 2) ** np.float32(roundness) * keep
        soft = max(0.03, 0.75 * cells * tile.pixel)
        mask = smooth(0.03 - soft, 0.03 + soft, rim) * keep
        band = fbm(tile, f"band{number}", 12, 4, 0.6)
        each = per_cell(tile, f"each{number}", stone)
        paint = ramp(np.clip(each + band * np.float32(0.07), 0, 1), colors)
        paint = tint(paint, 0.72 + 0.28 * profile + band * np.float32(0.06) + fine * np.float32(0.04))
        color = mix(tint(color, 1 - 0.45 * smooth(-0.02, 0.12, stone.border) * keep), paint, mask)
        scale = np.float32(min(sizes) / cells)
        lean = (stone.dx * (each - 0.5) + stone.dy * (0.5 - (each * 7.3) % 1)) * np.float32(0.3)
        height = np.maximum(height, mask * ((profile + lean) * scale * 0.8 + np.float32(0.1 + 0.15 * number)))
        rough = mix(rough, np.clip(roughness - wet * 0.4 + fine * np.float32(0.04), 0.08, 1), mask)
    return Surface(color, height, rough, 0.0, relief)


def ripples(tile: Tile, *, waves: int, colors: Sequence[str]) -> Surface:
    """Return wind ripples in sand or snow; the crests run about across the image and fork."""
    bend = fbm(tile, "bend", (3, 2), 3, 0.45) * np.float32(0.42) + fbm(tile, "fork", (6, 10), 2) * np.float32(0.1)
    phase = tile.y * np.float32(waves) + bend
    fraction = phase - np.floor(phase)
    crest = np.where(fraction < 0.68, fraction / 0.68, (1 - fraction) / 0.32) ** np.float32(1 / 1.5)
    crest = crest * crest * (3 - 2 * crest)
    grain = fbm(tile, "grain", 128, 2, 0.9)
    drift = fbm(tile, "drift", 3, 4)
    strength = 0.75 + 0.35 * unit(drift)
    color = ramp(np.clip(0.3 + 0.45 * crest + drift * np.float32(0.06), 0, 1), colors)
    color = tint(color, 1 + grain * np.float32(0.06))
    height = crest * strength + grain * np.float32(0.02) + drift * np.float32(0.15)
    return Surface(color, height, np.clip(0.93 + grain * 0.03, 0, 1), 0.0, 0.03)


def soil(
    tile: Tile,
    *,
    colors: Sequence[str],
    clods: int = 24,
    stones: tuple[Sequence[str], int, float] | None = None,  # colours, size, share
    growth: tuple[Sequence[str], float] | None = None,  # colours and share of moss or snow on top
    growth_height: float = 0.35,
    relief: float = 0.04,
) -> Surface:
    """Return crumbly earth, optionally with stones and with moss, lichen or snow growing over it."""
    rough_height = fbm(tile, "lumps", 5, 7, 0.6)
    crumbs = voronoi(tile, "crumbs", clods, 1.0, False, warped(tile, "crumbs", 0.01, 12, 3))
    crumb = np.clip(1 - crumbs.f1 * 1.4, 0, 1)
    fine = fbm(tile, "fine", 48, 3, 0.75)
    height = unit(rough_height, 0.2) + crumb * np.float32(0.14) + fine * np.float32(0.03)
    tone = unit(rough_height * 0.5 + fine * 0.55 + (crumb - 0.3) * 1.5, 0.2)
    color = tint(ramp(tone, colors), 0.8 + 0.3 * crumb + fine * np.float32(0.06))
    rough = np.clip(0.95 + fine * 0.02, 0, 1)
    if stones:
        hues, size, share = stones
        stone = voronoi(tile, "stones", size, 0.9, False, warped(tile, "stones", 0.1 / size, 12, 2))
        keep = per_cell(tile, "stone-keep", stone) < share
        inset = per_cell(tile, "stone-inset", stone, 0.12, 0.3)
        body = np.asarray(np.sqrt(np.clip((stone.border - inset) / 0.2, 0, 1)) * keep, np.float32)
        paint = tint(ramp(per_cell(tile, "stone-hue", stone), hues), 0.85 + 0.2 * body + fine * 0.05)
        mask = smooth(0.0, 0.25, body)
        color, height = mix(color, paint, mask), mix(height, 0.55 + body * np.float32(0.35), mask)
        rough = mix(rough, 0.75, mask)
    if growth:
        hues, share = growth
        field = fbm(tile, "growth", 4, 6, 0.6) + (height - 0.5) * np.float32(0.8)
        limit = float(np.quantile(field, 1 - share))
        cover = smooth(limit - 0.12, limit + 0.25, field)
        tufts = voronoi(tile, "tufts", 56, 1.0, False, warped(tile, "tufts", 0.006, 24, 2))
        fluff = np.clip(1 - tufts.f1 * 1.3, 0, 1)
        paint = ramp(np.clip(fluff * 0.7 + unit(fbm(tile, "hue", 6, 4), 0.15) - 0.25, 0, 1), hues)
        color = mix(color, tint(paint, 1 + fine * np.float32(0.08)), cover)
        lift = unit(rough_height, 0.1) + np.float32(growth_height) * smooth(limit - 0.1, limit + 1.2, field)
        height = mix(height, lift + fluff * np.float32(0.1), cover)
    return Surface(color, height, rough, 0.0, relief)


def blades(tile: Tile, *, layers: int, density: int, colors: Sequence[str], ground: str) -> Surface:
    """Return a lawn seen from above: layers of short curved blades, lighter towards the top.

    A layer is a field of narrow Voronoi cells in a domain that is sheared and bent, so that blades point everywhere.
    """
    fine = fbm(tile, "fine", 48, 3, 0.75)
    color = tint(rgb(ground), 1 + fine * np.float32(0.2))
    height = fine * np.float32(0.05)
    patch = fbm(tile, "patch", 3, 4)
    for layer in range(layers):
        x, y = warped(tile, f"bend{layer}", 0.03, 4, 2)
        shear = (0, 1, -1)[layer % 3]
        if layer % 2:
            at = (x + np.float32(shear) * y, y)
            shape = (density, density // 5)
        else:
            at = (x, y + np.float32(shear) * x)
            shape = (density // 5, density)
        blade = voronoi(tile, f"blade{layer}", shape, 1.0, False, at)
        wide, narrow = (blade.dy, blade.dx) if layer % 2 else (blade.dx, blade.dy)
        reach = np.float32(0.45)
        scale = np.float32(shape[0] / shape[1])
        long_axis = wide / (scale if layer % 2 else np.float32(1.0))
        thin_axis = narrow / (np.float32(1.0) if layer % 2 else scale)
        taper = np.clip(1 - np.abs(long_axis) / reach, 0, 1)
        body = np.clip(1 - np.abs(thin_axis) / (0.34 * np.sqrt(taper) + 1e-3), 0, 1)
        keep = per_cell(tile, f"keep{layer}", blade) < 0.8
        mask = smooth(0.0, 0.5, body) * keep
        each = per_cell(tile, f"each{layer}", blade)
        tone = np.clip(each * 0.5 + layer / layers * 0.4 + taper * 0.12 + patch * np.float32(0.07), 0, 1)
        paint = tint(ramp(tone, colors), 0.72 + 0.35 * body)
        color = mix(tint(color, 1 - 0.1 * keep), paint, mask)
        level = np.float32(0.25 + 0.75 * layer / layers)
        height = mix(height, level + body * np.float32(0.2) + long_axis * np.float32(0.12), mask)
    return Surface(color, height, 0.8, 0.0, 0.04)
