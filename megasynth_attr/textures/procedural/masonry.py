"""Surfaces laid from pieces: bricks, tiles, mosaics, cobbles, flagstones, roof tiles, pavers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from megasynth_attr.textures.procedural.noise import Array, Tile, fbm, unit, voronoi, warped
from megasynth_attr.textures.procedural.patterns import (
    Cells,
    Coordinates,
    basket,
    bricks,
    herringbone,
    per_cell,
    planks,
    scales,
)
from megasynth_attr.textures.surface import Surface, mix, pick, ramp, rgb, smooth, tint


def _polygons(tile: Tile, cells: int | tuple[int, int], jitter: float, stagger: bool, at: Coordinates | None) -> Cells:
    found = voronoi(tile, "polygons", cells, jitter, stagger, at)
    width = 1.0 / (cells if isinstance(cells, int) else cells[0])
    u, v = 0.5 - 0.5 * found.dx, 0.5 - 0.5 * found.dy
    return Cells(found.cell, found.count, found.border * np.float32(width), u, v)


def lattice(tile: Tile, kind: str, at: Coordinates | None, arguments: Mapping[str, Any]) -> Cells:
    """Return the cells of the lattice named ``kind``; ``at`` are warped coordinates, where the lattice allows them."""
    if kind == "bricks":
        return bricks(tile, at=at, **arguments)
    if kind == "planks":
        return planks(tile, at=at, **arguments)
    if kind == "herringbone":
        return herringbone(tile, **arguments)
    if kind == "basket":
        return basket(tile, **arguments)
    if kind == "checker":
        count = arguments["count"]
        cells = bricks(tile, count, count, 0.0, at)
        return replace(cells, cell=(cells.cell // count + cells.cell % count) % 2, count=2)
    if kind == "hexagons":
        return _polygons(tile, jitter=0.0, stagger=True, at=at, **arguments)
    if kind == "polygons":
        return _polygons(tile, at=at, **{"jitter": 0.85, "stagger": False, **arguments})
    raise ValueError(f"unknown lattice {kind!r}")


def blocks(
    tile: Tile,
    *,
    kind: str,
    arguments: Mapping[str, Any],
    colors: Sequence[str],
    joint_color: str,
    joint: float,  # half width of the joints, tile widths
    bevel: float,  # width over which an edge is rounded, tile widths
    wobble: float = 0.0,  # irregularity of the edges, tile widths
    wobble_period: int = 12,
    chipped: float = 0.0,  # how far the edge is eaten by noise, tile widths
    discrete: bool = False,  # each piece has exactly one of the colours instead of a blend
    variation: float = 0.15,  # brightness differs by ± this between pieces
    mottle: float = 0.1,  # brightness differs by about ± this inside a piece
    mottle_period: int = 16,
    fleck: tuple[str, float] | None = None,  # colour and share of small flecks
    bumps: float = 0.15,  # height noise on the faces, in units of the joint's depth
    bump_period: int = 24,
    tilt: float = 0.0,  # pieces lean by ± this, in units of the joint's depth
    dome: float = 0.0,  # faces bulge by this, in units of the joint's depth
    roughness: float = 0.7,
    roughness_spread: float = 0.06,
    dirt: tuple[str, float] | None = None,  # colour and strength of large stains
    relief: float = 0.012,
) -> Surface:
    """Return a surface laid from pieces with joints between them."""
    at = warped(tile, "edges", wobble, wobble_period) if wobble else None
    cells = lattice(tile, kind, at, arguments)
    edge = cells.edge
    if chipped:
        edge = edge - np.maximum(fbm(tile, "chips", 20, 4), 0) * np.float32(chipped)
    soft = max(bevel, 1.5 * tile.pixel)
    face = smooth(joint, joint + soft, edge)
    color_mask = smooth(joint - tile.pixel, joint + tile.pixel, edge)

    shade = per_cell(tile, "shade", cells)
    inner = fbm(tile, "mottle", mottle_period, 5, 0.6)
    if kind == "checker":
        color = pick(colors, cells.cell)
    elif discrete:
        color = pick(colors, (shade * len(colors)).astype(np.int64))
    else:
        color = ramp(np.clip(shade + inner * np.float32(0.08), 0, 1), colors)
    light = 1 + (per_cell(tile, "light", cells, -1, 1) * np.float32(variation))
    color = tint(color, light + inner * np.float32(mottle))
    if fleck:
        spots = smooth(1.0 - fleck[1], 1.04 - fleck[1], unit(fbm(tile, "flecks", 48, 2, 0.7)))
        color = mix(color, rgb(fleck[0]), spots * np.float32(0.8))
    grit = fbm(tile, "grit", 64, 2, 0.8)
    joint_paint = tint(rgb(joint_color), 1 + grit * np.float32(0.09))
    color = mix(joint_paint, color, color_mask)
    if dirt:
        stain = smooth(0.5, 0.95, unit(fbm(tile, "dirt", 3, 5, 0.6))) * np.float32(dirt[1])
        color = mix(color, rgb(dirt[0]), stain)

    bump = fbm(tile, "bumps", bump_period, 4, 0.55)
    body = 1 + bump * np.float32(bumps)
    if tilt:
        lean = per_cell(tile, "tilt-u", cells, -1, 1) * (cells.u - 0.5)
        body += (lean + per_cell(tile, "tilt-v", cells, -1, 1) * (cells.v - 0.5)) * np.float32(tilt)
    if dome:
        reach = np.float32(np.percentile(edge, 99))
        body += np.sqrt(np.clip(edge / reach, 0, 1)) * np.float32(dome)
    floor = grit * np.float32(0.08)
    height = floor + (body - floor) * face
    spread = inner * np.float32(roughness_spread)
    rough = mix(0.92, np.clip(roughness + spread, 0.04, 1), color_mask)
    return Surface(color, height, rough, 0.0, relief)


def roof(
    tile: Tile,
    *,
    columns: int,
    rows: int,
    depth: float,
    shape: float,
    colors: Sequence[str],
    curve: float = 0.0,  # how much each tile is arched across
    gloss: float = 0.75,
    mottle: float = 0.12,
    moss: tuple[str, float] | None = None,
    relief: float = 0.05,
    metal: float = 0.0,
) -> Surface:
    """Return overlapping scales: roof tiles, shingles, glazed fish scales, reptile skin."""
    cells = scales(tile, columns, rows, depth, shape)
    shade = per_cell(tile, "shade", cells)
    noise = fbm(tile, "mottle", 16, 5, 0.6)
    color = ramp(np.clip(shade + noise * np.float32(0.06), 0, 1), colors)
    shadow = smooth(0.0, 0.35, cells.v) * np.float32(0.35) + np.float32(0.65)  # hidden ends are darker and dirtier
    color = tint(color, shadow * (1 + noise * np.float32(mottle)))
    rim = smooth(0.0, 3 * tile.pixel + 0.004, cells.edge)
    color = tint(color, np.float32(0.75) + rim * np.float32(0.25))
    arch = np.sqrt(np.maximum(1 - (2 * cells.u - 1) ** 2 * 0.9, 0)) * np.float32(curve)
    lean = per_cell(tile, "lean", cells, -0.08, 0.08) * (cells.u - 0.5)
    height = cells.v * rim + arch + lean + noise * np.float32(0.02)
    rough = np.clip(gloss + noise * np.float32(0.06), 0.05, 1)
    if moss:
        patches = smooth(0.55, 0.75, unit(fbm(tile, "moss", 4, 6, 0.65)) + (1 - cells.v) * np.float32(0.12))
        patches = patches * np.float32(moss[1])
        color = mix(color, tint(rgb(moss[0]), 1 + noise * np.float32(0.25)), patches)
        height = height + patches * np.float32(0.08) * (1 + noise)
        rough = mix(rough, 0.95, patches)
    return Surface(color, height, rough, metal, relief)


def ornament(
    tile: Tile,
    *,
    repeats: int,
    colors: Sequence[str],  # ground, petals, line, centre
    joint_color: str,
) -> Surface:
    """Return painted glazed tiles: an eight-petalled rosette with quarter rosettes in the corners."""
    cells = bricks(tile, repeats, repeats, 0.0)
    crackle = fbm(tile, "glaze", 12, 4)
    u, v = cells.u - 0.5, cells.v - 0.5
    soft = 0.5 * repeats * tile.pixel + 0.008

    def rosette(x: Array, y: Array, radius: float, petals: int) -> Array:
        r, angle = np.hypot(x, y), np.arctan2(y, x)
        return r - np.float32(radius) * (np.float32(0.72) + np.float32(0.28) * np.cos(petals * angle))

    ground = tint(rgb(colors[0]), 1 + crackle * np.float32(0.025))
    main = rosette(u, v, 0.36, 8)
    corner = rosette(0.5 - np.abs(u), 0.5 - np.abs(v), 0.26, 8)
    ring = np.abs(np.hypot(u, v) - np.float32(0.43))
    color = mix(ground, rgb(colors[1]), smooth(soft, -soft, main))
    color = mix(color, rgb(colors[3]), smooth(soft, -soft, rosette(u, v, 0.17, 4)))
    color = mix(color, rgb(colors[2]), smooth(soft, -soft, corner))
    for field, width in ((np.abs(main), 0.012), (np.abs(corner), 0.012), (ring, 0.014)):
        color = mix(color, rgb(colors[2]), smooth(width + soft, width - soft, field))
    face = smooth(0.004, 0.012, cells.edge)
    color = mix(
        rgb(joint_color),
        color,
        smooth(0.003 - tile.pixel, 0.003 + tile.pixel, cells.edge),
    )
    wave = fbm(tile, "waves", 5, 3)
    rough = mix(0.85, np.clip(0.15 + np.abs(crackle) * np.float32(0.04), 0.05, 1), face)
    return Surface(color, face + wave * np.float32(0.06), rough, 0.0, 0.008)
