"""Lights and the light probe, against closed forms and a dense integral."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megasynth_attr.core.ranges import Uniform
from megasynth_attr.scene.factors.lighting import LightingSettings, sample
from megasynth_attr.scene.probe import (
    PROBE_NORMALS,
    equirectangular_directions,
    irradiance,
    project_hdri,
)
from megasynth_attr.scene.spec import Hdri, Lighting, Sun

DARK = Lighting((0.0, 0.0, 0.0), 0.0, (), (), (), None)
DRAW = SimpleNamespace(records=SimpleNamespace(hdris={}))


def test_ambient_irradiance_is_pi_times_radiance():
    light = Lighting((0.5, 0.25, 1.0), 2.0, (), (), (), None)
    np.testing.assert_allclose(irradiance(light, {}, PROBE_NORMALS), np.tile([np.pi, np.pi / 2, 2 * np.pi], (64, 1)))


def test_a_sun_lights_by_the_cosine():
    sun = Sun((0.0, 0.6, 0.8), 3.0, (1.0, 0.5, 0.0), 1.0, "world")
    light = Lighting((0.0, 0.0, 0.0), 0.0, (sun,), (), (), None)
    normals = np.array([[0, 0, 1.0], [0, 1.0, 0], [0, 0, -1.0]])
    np.testing.assert_allclose(irradiance(light, {}, normals), np.outer([2.4, 1.8, 0], [1, 0.5, 0]))


@pytest.mark.parametrize("rotation_deg", [0.0, 73.0])
def test_hdri_irradiance_against_a_dense_integral(rotation_deg):
    height, width = 64, 128
    directions, area = equirectangular_directions(height, width)
    assert area.sum() == pytest.approx(4 * np.pi, rel=1e-3)
    towards = np.array([0.6, -0.48, 0.64])
    radiance = (1.5 + directions @ towards)[..., None] * np.array([1.0, 0.5, 0.2])  # degree 1: the harmonics are exact
    records = {"sky.exr": SimpleNamespace(irradiance_sh=project_hdri(radiance))}
    light = Lighting((0.0, 0.0, 0.0), 0.0, (), (), (), Hdri("sky.exr", "", rotation_deg, 2.0))
    angle = np.radians(rotation_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = directions @ turn.T  # a picture rotated by +angle about z shows what was at d in direction turn·d
    cosine = np.maximum(np.einsum("nj,hwj->nhw", PROBE_NORMALS, turned), 0)
    dense = 2.0 * np.einsum("nhw,hwc,hw->nc", cosine, radiance, area)
    np.testing.assert_allclose(irradiance(light, records, PROBE_NORMALS), dense, rtol=5e-3, atol=5e-3)


def test_the_picture_looks_along_plus_x_in_its_centre():
    directions, _ = equirectangular_directions(64, 128)
    np.testing.assert_allclose(directions[32, 64], [1, 0, 0], atol=0.05)
    np.testing.assert_allclose(directions[32, 96], [0, -1, 0], atol=0.05)  # to the right: towards -y
    np.testing.assert_allclose(directions[0, 0], [0, 0, 1], atol=0.05)


@given(st.integers(0, 2**32))
def test_suns_keep_their_ranges(seed):
    settings = LightingSettings(sun_count=Uniform(2, 4))
    light = sample(np.random.default_rng(seed), settings, DRAW)
    assert 2 <= len(light.suns) <= 4
    for sun in light.suns:
        assert np.linalg.norm(sun.to_light) == pytest.approx(1, abs=1e-6)
        assert sun.to_light[2] >= np.sin(np.radians(-10)) - 1e-9
        assert 0.5 <= sun.irradiance_w_m2 <= 5 and 0.5 <= sun.angle_deg <= 20
        assert max(sun.rgb) == 1 and min(sun.rgb) >= 0


def test_sun_directions_are_uniform_on_the_sphere_above_the_limit():
    settings = LightingSettings(sun_count=Uniform(4, 4))
    heights = [s.to_light[2] for seed in range(500) for s in sample(np.random.default_rng(seed), settings, DRAW).suns]
    low = np.sin(np.radians(-10))  # uniform on the sphere = uniform in z (Archimedes)
    counts, _ = np.histogram(heights, bins=8, range=(low, 1))
    expected = len(heights) / 8
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # chi-square, 7 degrees of freedom, p = 0.001


@given(st.integers(0, 2**32))
def test_switching_one_light_on_shifts_no_other(seed):
    plain = sample(np.random.default_rng(seed), LightingSettings(), DRAW)
    full = sample(np.random.default_rng(seed), LightingSettings(window_sun_p=1.0, bulb_p=1.0, area_power_w=5.0), DRAW)
    assert full.ambient_rgb == plain.ambient_rgb
    assert [s.frame for s in full.suns] == ["window"] and plain.suns == ()
    assert len(full.areas) == 2 and 1 <= len(full.bulbs) <= 3
