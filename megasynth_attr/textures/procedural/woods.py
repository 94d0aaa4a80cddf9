"""Wood: rings and fibres, boards, end grain, bark, bamboo, strands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from megasynth_attr.textures.procedural.masonry import lattice
from megasynth_attr.textures.procedural.noise import Array, Tile, fbm, perlin, unit, voronoi, warped
from megasynth_attr.textures.procedural.patterns import bricks, per_cell, per_index, shifted
from megasynth_attr.textures.surface import Surface, mix, ramp, rgb, smooth, tint


def grain(tile: Tile, rings: int, waviness: float, knots: int = 0) -> tuple[Array, Array]:
    """Return the year rings 0 … 1 (latewood 1) and the fibres (zero mean, unit deviation) of wood running along x.

    The ring coordinate is y times a whole number plus periodic noise, so its fraction is periodic too. A knot adds a
    bump that makes the rings flow around it.
    """
    field = tile.y * np.float32(rings) + fbm(tile, "rings", (1, 4), 4, 0.45) * np.float32(waviness)
    field += fbm(tile, "ripples", (4, 24), 2) * np.float32(0.06 * waviness)
    rng = tile.rng("knots")
    for _ in range(knots):
        cx, cy, size = rng.random(), rng.random(), 0.02 + 0.02 * rng.random()
        dx = (tile.x - cx + 0.5) % 1.0 - 0.5
        dy = (tile.y - cy + 0.5) % 1.0 - 0.5
        reach = np.sqrt((dx / 2.2) ** 2 + dy**2) / np.float32(size)
        field += np.float32(rings * size * 1.6) * np.exp(-reach * reach * np.float32(0.5)) * np.sign(cy - 0.5)
        field += np.float32(2.5) * np.exp(-((reach * 1.3) ** 4))
    fraction = field - np.floor(field)
    ring = fraction**2.2 * smooth(1.0, 0.86, fraction)  # slow early wood, dark late wood, sharp end of the year
    fibre = fbm(tile, "fibre", (6, 96), 3, 0.75)
    return ring.astype(np.float32), fibre


def boards(
    tile: Tile,
    *,
    kind: str,
    arguments: Mapping[str, Any],
    colors: Sequence[str],
    gap: float = 0.0015,
    rings: int = 12,
    waviness: float = 1.6,
    knots: int = 0,
    contrast: float = 0.75,
    fibre_strength: float = 0.07,
    variation: float = 0.14,
    gap_color: str = "#1d130c",
    roughness: float = 0.5,
    groove: float = 0.0,  # depth of grooves that run along the boards
    grooves: int = 0,  # grooves per board
    bevel: float = 0.003,
    weather: tuple[str, float] | None = None,  # colour and share of weathered patches
    paint: tuple[Sequence[str], float] | None = None,  # paint colours and how much of it is left
    relief: float = 0.006,
) -> Surface:
    """Return boards or parquet with their own grain each; also painted and weathered."""
    cells = lattice(tile, kind, None, arguments)
    ring, fibre = grain(tile, rings, waviness, knots)
    if cells.turned is not None:  # standing boards show the grain turned by 90°
        lying_ring, lying_fibre = (shifted(tile, "grain", field, cells) for field in (ring, fibre))
        up_ring, up_fibre = (shifted(tile, "grain", np.ascontiguousarray(field.T), cells) for field in (ring, fibre))
        ring, fibre = mix(lying_ring, up_ring, cells.turned), mix(lying_fibre, up_fibre, cells.turned)
    else:
        ring, fibre = (shifted(tile, "grain", field, cells) for field in (ring, fibre))
    shade = per_cell(tile, "shade", cells, -1, 1)
    pores = smooth(0.9, 2.2, fibre)
    tone = np.clip(0.28 + ring * contrast + shade * np.float32(variation) + fibre * np.float32(0.04), 0, 1)
    color = ramp(tone, colors)
    color = tint(color, 1 + fibre * np.float32(fibre_strength) - pores * np.float32(0.15) + shade * np.float32(0.05))
    rough = np.clip(roughness + fibre * np.float32(0.05) + ring * np.float32(0.08), 0.05, 1)
    body = 1 - ring * np.float32(0.12) + fibre * np.float32(0.05)
    if weather:
        old = smooth(1 - weather[1], 1.25 - weather[1], unit(fbm(tile, "weather", (3, 8), 5, 0.6)))
        color = mix(color, tint(rgb(weather[0]), 0.8 + ring * 0.3 + fibre * 0.09), old)
        rough = mix(rough, 0.92, old)
    if paint:
        worn = unit(fbm(tile, "worn", (5, 14), 5, 0.65), 0.24) + ring * np.float32(0.16) + fibre * np.float32(0.05)
        left = smooth(paint[1] + 0.03, paint[1] - 0.03, worn)
        coat = ramp(per_cell(tile, "coat", cells), list(paint[0]))
        coat = tint(coat, 1 + fibre * np.float32(0.03) + fbm(tile, "coat-noise", 6, 4) * np.float32(0.03))
        color = mix(color, coat, left)
        rough = mix(rough, roughness, left)
        body = body + left * np.float32(0.15)
    if grooves:
        phase = cells.v * np.float32(grooves)
        wave = np.abs((phase - np.floor(phase)) * 2 - 1)
        body -= np.float32(groove) * smooth(0.55, 0.85, wave)
        color = tint(color, 1 - smooth(0.6, 0.95, wave) * np.float32(0.35))
    face = smooth(gap, gap + max(bevel, 1.5 * tile.pixel), cells.edge)
    line = smooth(gap - 0.85 * tile.pixel, gap + 0.85 * tile.pixel, cells.edge)
    color = mix(rgb(gap_color), color, line)
    height = body * face + per_cell(tile, "level", cells, -0.12, 0.12) * face
    return Surface(color, height, rough, 0.0, relief)


def end_grain(tile: Tile, *, repeats: int, colors: Sequence[str], rings: float) -> Surface:
    """Return square end-grain blocks: each shows a piece of concentric year rings and radial cracks."""
    cells = bricks(tile, repeats, repeats, 0.0)
    cx = per_cell(tile, "pith-x", cells, -0.6, 1.6)
    cy = per_cell(tile, "pith-y", cells, -0.6, 1.6)
    wobble = fbm(tile, "wobble", repeats, 2) * np.float32(0.03)
    dx, dy = cells.u - cx, cells.v - cy
    radius = np.hypot(dx, dy) + wobble
    fraction = (radius * np.float32(rings)) % 1.0
    ring = fraction**2 * smooth(1.0, 0.85, fraction)
    angle = np.arctan2(dy, dx)
    rays = np.sin(angle * 90 + fbm(tile, "rays", 24, 2) * 2) * np.float32(0.5)
    shade = per_cell(tile, "shade", cells, -0.25, 0.25)
    dots = fbm(tile, "pores", 96, 2, 0.8)
    tone = np.clip(0.3 + 0.5 * ring + shade + rays * np.float32(0.03), 0, 1)
    color = tint(ramp(tone, colors), 1 + dots * np.float32(0.06))
    face = smooth(0.002, 0.008, cells.edge)
    color = mix(
        rgb("#20140b"),
        color,
        smooth(0.0015 - tile.pixel, 0.0015 + tile.pixel, cells.edge),
    )
    level = per_cell(tile, "level", cells, 0.7, 1.0)
    height = face * level - ring * np.float32(0.08) + dots * np.float32(0.03)
    return Surface(color, height, np.clip(0.55 + ring * np.float32(0.1), 0, 1), 0.0, 0.01)


def bark(tile: Tile, *, colors: Sequence[str], plates: tuple[int, int], moss: tuple[str, float] | None) -> Surface:
    """Return tree bark: long plates separated by deep, branching furrows that run down the image."""
    at = warped(tile, "plates", 0.035, 6, 4)
    cracks = voronoi(tile, "plates", plates, 0.95, True, at)
    rough_noise = fbm(tile, "rough", (24, 8), 5, 0.65)
    layers = fbm(tile, "layers", (10, 4), 4, 0.6, kind="ridged")
    body = smooth(0.0, 0.32, cracks.border)
    height = body * (np.float32(0.8) + layers * np.float32(0.16)) + rough_noise * np.float32(0.07)
    tone = unit(layers * 0.6 + rough_noise * 0.5 + (body - 0.6) * 2.2, 0.2)
    color = ramp(tone, colors)
    color = tint(color, 0.8 + 0.25 * body + rough_noise * np.float32(0.06))
    rough = np.full_like(height, 0.93)
    if moss:
        green = smooth(0.55, 0.75, unit(fbm(tile, "moss", 3, 6, 0.65)) * (0.6 + 0.5 * body)) * np.float32(moss[1])
        fuzz = fbm(tile, "fuzz", 80, 2, 0.8)
        color = mix(color, tint(rgb(moss[0]), 1 + fuzz * np.float32(0.22)), green)
        height = height + green * (np.float32(0.1) + fuzz * np.float32(0.06))
    return Surface(color, height, rough, 0.0, 0.05)


def bamboo(tile: Tile, *, canes: int, colors: Sequence[str]) -> Surface:
    """Return round canes side by side that run down the image, with nodes at random heights."""
    x = tile.x * np.float32(canes)
    cane = np.floor(x).astype(np.int64) % canes
    u = 2 * (x - np.floor(x)) - 1
    shade = per_index(tile, "shade", cane, canes)
    start = per_index(tile, "node", cane, canes)
    along = (tile.y + start) % 1.0 * 2.0
    node = np.abs(along - np.floor(along) - 0.5)  # 0 at a node, two nodes per tile and cane
    ring = smooth(0.035, 0.0, node)
    fibre = fbm(tile, "fibre", (96, 3), 3, 0.7)
    color = ramp(np.clip(shade * 0.8 + 0.1 + fibre * np.float32(0.06) + (0.12 - ring * 0.35), 0, 1), colors)
    stain = smooth(0.55, 0.9, unit(fbm(tile, "stain", (12, 3), 5, 0.6)))
    color = tint(color, 1 - stain * np.float32(0.25) + fibre * np.float32(0.03))
    profile = np.sqrt(np.maximum(1 - u * u, 0))
    color = tint(color, np.float32(0.45) + np.float32(0.55) * smooth(0.0, 0.45, profile))
    height = profile + ring * np.float32(0.14) + fibre * np.float32(0.01)
    return Surface(color, height, np.clip(0.35 + fibre * np.float32(0.05) + ring * 0.2, 0, 1), 0.0, 0.42 / canes)


def strands(
    tile: Tile,
    *,
    layers: int,
    colors: Sequence[str],
    pieces: int | tuple[int, int],  # pieces across the tile (and down), per layer
    slim: float,  # width over length of a piece
    background: str,
    shape: str = "strip",  # "strip" or "leaf"
    spread: float = 3.1416,  # pieces point within ± this of the horizontal, radians
    roughness: float = 0.7,
    relief: float = 0.008,
) -> Surface:
    """Return thin pieces scattered at random angles in ``layers`` layers: strand board, straw, leaf litter.

    Every layer has one piece around each point of a jittered lattice; the finer the layer, the further down it lies.
    """
    color = tint(rgb(background), 1 + 0.1 * perlin(tile, "b", 32, 32))
    height = fbm(tile, "ground", 16, 3) * np.float32(0.05)
    rough = np.full_like(height, min(1.0, roughness + 0.1))
    bend_x, bend_y = warped(tile, "bend", 0.008, 5, 2)
    for layer in range(layers):
        offset = tile.rng(f"offset{layer}").random(2).astype(np.float32)
        points = voronoi(
            tile, f"layer{layer}", pieces, 0.75, layer % 2 == 0, (bend_x + offset[0], bend_y + offset[1]), False
        )
        angle = per_cell(tile, f"angle{layer}", points, -spread, spread)
        cosine, sine = np.cos(angle), np.sin(angle)
        along = points.dx * cosine + points.dy * sine
        across = points.dy * cosine - points.dx * sine
        size = per_cell(tile, f"size{layer}", points, 0.38, 0.62)
        a, b = along / size, across / (size * np.float32(slim))
        if shape == "leaf":  # pointed at both ends, with a midrib and side veins
            lobes = 1 + 0.18 * np.cos(a * 22)
            edge = (1 - a * a) * lobes - np.abs(b)
            rib = smooth(0.1, 0.03, np.abs(b)) + 0.5 * smooth(0.75, 1.0, np.cos(a * 16 - np.abs(b) * 5))
        else:
            ragged = 0.92 + 0.06 * np.sin(b * 7 + angle * 9)
            edge = np.minimum(1 - np.abs(b), (ragged - np.abs(a)) * 6)
            rib = np.sin(b * 8 + fbm(tile, f"fibre{layer}", 12, 2) * 1.5) * np.float32(0.5)
        mask = smooth(0.0, 0.18 if shape == "leaf" else 0.3, edge)
        each = per_cell(tile, f"shade{layer}", points)
        paint = ramp(np.clip(each + a * np.float32(0.08), 0, 1), colors)
        paint = tint(paint, 0.96 + rib * np.float32(0.1) - np.float32(0.18) * (1 - layer / layers))
        shadow = smooth(-0.5, 0.1, edge) * np.float32(0.35)
        color = mix(tint(color, 1 - shadow), paint, mask)
        curl = b * b * np.float32(0.12) if shape == "leaf" else np.zeros_like(b)
        lift = np.float32(0.22) + curl + a * (each - 0.5) * np.float32(0.3) + rib * np.float32(0.03)
        height = mix(height, height * np.float32(0.55) + lift + np.float32(0.04 * layer), mask)
        rough = mix(rough, np.clip(roughness + rib * np.float32(0.06), 0, 1), mask)
    return Surface(color, height, rough, 0.0, relief)
