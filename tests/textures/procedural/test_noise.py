"""Noise and patterns: periodic by construction, the same at any resolution, and what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megasynth_attr.textures.procedural.noise import Tile, fbm, perlin, perlin_at, voronoi
from megasynth_attr.textures.procedural.patterns import basket, bricks, herringbone, planks, scales, weave


def test_grid_noise_equals_point_noise() -> None:
    tile = Tile("grid", 64)
    assert np.allclose(perlin(tile, "n", 5, 3), perlin_at(tile, "n", 5, 3, tile.x, tile.y), atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(-3, 3), st.integers(-3, 3))
def test_noise_is_periodic(px: int, py: int, sx: int, sy: int) -> None:
    tile = Tile("periodic", 32)
    moved = perlin_at(tile, "n", px, py, tile.x + np.float32(sx), tile.y + np.float32(sy))
    assert np.allclose(moved, perlin(tile, "n", px, py), atol=1e-3)


def test_noise_has_the_stated_mean_and_deviation() -> None:
    values = np.concatenate([fbm(Tile(f"t{k}", 64), "n", 6, 4).ravel() for k in range(20)])
    assert abs(values.mean()) < 0.1
    assert 0.8 < values.std() < 1.2


def test_a_stream_depends_on_key_and_label_only() -> None:
    assert Tile("a", 16).rng("x").random() == Tile("a", 512).rng("x").random()
    draws = {Tile(key, 16).rng(label).random() for key in "ab" for label in "xy"}
    assert len(draws) == 4


def test_noise_does_not_depend_on_resolution() -> None:
    small, large = fbm(Tile("r", 64), "n", 4, 3), fbm(Tile("r", 192), "n", 4, 3)
    assert np.allclose(small, large[1::3, 1::3], atol=1e-4)  # every third pixel centre coincides


def test_voronoi_agrees_with_all_points_by_brute_force() -> None:
    tile = Tile("v", 48)
    cells = voronoi(tile, "v", 5, 0.9)
    rng = tile.rng("v")
    x = 0.5 + 0.9 * (rng.random((5, 5)) - 0.5) + np.arange(5)[None, :]
    y = 0.5 + 0.9 * (rng.random((5, 5)) - 0.5) + np.arange(5)[:, None]
    dx = tile.x[..., None] * 5 - x.ravel()
    dy = tile.y[..., None] * 5 - y.ravel()
    distance = np.hypot(dx - 5 * np.round(dx / 5), dy - 5 * np.round(dy / 5))
    ordered = np.sort(distance, axis=-1)
    assert np.allclose(cells.f1, ordered[..., 0], atol=1e-4)
    assert np.array_equal(cells.cell, distance.argmin(axis=-1))
    assert (cells.border >= -1e-5).all()
    assert (cells.border <= 0.5 * (ordered[..., 1] - ordered[..., 0]) + 0.5 * ordered[..., 1] + 1e-4).all()


@pytest.mark.parametrize(
    "cells",
    [
        bricks(Tile("c", 96), 3, 6),
        planks(Tile("c", 96), 4, 2),
        herringbone(Tile("c", 96), 2, 3),
        basket(Tile("c", 96), 4, 3),
    ],
    ids=["bricks", "planks", "herringbone", "basket"],
)
def test_cells_are_a_partition_with_distances(cells) -> None:
    assert cells.cell.min() >= 0 and cells.cell.max() < cells.count
    assert cells.edge.min() > -1e-3 and cells.edge.max() < 0.5
    change = cells.cell != np.roll(cells.cell, -1, axis=1)
    assert cells.edge[change].max() < 0.08  # a pixel beside another cell lies near the edge, also across the border


def test_scales_hang_over_the_course_below() -> None:
    cells = scales(Tile("s", 96), 4, 6, depth=0.6)
    depth = cells.v
    assert cells.cell.min() >= 0 and cells.cell.max() < cells.count and (cells.edge > 0).all()
    change = (cells.cell != np.roll(cells.cell, -1, axis=0)) & (depth > np.roll(depth, -1, axis=0))
    assert change.any() and cells.edge[change].max() < 1.5 / 96  # downwards a scale ends at its free edge
    assert depth.max() > 0.95 and depth.min() < 0.2


def test_herringbone_boards_have_equal_areas() -> None:
    _, counts = np.unique(herringbone(Tile("h", 96), 2, 3).cell, return_counts=True)
    assert len(set(counts.tolist())) == 1 and counts[0] == 3 * 8 * 8


def test_bricks_that_cannot_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        bricks(Tile("b", 32), 4, 5, 0.5)
    with pytest.raises(ValueError, match="does not divide"):
        weave(Tile("w", 32), [[1, 0], [0, 1]], 5, 4)


def test_weave_shows_the_thread_that_passes_over() -> None:
    cloth = weave(Tile("w", 64), [[1, 0], [0, 1]], 8, 8)
    centre = cloth.warp_on_top[4::8, 4::8]  # middle of every crossing
    assert np.array_equal(centre, (np.add.outer(np.arange(8), np.arange(8)) % 2 == 0).astype(np.float32))
