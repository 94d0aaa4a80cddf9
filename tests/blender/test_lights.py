"""Lights have the strengths, places and directions of scene/spec.py: a white diffuse surface shows irradiance / pi."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from blender_jobs import AREA, BALL_SIZE, BULB, SUNS, sky
from blender_runtime import Outcome

from megasynth_attr.scene.probe import irradiance, project_hdri
from megasynth_attr.scene.spec import Hdri


def ball(outcome: Outcome, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (colours N×3, directions N×3) of the white ball's pixels, off its rim; 8 bit limits them to below 1."""
    from analytic_scenes import hit_sphere, look_at, pixel_rays
    from blender_jobs import camera

    view = camera(look_at((2.5, -2.0, 1.5), (0, 0, 0)))
    origin, rays = pixel_rays(view, 0, *BALL_SIZE)
    depth, normal = hit_sphere(origin, rays, np.zeros(3), 0.5)
    colour = outcome.linear(name)
    facing = -(normal * rays).sum(-1) / np.linalg.norm(rays, axis=-1)
    chosen = (depth > 0) & (facing > 0.4) & (colour.max(axis=-1) < 0.98)
    return colour[chosen], normal[chosen]


def test_suns_have_their_irradiance_and_direction(outcome: Outcome) -> None:
    colour, normal = ball(outcome, "suns")
    expected = irradiance(SUNS, {}, normal) / np.pi
    soft = (
        irradiance(dataclasses.replace(SUNS, suns=SUNS.suns[1:]), {}, normal) / np.pi
    )  # the 20° sun has a wide terminator
    clear = np.abs(normal @ np.asarray(SUNS.suns[1].to_light)) > 0.2
    assert clear.mean() > 0.5 and soft.max() > 0.2
    assert np.abs(colour - expected)[clear].max() < 0.02
    assert np.abs(colour - expected)[clear].mean() < 0.005


@pytest.mark.parametrize(("name", "rotation_deg", "strength"), [("sky", 0.0, 1.0), ("sky_turned", 130.0, 0.5)])
def test_the_sky_stands_where_the_probe_thinks(
    outcome: Outcome, name: str, rotation_deg: float, strength: float
) -> None:
    """The light probe projects the picture to harmonics of degree 2, which for a wide spot is within a few per cent."""
    colour, normal = ball(outcome, name)
    coefficients = project_hdri(sky())
    light = dataclasses.replace(SUNS, suns=(), hdri=Hdri("sky", "", rotation_deg, strength))
    expected = irradiance(light, {"sky": SimpleNamespace(irradiance_sh=coefficients)}, normal) / np.pi
    assert np.abs(colour - expected).max() < 0.06 * expected.max()
    assert np.corrcoef(colour[:, 0], expected[:, 0])[0, 1] > 0.995


def floor_under(height: float, offset: tuple[float, float], intensity: float, *, lambertian: bool) -> np.ndarray:
    """Return irradiance / pi on the 42×42 floor of white_floor() under a light of ``intensity`` W/sr downwards."""
    reach = 3.0 * np.tan(np.radians(10)) / 21
    x, y = np.meshgrid((np.arange(42) - 20.5) * reach, -(np.arange(42) - 20.5) * reach)
    squared = (x - offset[0]) ** 2 + (y - offset[1]) ** 2 + height**2
    cosine = height / np.sqrt(squared)
    return intensity * cosine * (cosine if lambertian else 1.0) / squared / np.pi


def test_an_area_light_emits_its_power(outcome: Outcome) -> None:
    """A Lambertian square of P watt has the intensity P / pi on its axis."""
    expected = floor_under(AREA.position[2], AREA.position[:2], AREA.power_w / np.pi, lambertian=True)
    assert expected.max() < 0.98
    assert np.abs(outcome.linear("area_light")[..., 0] / expected - 1).max() < 0.04


def test_a_bulb_emits_its_power(outcome: Outcome) -> None:
    """An isotropic light of P watt has the intensity P / 4 pi."""
    expected = floor_under(BULB.position[2], BULB.position[:2], BULB.power_w / (4 * np.pi), lambertian=False)
    assert expected.max() < 0.98
    assert np.abs(outcome.linear("bulb")[..., 0] / expected - 1).max() < 0.04


def test_a_window_sun_shines_through_its_window_only(outcome: Outcome) -> None:
    """Two suns: 0.1 W/m² from above, and 0.5 W/m² from 37° above the window's normal; dark where there is no window."""
    lit, dark = (outcome.linear(name)[15:27, 15:27, 0].mean() for name in ("window_sun", "no_window"))
    assert abs(dark - 0.1 / np.pi) < 0.002
    assert abs(lit - (0.1 + 0.5 * 0.6) / np.pi) < 0.004
