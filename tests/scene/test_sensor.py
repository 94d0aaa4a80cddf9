"""The sensor against arithmetic: exposure, balance, saturation, vignetting, and noise of the stated size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from megasynth_attr.core.ranges import Uniform
from megasynth_attr.scene.factor import Records
from megasynth_attr.scene.factors.sensor import FACTOR, Sensor, SensorSettings, describe, develop, sample

PERFECT = Sensor(0.0, (1.0, 1.0, 1.0), 0.0, 0.0, 0.0, 0)
NOTHING = Records({}, {}, {})


def through(sensor: Sensor, light: float, shape: tuple[int, int] = (3, 5)) -> np.ndarray:
    return develop(np.full((*shape, 3), light, np.float32), sensor, 0, np.random.Generator(np.random.PCG64(1)))


def changed(**values: object) -> Sensor:
    return dataclasses.replace(PERFECT, **values)


def test_a_perfect_sensor_only_saturates() -> None:
    assert np.all(through(PERFECT, 0.25) == 0.25)
    assert np.all(through(PERFECT, 3.0) == 1.0)


def test_exposure_and_gains() -> None:
    sensor = changed(exposure_stops=-1.0, gains=(2.0, 1.0, 1.5))
    assert np.allclose(through(sensor, 0.4), [0.4, 0.2, 0.3])
    assert np.all(through(sensor, 9.0) >= 1.0)  # what is saturated stays white


@pytest.mark.parametrize("shape", [(1000, 1000), (400, 1000)])
def test_vignetting_takes_its_share_in_the_corners_and_nothing_in_the_middle(shape: tuple[int, int]) -> None:
    picture = through(changed(vignetting=0.6), 1.0, shape)[..., 0]
    assert picture[0, 0] == picture[-1, -1] == pytest.approx(1 - 0.6, abs=2e-3)
    assert picture[shape[0] // 2, shape[1] // 2] == pytest.approx(1.0, abs=1e-5)
    edge, diagonal = shape[1] ** 2, shape[0] ** 2 + shape[1] ** 2
    assert picture[shape[0] // 2, 0] == pytest.approx(1 - 0.6 * edge / diagonal, abs=2e-3)


@pytest.mark.parametrize("light", [0.0001, 0.2, 0.6])
def test_noise_has_the_variance_of_photons_and_reading(light: float) -> None:
    sensor = changed(shot_noise=0.05, read_noise=0.0)
    values = through(sensor, light, (300, 300))
    deviation = 0.05 * np.sqrt(light)
    if light > 0.01:  # darker, half of it is cut off at 0
        assert values.mean() == pytest.approx(light, abs=4 * deviation / 500)
        assert values.std() == pytest.approx(deviation, rel=0.01)
        both = through(changed(shot_noise=0.05, read_noise=0.03), light, (300, 300))
        assert both.std() == pytest.approx(np.hypot(deviation, 0.03), rel=0.01)
    assert values.min() >= 0


def test_draws_lie_in_their_ranges_and_the_smallest_gain_is_one() -> None:
    settings = SensorSettings(
        exposure_stops=Uniform(-1.0, 2.0),
        warmth_stops=Uniform(-1.0, 1.0),
        tint_stops=Uniform(-0.5, 0.5),
        vignetting=Uniform(0.1, 0.2),
    )
    rng = np.random.Generator(np.random.PCG64(0))
    drawn = [sample(rng, settings, None) for _ in range(50)]
    assert all(-1 <= s.exposure_stops <= 2 and 0.1 <= s.vignetting <= 0.2 and min(s.gains) == 1.0 for s in drawn)
    assert all(abs(np.log2(s.gains[0] / s.gains[2])) <= 1 + 1e-6 for s in drawn)
    assert len({s.noise_seed for s in drawn}) == 50


def test_off_means_defaults_whatever_the_scope() -> None:
    assert FACTOR.is_off(SensorSettings(scope="dataset", variants=4))
    assert not FACTOR.is_off(SensorSettings(shot_noise=Uniform(0.0, 0.1)))


@pytest.mark.parametrize(
    "values", [{"exposure_stops": 1.0}, {"gains": (1.5, 1.0, 1.0)}, {"read_noise": 0.1}, {"vignetting": 0.5}]
)
def test_every_part_counts_in_the_distance_of_two_sensors(values: dict[str, object]) -> None:
    perfect, other = describe(PERFECT, NOTHING), describe(changed(**values), NOTHING)
    assert FACTOR.distance(perfect, other) > 0.005 and FACTOR.distance(other, other) == 0
