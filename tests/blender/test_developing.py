"""Factors that act while a picture is developed: which, in what order, and from which randomness. No Blender needed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from analytic_scenes import camera, geometry, look_at, scene, solid

from megasynth_attr.blender.build import builder, factors_of
from megasynth_attr.blender.render import developers
from megasynth_attr.core.errors import DatasetError, RenderError
from megasynth_attr.scene.factor import registered
from megasynth_attr.scene.factors.sensor import Sensor
from megasynth_attr.scene.spec import Scene

SENSOR = Sensor(0.0, (1.0, 1.0, 1.0), 0.1, 0.02, 0.0, 5)
GREY = np.full((6, 8, 3), 0.18, np.float32)


def scene_with(**factors: object) -> Scene:
    plain = scene(geometry([((0, 0, 0), (1, 1, 1))], [solid("cuboid")]), camera(look_at((2, 0, 0), (0, 0, 0))))
    return dataclasses.replace(plain, factors=plain.factors | factors)


def developed(spec: Scene, frame: int) -> np.ndarray:
    (develop,) = developers(spec, frame)
    return develop(GREY)


def test_the_four_that_always_count_develop_nothing() -> None:
    assert developers(scene_with(), 0) == []


def test_noise_follows_from_the_data_and_the_frame_alone() -> None:
    spec = scene_with(sensor=SENSOR)
    elsewhere = dataclasses.replace(spec, attribute="other", scene_index=9, noise_seed=3, root_seed=4)
    later = developed(spec, 1)
    assert np.array_equal(developed(spec, 0), developed(elsewhere, 0))
    assert not np.array_equal(developed(spec, 0), later) and np.array_equal(developed(spec, 1), later)
    other = scene_with(sensor=dataclasses.replace(SENSOR, noise_seed=6))
    assert not np.array_equal(developed(spec, 0), developed(other, 0))
    assert np.all(np.float32(0.18) == GREY)


@pytest.mark.parametrize("result", [GREY[:2], GREY * np.nan])
def test_what_is_no_picture_is_named(result: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(registered()["sensor"], develop=lambda *_: result)
    monkeypatch.setattr("megasynth_attr.blender.render.factors_of", lambda spec: [broken])
    with pytest.raises(RenderError, match="the factor 'sensor' developed is no picture"):
        developed(scene_with(sensor=SENSOR), 0)


def test_a_factor_that_nothing_defines_is_not_rendered() -> None:
    with pytest.raises(DatasetError, match="the factor 'fog', which no loaded plugin defines"):
        factors_of(scene_with(fog={"density": 1.0}))


def test_a_factor_that_does_nothing_is_refused() -> None:
    sensor = registered()["sensor"]
    assert builder(sensor) is None
    with pytest.raises(RenderError, match="no picture can show the factor 'smell'"):
        builder(dataclasses.replace(sensor, name="smell", develop=None))
