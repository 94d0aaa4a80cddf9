"""Isolation by construction: which factors differ between two scenes follows from the preset alone."""

import json
from dataclasses import replace

import pytest

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.farm.library import open_library
from megasynth_attr.scene.config import resolve
from megasynth_attr.scene.frame import camera_from_world
from megasynth_attr.scene.isolation import factor_spread
from megasynth_attr.scene.sample import sample_scene
from megasynth_attr.scene.spec import diff, scene_from_json, scene_to_json

VARIES = {
    "texture": {"texture"},
    "geometry": {"geometry"},
    "camera": {"camera"},
    "lighting": {"lighting"},
    "haze": {"haze"},
    "sensor": {"sensor"},
    "micro_texture": {"texture"},
    "micro_geometry": {"geometry"},
    "spoof_plane": {"texture"},
    "everything": {"geometry", "texture", "camera", "lighting"},
    "megasynth": {"geometry", "texture", "camera", "lighting"},
}
ACROSS_DATASETS_STILL = {"micro_texture": {"geometry", "lighting"}, "micro_geometry": {"lighting"}}


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def draw(preset, dataset=0, scene=0, *words):
        config = resolve([f"preset={preset}", "frames=6", *words]).members[0]
        return sample_scene(config, dataset, scene, open_library(config, cache).records)

    return draw


@pytest.mark.parametrize("preset", sorted(VARIES))
def test_scenes_of_a_dataset_differ_in_the_attribute_only(draw, preset):
    scenes = [draw(preset, 0, i) for i in (0, 1, 5)]
    for other in scenes[1:]:
        assert diff(scenes[0], other) == VARIES[preset]
    assert diff(draw(preset, 0, 5), scenes[2]) == set()  # the same indices give the same scene, in any order


@pytest.mark.parametrize("preset", ["texture", "geometry", "micro_texture", "micro_geometry"])
def test_datasets_differ_in_all_that_is_not_of_the_experiment(draw, preset):
    still = ACROSS_DATASETS_STILL.get(preset, set())
    differs = diff(draw(preset, 0), draw(preset, 1))
    assert not differs & still
    assert {"texture", "camera"} <= differs


def test_the_number_of_scenes_or_datasets_asked_for_changes_nothing(draw):
    assert diff(draw("texture", 0, 3), draw("texture", 0, 3, "scene_count=7", "workers=2", "scenes=3")) == set()


def test_seeds_change_everything(draw):
    assert diff(draw("everything"), draw("everything", 0, 0, "seed=1")) == {
        "geometry", "texture", "camera", "lighting", "noise",
    }  # fmt: skip


def test_a_factor_of_coarser_scope_cannot_see_a_finer_one(draw):
    # camera once per dataset, geometry per scene: half of the micro paths would look at a box, if they could see one
    a, b = draw("micro_geometry", 0, 0), draw("micro_geometry", 0, 1)
    assert a.factors["geometry"] != b.factors["geometry"]
    assert a.factors["camera"] == b.factors["camera"]


def test_variants_are_the_papers_small_sets(draw):
    scenes = [draw("texture", 0, i, "geometry.variants=3") for i in range(4)]
    assert diff(scenes[0], scenes[3]) == {"texture"}
    assert diff(scenes[0], scenes[1]) == {"texture", "geometry"}


@pytest.mark.parametrize("preset", sorted(VARIES))
def test_scene_files_round_trip(draw, preset):
    scene = draw(preset)
    again = scene_from_json(scene_to_json(scene))
    assert again == scene and diff(scene, again) == set()
    assert camera_from_world(again.factors["camera"]).tobytes() == camera_from_world(scene.factors["camera"]).tobytes()


def test_a_changed_scene_file_is_refused(draw):
    text = scene_to_json(draw("texture"))
    record = json.loads(text)
    record["factors"]["camera"]["fov_x_deg"] += 1e-6
    for bad, message in (
        (json.dumps(record), "hashes do not match"),
        (text[:-20], "not valid JSON"),
        ("[]", "expected format"),
        (json.dumps(json.loads(text) | {"factors": {"fog": {}}}), "unknown factor 'fog'"),
    ):
        with pytest.raises(DatasetError, match=message):
            scene_from_json(bad)


def test_spread_is_zero_exactly_where_factors_are_still(draw, tmp_path):
    config = resolve(["preset=lighting", "frames=6"]).members[0]
    records = open_library(config, tmp_path).records
    spread = factor_spread([draw("lighting", 0, i) for i in range(4)], records)
    assert spread["lighting"] > 0
    assert {name for name, value in spread.items() if value != 0} == {"lighting"}


def test_spread_of_the_reference_is_positive_everywhere(draw, tmp_path):
    config = resolve(["preset=everything", "frames=6"]).members[0]
    records = open_library(config, tmp_path).records
    assert all(v > 0 for v in factor_spread([draw("everything", 0, i) for i in range(4)], records).values())


def test_an_empty_pool_is_an_error(draw):
    with pytest.raises(ConfigError, match="no such material"):
        draw("texture", 0, 0, "texture.categories=[chocolate]")
    with pytest.raises(ConfigError, match="only"):
        draw("geometry", 0, 0, "texture.pool_size=100000")


def test_texture_slots_do_not_depend_on_how_many_there_are(draw):
    few, many = draw("texture", 0, 0, "texture.slot_count=10"), draw("texture", 0, 0, "texture.slot_count=200")
    assert many.factors["texture"].slots[:10] == few.factors["texture"].slots


def test_diff_sees_the_noise_seed(draw):
    scene = draw("texture")
    assert diff(scene, replace(scene, noise_seed=scene.noise_seed + 1)) == {"noise"}
