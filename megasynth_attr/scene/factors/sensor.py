"""The sensor factor: what happens to light after it has entered the camera. It acts on the rendered picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.fields import scope, span, variants
from megasynth_attr.core.ranges import Range
from megasynth_attr.scene.factor import Draw, Factor, Records
from megasynth_attr.scene.spec import Vec3

GREYS = np.array([0.02, 0.18, 0.7])  # linear values at which two sensors are compared


@dataclass(frozen=True)
class SensorSettings:
    """A camera's sensor, perfect by default."""

    scope: str = scope()
    variants: int = variants()
    exposure_stops: Range[float] = span(0.0, 0.0, "exposure, added to render.exposure_stops", minimum=-8, maximum=8)
    warmth_stops: Range[float] = span(0.0, 0.0, "white balance: red over blue", minimum=-4, maximum=4)
    tint_stops: Range[float] = span(0.0, 0.0, "white balance: green over red and blue", minimum=-4, maximum=4)
    shot_noise: Range[float] = span(0.0, 0.0, "standard deviation at white; white is 1", minimum=0, maximum=1)
    read_noise: Range[float] = span(0.0, 0.0, "standard deviation in the dark; white is 1", minimum=0, maximum=1)
    vignetting: Range[float] = span(0.0, 0.0, "share of the light lost in the corners", minimum=0, maximum=1)


@dataclass(frozen=True)
class Sensor:
    """How light becomes pixel values."""

    exposure_stops: float
    gains: Vec3  # red, green, blue; the smallest is 1, so that what is saturated is white
    shot_noise: float  # standard deviation at white, grows with the root of the light
    read_noise: float
    vignetting: float
    noise_seed: int


def sample(rng: np.random.Generator, settings: SensorSettings, draw: Draw) -> Sensor:
    """Return a Sensor."""
    exposure, warmth = settings.exposure_stops.draw(rng), settings.warmth_stops.draw(rng)
    tint, shot = settings.tint_stops.draw(rng), settings.shot_noise.draw(rng)
    read, vignetting = settings.read_noise.draw(rng), settings.vignetting.draw(rng)
    stops = np.array([warmth / 2, tint, -warmth / 2])
    gains = rounded(2.0 ** (stops - stops.min()))
    return Sensor(rounded(exposure), gains, rounded(shot), rounded(read), rounded(vignetting), int(rng.integers(2**31)))


def exposed(linear_rgb: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Return H×W×3: the light that falls on the sensor; vignetting grows with the square of the image height."""
    height, width = linear_rgb.shape[:2]
    y, x = (2 * np.arange(height) + 1 - height) / height, (2 * np.arange(width) + 1 - width) / width
    off_axis = ((y * height)[:, None] ** 2 + (x * width)[None] ** 2) / (height**2 + width**2)
    return linear_rgb * (2.0**sensor.exposure_stops * (1 - sensor.vignetting * off_axis))[..., None]


def develop(linear_rgb: np.ndarray, sensor: Sensor, frame_index: int, rng: np.random.Generator) -> np.ndarray:
    """Return H×W×3 linear values: the light with noise, saturated at 1, then balanced."""
    light = exposed(linear_rgb, sensor)
    deviation = np.sqrt(sensor.shot_noise**2 * np.maximum(light, 0) + sensor.read_noise**2)
    return np.clip(light + deviation * rng.standard_normal(light.shape), 0, 1) * np.array(sensor.gains)


def describe(sensor: Sensor, records: Records) -> np.ndarray:
    """Return 3×3×3: GREYS developed in the middle and in a corner, and the noise in the middle, each as linear RGB."""
    middle = GREYS * 2.0**sensor.exposure_stops
    noise = np.sqrt(sensor.shot_noise**2 * middle + sensor.read_noise**2)
    rows = np.stack([np.minimum(middle, 1), np.minimum(middle * (1 - sensor.vignetting), 1), noise])
    return rows[..., None] * np.array(sensor.gains)


FACTOR = Factor(
    name="sensor",
    order=60,
    settings=SensorSettings,
    data=Sensor,
    sample=sample,
    describe=describe,
    changes_depth=False,
    develop=develop,
)
