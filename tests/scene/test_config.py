"""Presets plus words become one checked configuration; every mistake names itself and what was meant."""

import dataclasses

import pytest

from megasynth_attr.core.command.words import Typed
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.scene.config import load_preset, preset_names, resolve, schema

DATASET_PRESETS = [name for name in preset_names() if {"attribute", "members"} & set(load_preset(name))]


@pytest.mark.parametrize("name", DATASET_PRESETS)
def test_every_preset_resolves(name):
    experiment = resolve([f"preset={name}", "geometry.scan_folder=meshes"])  # only presets of scans need one
    assert experiment.out.parts[-2:] == ("runs", name)
    assert all(config.attribute for config in experiment.members)


def test_the_papers_numbers():
    human, spoof = resolve(["preset=paper_human"]), resolve(["preset=paper_spoof"])
    assert [c.attribute for c in human.members] == ["texture", "geometry", "camera", "lighting"]
    assert [c.attribute for c in human.configs][4:] == ["everything"]
    assert [c.attribute for c in spoof.configs] == ["micro_texture", "micro_geometry", "spoof_plane"]
    for experiment, datasets in ((human, 10), (spoof, 5)):
        for config in experiment.configs:
            assert (config.render.width_px, config.render.height_px) == (518, 518)
        for config in experiment.members:
            content = config.content
            assert (content.dataset_count, content.scene_count, content.frames) == (datasets, 200, 100)
        assert experiment.downstream is not None and experiment.downstream.content.dataset_count == 2


def test_controlled_attributes_differ_in_their_scopes_alone_and_have_the_same_downstream_data():
    names = "[texture,geometry,camera,lighting,nothing,everything]"
    members = resolve(["preset=controlled_human", f"members={names}", "downstream="]).members
    constants = [
        ({name: dataclasses.replace(factor, scope="") for name, factor in member.factors.items()}, member.render)
        for member in members
    ]
    assert all(of_member == constants[0] for of_member in constants)
    varies = [{name for name, factor in member.factors.items() if factor.scope == "scene"} for member in members]
    assert varies == [{"texture"}, {"geometry"}, {"camera"}, {"lighting"}, set(), set(members[0].factors)]
    pair = [resolve([f"preset={name}"]) for name in ("paper_human", "controlled_human")]
    fingerprints = [experiment.downstream.fingerprint() for experiment in pair]
    assert fingerprints[0] == fingerprints[1]
    assert pair[0].sections == pair[1].sections


