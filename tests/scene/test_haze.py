"""The haze factor: what is drawn, and how two hazes are compared."""

from __future__ import annotations

import numpy as np
import pytest

from megasynth_attr.core.ranges import Uniform
from megasynth_attr.scene.factor import Records
from megasynth_attr.scene.factors.haze import FACTOR, Haze, HazeSettings, describe, sample

NOTHING = Records({}, {}, {})


def test_draws_lie_in_their_ranges() -> None:
    settings = HazeSettings(density=Uniform(0.1, 0.4), colour=Uniform(0.5, 0.6), anisotropy=Uniform(-0.2, 0.2))
    rng = np.random.Generator(np.random.PCG64(0))
    for haze in [sample(rng, settings, None) for _ in range(30)]:
        assert 0.1 <= haze.density <= 0.4 and abs(haze.anisotropy) <= 0.2
        assert all(0.5 <= channel <= 0.6 for channel in haze.rgb)


def test_it_is_off_without_density() -> None:
    assert FACTOR.is_off(HazeSettings()) and FACTOR.is_off(HazeSettings(scope="dataset"))
    assert not FACTOR.is_off(HazeSettings(density=Uniform(0.0, 0.1)))


def test_describe_says_what_is_scattered_in_front_of_a_surface() -> None:
    described = describe(Haze(0.5, (1.0, 0.5, 0.0), 0.2, 6.0), NOTHING)
    assert described.shape == (5, 3)
    assert described[2].tolist() == pytest.approx([1 - np.exp(-1.0), (1 - np.exp(-1.0)) / 2, 0])  # after 2 scene units


@pytest.mark.parametrize("other", [(0.2, 0.9, 0.3), (0.1, 0.8, 0.3), (0.1, 0.9, 0.5)])
def test_density_colour_and_direction_all_count(other: tuple[float, float, float]) -> None:
    a, b = (describe(Haze(d, (c, c, c), g, 6.0), NOTHING) for d, c, g in ((0.1, 0.9, 0.3), other))
    assert FACTOR.distance(a, b) > 1e-3 and FACTOR.distance(a, a) == 0
