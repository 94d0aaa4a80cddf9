"""Normals against analytic height fields, colour conversion, statistics."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megasynth_attr.core.srgb import linear_from_srgb, srgb_from_linear
from megasynth_attr.textures.surface import (
    Surface,
    maps_of,
    normals_from_height,
    statistics_of,
)


def test_normals_of_a_plane_wave_are_analytic() -> None:
    n, relief = 256, 0.03
    x, y = np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(n) + 0.5) / n)
    phase = 2 * np.pi * (2 * x + 3 * y)
    found = normals_from_height(np.sin(phase).astype(np.float32), relief)
    slope = relief * 2 * np.pi * np.cos(phase)
    # y is counted downwards in the image, the normal's y upwards: −∂h/∂x, +∂h/∂(down), 1
    expected = np.stack([-2 * slope, 3 * slope, np.ones_like(slope)], axis=-1)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    assert np.abs(found - expected).max() < 2e-3
    assert np.allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)


def test_a_bump_is_lit_from_where_it_faces() -> None:
    n = 65
    y, x = np.mgrid[:n, :n]
    normal = normals_from_height(np.exp(-((x - 32) ** 2 + (y - 32) ** 2) / 100.0), 0.2)
    assert normal[32, 40, 0] > 0.3 > -0.3 > normal[32, 24, 0]  # right flank faces right
    assert normal[24, 32, 1] > 0.3 > -0.3 > normal[40, 32, 1]  # the flank nearer to the top faces up


@given(st.floats(0, 1))
def test_srgb_round_trip(value: float) -> None:
    assert abs(float(srgb_from_linear(linear_from_srgb(np.array(value)))) - value) < 1e-6


def test_statistics_of_two_halves() -> None:
    color = np.zeros((8, 8, 3), np.float32)
    color[:4] = srgb_from_linear(np.array([0.6, 0.2, 0.1]))
    color[4:] = srgb_from_linear(np.array([0.2, 0.2, 0.1]))
    measured = statistics_of(maps_of(Surface(color, np.zeros((8, 8), np.float32), 0.25, 1.0)))
    assert np.allclose(measured.mean_linear_rgb, (0.4, 0.2, 0.1), atol=0.005)
    assert abs(measured.std_luminance - 0.2126 * 0.2) < 0.003
    assert abs(measured.mean_roughness - 0.25) < 0.003 and measured.mean_metallic == 1.0
