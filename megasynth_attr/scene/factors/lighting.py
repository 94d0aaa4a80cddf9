"""The lighting factor: ambient light, suns, room lights and environment pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import range_setting, scope, setting, span, variants
from megasynth_attr.core.ranges import LogUniform, Range, Uniform
from megasynth_attr.scene.factor import Draw, Factor, Records
from megasynth_attr.scene.probe import PROBE_NORMALS, irradiance
from megasynth_attr.scene.spec import AreaLight, Bulb, Hdri, Lighting, Sun

BULB_BRIGHT_P = 0.15  # this share of the bulbs is drawn from bulb_bright_strength


@dataclass(frozen=True)
class LightingSettings:
    """Lights. Strengths are absolute, seen at the preset's fixed exposure, and never normalised."""

    scope: str = scope()
    variants: int = variants()
    ambient_grey: Range[float] = span(0.55, 0.75, "grey of the ambient light", minimum=0, maximum=10)
    ambient_strength: float = setting(1.0, "factor on the ambient light", minimum=0, maximum=100)
    sun_count: Range[int] = range_setting(Uniform(0, 0), "number of suns", minimum=0, maximum=16)
    sun_irradiance: Range[float] = range_setting(LogUniform(0.5, 5.0), "W/m² of one sun", minimum=0.001, maximum=1000)
    sun_angle_deg: Range[float] = range_setting(
        LogUniform(0.5, 20.0), "angular size of a sun", minimum=0.01, maximum=90
    )
    sun_min_elevation_deg: float = setting(-10.0, "suns stand above this elevation", minimum=-90, maximum=89)
    area_power_w: float = setting(0.0, "room: power (W) of each of two area lights back to back; 0: none", minimum=0)
    area_edge: float = setting(0.25, "room: edge of the area lights (scene units)", minimum=0.01, maximum=1)
    window_sun_p: float = setting(0.0, "room: probability of a sun outside the window", minimum=0, maximum=1)
    window_sun_irradiance: Range[float] = span(0.2, 2.0, "room: W/m² of that sun", minimum=0)
    bulb_p: float = setting(0.0, "room: probability of bulbs", minimum=0, maximum=1)
    bulb_count: Range[int] = range_setting(Uniform(1, 3), "room: number of bulbs", minimum=0, maximum=16)
    bulb_edge: Range[float] = span(0.03, 0.05, "room: diameter of a bulb (scene units)", minimum=0.001, maximum=0.5)
    bulb_strength: Range[float] = span(0.2, 2.0, "room: radiance of a dim bulb, W/m²/sr", minimum=0)
    bulb_bright_strength: Range[float] = span(5.0, 8.0, "room: radiance of a bright bulb, W/m²/sr", minimum=0)
    hdris: str = setting(
        "", "folder of equirectangular .hdr/.exr pictures, one per draw instead of the ambient grey", path="folder"
    )
    hdri_strength: float = setting(1.0, "factor on the HDRI", minimum=0, maximum=100)


def sample(rng: np.random.Generator, settings: LightingSettings, draw: Draw) -> Lighting:
    """Return a Lighting. Window sun and bulbs are drawn even when they are off: switching them shifts no other draw."""
    grey = settings.ambient_grey.draw(rng)
    hdri_draw, hdri_rotation = rng.random(), rng.uniform(0, 360)
    has_window_sun, has_bulbs = rng.random() < settings.window_sun_p, rng.random() < settings.bulb_p
    window_sun = _window_sun(rng, settings)
    suns = _suns(rng, settings)
    bulbs = _bulbs(rng, settings)
    return Lighting(
        ambient_rgb=rounded([grey] * 3),
        ambient_strength=rounded(settings.ambient_strength),
        suns=(*suns, window_sun) if has_window_sun else suns,
        areas=_areas(settings),
        bulbs=bulbs if has_bulbs else (),
        hdri=_hdri(settings, draw, hdri_draw, hdri_rotation),
    )


def _suns(rng: np.random.Generator, settings: LightingSettings) -> tuple[Sun, ...]:
    """Return suns whose directions are uniform on the part of the sphere above the lowest elevation."""
    lowest, suns = np.sin(np.radians(settings.sun_min_elevation_deg)), []
    for _ in range(settings.sun_count.draw(rng)):
        height, azimuth = rng.uniform(lowest, 1.0), rng.uniform(0, 2 * np.pi)
        flat = np.sqrt(1 - height**2)
        direction = rounded([flat * np.cos(azimuth), flat * np.sin(azimuth), height])
        power = settings.sun_irradiance.draw(rng)
        angle, colour = settings.sun_angle_deg.draw(rng), rng.random(3)
        suns.append(Sun(direction, rounded(power), rounded(colour / colour.max()), rounded(angle), "world"))
    return tuple(suns)


def _window_sun(rng: np.random.Generator, settings: LightingSettings) -> Sun:
    """Return a warm sun 10° to 50° above the horizon and within 50° of the window's normal."""
    elevation, azimuth = np.radians(rng.uniform(10, 50)), np.radians(rng.uniform(-50, 50))
    to_light = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    power = settings.window_sun_irradiance.draw(rng)
    return Sun(rounded(to_light), rounded(power), (1.0, 0.95, 0.85), 0.5, "window")


def _areas(settings: LightingSettings) -> tuple[AreaLight, ...]:
    """Return two square emitters back to back at the centre, one shining up and one down."""
    if settings.area_power_w == 0:
        return ()
    origin, white = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    power, edge = rounded(settings.area_power_w), rounded(settings.area_edge)
    return tuple(AreaLight(origin, (0.0, 0.0, z), edge, power, white) for z in (1.0, -1.0))


def _bulbs(rng: np.random.Generator, settings: LightingSettings) -> tuple[Bulb, ...]:
    """Return small lights with the power of a cube of that edge and radiance: 6·edge²·π·radiance."""
    bulbs = []
    for _ in range(settings.bulb_count.draw(rng)):
        position = rng.uniform([-0.6, -0.6, -0.3], [0.6, 0.6, 0.3])
        edge = settings.bulb_edge.draw(rng)
        is_bright = rng.random() < BULB_BRIGHT_P
        radiance = (settings.bulb_bright_strength if is_bright else settings.bulb_strength).draw(rng)
        power = 6 * edge**2 * np.pi * radiance
        bulbs.append(Bulb(rounded(position), rounded(edge / 2), rounded(power), (1.0, 1.0, 1.0)))
    return tuple(bulbs)


def _hdri(settings: LightingSettings, draw: Draw, unit_draw: float, rotation_deg: float) -> Hdri | None:
    if not settings.hdris:
        return None
    records = list(draw.records.hdris.values())
    if not records:
        raise ConfigError(f"lighting.hdris={settings.hdris}: no HDRI was found there")
    record = records[int(unit_draw * len(records))]
    return Hdri(record.name, record.sha256, rounded(rotation_deg), rounded(settings.hdri_strength))


def describe(lighting: Lighting, records: Records) -> np.ndarray:
    """Return the light probe: 64×3 unshadowed irradiance (W/m², linear RGB) at the origin."""
    return irradiance(lighting, records.hdris, PROBE_NORMALS)


FACTOR = Factor(
    name="lighting",
    order=40,
    settings=LightingSettings,
    data=Lighting,
    sample=sample,
    describe=describe,
    changes_depth=False,
    optional=False,
)