def test_precedence_defaults_preset_file_words(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("frames: 7\nseed: 3\ncamera: {fov_x_deg: [50, 60]}\n")
    config = resolve(["preset=texture", f"config={file}", "frames=9"]).members[0]
    assert config.content.frames == 9  # the command line beats the file
    assert config.content.seed == 3  # the file beats the preset
    assert config.factors["camera"].fov_x_deg == Uniform(50.0, 60.0)
    assert config.factors["texture"].pool_size == 0  # the preset beats what it extends
    assert config.factors["geometry"].scope == "dataset"  # what it extends beats the defaults


def test_members_keep_their_own_settings_below_the_collections(tmp_path):
    members = {c.attribute: c for c in resolve(["preset=demo", "render.width_px=140"]).configs}
    assert members["camera"].factors["camera"].target_sigma == 0.35
    assert members["texture"].factors["camera"].target_sigma == 0.0
    assert {c.render.width_px for c in members.values()} == {140}
    assert {c.render.height_px for c in members.values()} == {load_preset("demo")["render"]["height_px"]}


def test_the_downstream_preset_is_one_more_member_with_its_own_number_of_datasets():
    words = ["preset=demo", "dataset_count=5", "datasets=0-3", "frames=6"]
    experiment = resolve(words)
    members, downstream = experiment.members, experiment.downstream
    assert [c.attribute for c in members] == ["texture", "geometry", "camera", "lighting"]
    assert {(c.content.dataset_count, c.run.datasets) for c in members} == {(5, "0-3")}
    assert (downstream.attribute, downstream.content.dataset_count, downstream.run.datasets) == ("everything", 2, "all")
    assert downstream.content.frames == 6 and downstream.render.width_px == members[0].render.width_px
    assert resolve([*words, "downstream_count=4"]).configs[-1].content.dataset_count == 4
    without = resolve([*words, "downstream="])
    assert without.downstream is None and [c.attribute for c in without.members] == [c.attribute for c in members]
    assert [c.fingerprint() for c in without.members] == [c.fingerprint() for c in members]


def test_folders_of_scans_are_downstream_data(tmp_path):
    words = ["preset=paper_human", "downstream.thuman=/t", "downstream.twok2k=/k"]
    experiment = resolve(words)
    assert [c.attribute for c in experiment.configs[4:]] == ["thuman", "twok2k"]
    assert experiment.downstream.run.datasets == "all" and [c.run.datasets for c in experiment.across] == ["1"]
    assert [c.factors["geometry"].scan_folder for c in experiment.configs[4:]] == ["/t", "/k"]
    usual = resolve(["preset=paper_human"])
    assert [c.fingerprint() for c in usual.members] == [c.fingerprint() for c in experiment.members]
    assert usual.downstream.attribute == "everything" and not usual.across and not usual.photographs
    only = resolve(["preset=paper_human", "downstream.clearpose=/c"])
    assert (only.downstream, only.photographs) == (None, {"clearpose": "/c"})
    keys = resolve(["preset=paper_human", "downstream.thuman.geometry.scan_folder=/t", "downstream.thuman.frames=16"])
    assert keys.downstream.content.frames == 16 and keys.members[0].content.frames == 100


def test_one_preset_may_have_downstream_data_too():
    texture, everything = resolve(["preset=texture", "downstream=everything", "seed=3"]).configs
    assert texture.fingerprint() == resolve(["preset=texture", "seed=3"]).members[0].fingerprint()
    assert everything.fingerprint() == resolve(["preset=everything", "seed=3"]).members[0].fingerprint()


def test_the_training_section_belongs_to_no_dataset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("members: [texture]\ntraining: {optim: {steps: 7, lr: 0.1}, anything: [1, 2]}\n")
    experiment = resolve([f"preset={file}", "training.optim.steps=9"])
    assert experiment.sections == {"training": {"optim": {"steps": Typed(("9",)), "lr": 0.1}, "anything": [1, 2]}}
    assert experiment.members[0].fingerprint() == resolve(["preset=texture"]).members[0].fingerprint()


def test_a_leading_double_dash_is_dropped():
    assert resolve(["--preset=texture", "--seed=5"]).members[0].content.seed == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["preset=geometri"], "did you mean geometry"),
        (["preset=no/such.yaml"], "no such file"),
        (["preset=texture", "camera.fov=[40,50]"], "did you mean camera.fov_x_deg"),
        (["preset=texture", "fraems=3"], "did you mean frames"),
        (["preset=texture", "frames"], "key=value"),
        (["preset=texture", "frames=many"], "frames"),
        (["preset=texture", "frames=-3"], "at least 1"),
        (["preset=texture", "frames=2.5"], "frames"),
        (["preset=texture", "render.denoiser_device=gpu"], "this run renders on the CPU; choose a GPU with device="),
        (["preset=texture", "camera.fov_x_deg=[70,45]"], "range is empty"),
        (["preset=texture", "camera.fov_x_deg=[45]"], "camera.fov_x_deg"),
        (["preset=texture", "camera.fov_x_deg=[1,9999]"], "camera.fov_x_deg"),
        (["preset=texture", "camera.clearance=.nan"], "finite"),
        (["preset=texture", "camera=orbit"], "section"),
        (["preset=texture", "camera.family=orbitt"], "must be one of"),
        (["preset=texture", "quality=best"], "must be one of draft, default, reference"),
        (["preset=texture", "render.width_px=500"], "multiples of 14"),
        (["preset=texture", "camera.family=room"], "geometry.layout"),
        (["preset=micro_geometry", "camera.family=room"], "must not"),
        (["preset=texture", "plugins=[nowhere.py]"], "no file nowhere.py"),
        (["preset=objects"], "names no attribute"),
        (["preset=texture", "attribute=../up"], "folder name"),
        (["preset=texture", "members=[texture,texture]"], "same attribute"),
        (["preset=texture", "frames=[1"], "frames=[1: expected a whole number"),
        (["preset=texture", "camera.fov_x_deg=[1"], "camera.fov_x_deg=[1: the brackets cannot be read"),
        (["preset=texture", "downstream=everythin"], "did you mean everything"),
        (["preset=texture", "downstream=texture"], "same attribute"),
        (["preset=texture", "downstream=everything", "downstream_count=1"], "at least 2"),
        (["preset=texture", "downstream.thumann=/t"], "did you mean thuman"),
        (["preset=texture", "downstream.thuman="], "downstream.thuman= is empty"),
        (["preset=texture", "downstream.everything=/t"], "renders no meshes of a folder"),
        (["preset=texture", "downstream.clearpose=/c", "downstream.thuman=/t"], "a comparison of its own"),
        (["preset=texture", "training=5"], "section"),
    ],
)
def test_mistakes_name_themselves(words, message):
    with pytest.raises(ConfigError) as caught:
        resolve(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_preset_that_extends_itself(tmp_path):
    (tmp_path / "a.yaml").write_text(f"extends: {tmp_path / 'a.yaml'}\nattribute: x\n")
    with pytest.raises(ConfigError, match="extends itself"):
        resolve([f"preset={tmp_path / 'a.yaml'}"])


def test_preset_that_names_another_as_a_command_line_does(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: demo\npreset: texture\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    for name in ("a", "b"):
        with pytest.raises(
            ConfigError, match=r"a\.yaml: a preset names the one it builds on with extends:, not with pre"
        ):
            resolve([f"preset={tmp_path / name}.yaml"])


@pytest.mark.parametrize("parents", ["5", "null", "{a: b}", "[texture, 7]"])
def test_preset_that_extends_no_name(parents, tmp_path):
    (tmp_path / "a.yaml").write_text(f"extends: {parents}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: extends names one preset or a list of them"):
        resolve([f"preset={tmp_path / 'a.yaml'}"])


def test_broken_yaml_names_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text("frames: [1\n")
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        resolve([f"preset={tmp_path / 'a.yaml'}"])


def test_image_sizes_are_free_without_the_training_layout():
    config = resolve(["preset=texture", "render.width_px=500", "training_layout=false"]).members[0]
    assert config.render.width_px == 500


def test_fingerprint_follows_content_only():
    def fingerprint(*words):
        return resolve(["preset=texture", *words]).members[0].fingerprint()

    base = fingerprint()
    for words in (["workers=2"], ["scenes=0-3"], ["scene_count=999"], ["dataset_count=3"], ["out=elsewhere"]):
        assert fingerprint(*words) == base, words
    for words in (["frames=99"], ["seed=1"], ["camera.clearance=0.11"], ["quality=draft"], ["write.normal=true"]):
        assert fingerprint(*words) != base, words


def test_every_key_says_what_it_means():
    def walk(kind):
        for field in dataclasses.fields(kind):
            if dataclasses.is_dataclass(field.type):
                walk(field.type)
            else:
                assert field.metadata["help"], field.name

    walk(schema())
