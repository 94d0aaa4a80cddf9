"""Every range key of every factor takes every kind of range, and draws from it wherever it is used."""

import dataclasses

import pytest

from megasynth_attr.core.codec import is_range_type
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import check
from megasynth_attr.core.ranges import LogUniform, OneOf, Range, Uniform
from megasynth_attr.farm.library import open_library
from megasynth_attr.scene.config import resolve
from megasynth_attr.scene.factor import registered
from megasynth_attr.scene.sample import sample_scene

EVERYTHING_ON = (
    *("frames=3", "geometry.tessellation=3", "texture.slot_count=8", "texture.override_scene_p=1"),
    *("texture.override_slot_p=1", "lighting.window_sun_p=1", "lighting.bulb_p=1", "lighting.sun_count=[2,2]"),
    *(f"geometry.{what}_probability=1" for what in ("frame", "slab", "stick", "window")),
    *("geometry.window_fence=1",),
)
VALUES = {"texture.tiles_per_unit": 3.0, "geometry.stick_length": 0.4}  # defaults that say too little, or too much
RANGES = [
    (name, field.name)
    for name, factor in registered().items()
    for field in dataclasses.fields(factor.settings)
    if "pair" in field.metadata
]


@pytest.fixture(scope="module", params=["objects", "room"])
def base(request, tmp_path_factory):
    preset = {"objects": "everything", "room": "megasynth"}[request.param]
    config = resolve([f"preset={preset}", *EVERYTHING_ON]).members[0]
    return config, open_library(config, tmp_path_factory.mktemp("cache")).records


def settings_of(config, factor):
    return config.factors.get(factor) or registered()[factor].settings()  # absent: it is off


def drawn(base, factor, key, value):
    config, records = base
    settings = dataclasses.replace(settings_of(config, factor), **{key: value})
    check(settings, factor)
    settings.validate(factor, config.factors) if hasattr(settings, "validate") else None
    config = dataclasses.replace(config, factors={**config.factors, factor: settings})
    return sample_scene(config, 0, 1, records).factors


@pytest.mark.parametrize(("factor", "key"), RANGES)
def test_one_number_is_the_same_however_it_is_written(base, factor, key):
    """A range of one number leaves nothing to chance: all kinds must give the same scene."""
    default = getattr(settings_of(base[0], factor), key) or Uniform(2, 2)
    number = VALUES.get(f"{factor}.{key}", default.high) or 0.5  # 0, where off, has no logarithm
    if default.is_whole:
        scenes = [drawn(base, factor, key, kind) for kind in (OneOf((number,)), LogUniform(number, number))]
    else:
        kinds = (Uniform(number, number), OneOf((number,)), LogUniform(number, number))
        scenes = [drawn(base, factor, key, kind) for kind in kinds]
    assert all(scene == scenes[0] for scene in scenes)


def test_all_range_keys_are_typed_as_ranges():
    for factor, key in RANGES:
        hint = registered()[factor].settings.__dataclass_fields__[key].type
        assert hint in ("Range[float]", "Range[int]", "Range[int] | None"), f"{factor}.{key}: {hint}"
        default = registered()[factor].settings.__dataclass_fields__[key].default
        assert default is None or default.is_whole is hint.startswith("Range[int]")
    assert len(RANGES) > 50 and is_range_type(Range[float])


WORDS = {
    "camera.fov_x_deg={one_of: [50, 60]}": lambda f: f["camera"].fov_x_deg in (50, 60),
    "lighting.sun_count={one_of: [1, 3]}": lambda f: len(f["lighting"].suns) in (1, 3),
    "lighting.sun_irradiance={one_of: [1, 3]}": lambda f: {s.irradiance_w_m2 for s in f["lighting"].suns} <= {1, 3},
    "texture.tiles_per_unit={one_of: [0, 2]}": lambda f: f["texture"].tiles_per_unit in (None, 2),
    "geometry.large_count={one_of: [1, 5]}": lambda f: f["geometry"].boxes,
    "geometry.large_primitives={one_of: [1, 9]}": lambda f: sizes_of(f["geometry"], "large") <= {1, 9},
}


def sizes_of(geometry, kind):
    held = [p.box for p in geometry.primitives]
    return {held.count(index) for index, box in enumerate(geometry.boxes) if box.kind == kind}


@pytest.mark.parametrize("word", WORDS)
def test_values_come_from_what_the_words_say(word, tmp_path):
    config = resolve(["preset=everything", "frames=2", word]).members[0]
    records = open_library(config, tmp_path).records
    scenes = [sample_scene(config, 0, i, records).factors for i in range(6)]
    assert all(WORDS[word](factors) for factors in scenes)
    assert config.fingerprint() != resolve(["preset=everything", "frames=2"]).members[0].fingerprint()


@pytest.mark.parametrize("key", ["distance", "elevation_sin"])
def test_only_an_interval_has_parts(key):
    words = ["preset=everything", "camera.ranges_per_dataset=true"]
    with pytest.raises(ConfigError, match=rf"camera.{key}: one of 0.7, 0.8 has no parts"):
        resolve([*words, f"camera.{key}={{one_of: [0.7, 0.8]}}"])
    assert resolve([*words, f"camera.{key}=[0.7,0.8]"])
