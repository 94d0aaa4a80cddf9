"""Writing and reading back: exact values, equal bytes, what is refused."""

from __future__ import annotations

import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import synthetic
from PIL import Image
from synthetic import tree

from megasynth_attr.core.errors import ConfigError, DatasetError, RenderError
from megasynth_attr.core.files import storage_problem
from megasynth_attr.dataset import images, paths
from megasynth_attr.dataset.reader import open_dataset, open_experiment
from megasynth_attr.dataset.record_file import checksum_of
from megasynth_attr.dataset.writer import SceneWriter, finalise, open_for_writing
from megasynth_attr.scene.config import Config
from megasynth_attr.scene.frame import camera_from_world


def test_what_was_rendered_is_read_back(pristine: Path) -> None:
    settings = synthetic.config(*synthetic.ALL_LAYERS)
    dataset = open_dataset(pristine)
    assert (dataset.attribute, dataset.dataset_index, len(dataset.scenes)) == ("texture", 0, synthetic.SCENES)
    for data in dataset.scenes:
        spec = synthetic.scene(settings, data.index)
        assert data.scene == spec
        np.testing.assert_array_equal(data.camera_from_world, camera_from_world(spec.factors["camera"]))
        assert len(data.views) == synthetic.FRAMES
        for view, frame in zip(data.views, synthetic.frames(settings, spec), strict=True):
            np.testing.assert_array_equal(view.image, frame.rgba)
            np.testing.assert_array_equal(view.rgb, frame.rgba[..., :3])
            np.testing.assert_array_equal(view.depth_z, frame.depth_z)
            np.testing.assert_array_equal(view.instance, frame.instance)
            np.testing.assert_array_equal(view.position, frame.position)
            np.testing.assert_allclose(view.normal, frame.normal, atol=5e-4)
            hit = frame.depth_z > 0
            np.testing.assert_allclose(view.points_world()[hit], frame.position[hit], atol=2e-6)
            assert np.isnan(view.points_world()[~hit]).all()


def test_intrinsics_follow_the_stated_convention(pristine: Path) -> None:
    view = open_dataset(pristine).scenes[0].views[0]
    focal = 35 / np.tan(np.radians(27.5))
    np.testing.assert_allclose(view.intrinsics, [[focal, 0, 35], [0, focal, 28], [0, 0, 1]], rtol=1e-12)
    assert view.intrinsics.dtype == view.camera_from_world.dtype == np.float64


def test_two_runs_write_equal_bytes(pristine: Path, tmp_path: Path) -> None:
    again = synthetic.write_dataset(synthetic.config(*synthetic.ALL_LAYERS), tmp_path / "elsewhere")
    assert tree(again) == tree(pristine)
    assert not list(again.glob("tmp/*"))


def test_dataset_record_explains_itself(pristine: Path) -> None:
    record = json.loads((pristine / "dataset.json").read_text())
    settings = synthetic.config(*synthetic.ALL_LAYERS)
    assert record["format"] == "megasynth-attr dataset 1"
    assert record["fingerprint"] == settings.fingerprint()
    assert "run" not in record["config"]
    assert "pixel" in record["conventions"]["depth"]
    assert [m["name"] for m in record["materials"]] == ["basalt", "gneiss", "granite"]
    assert sorted(record["scenes"]) == ["000000", "000001", "000002"]
    assert record["scenes"]["000001"]["hashes"] == open_dataset(pristine).scenes[1].scene.hashes()


def test_float16_depth_is_half_precision(tmp_path: Path) -> None:
    settings = synthetic.config("write.depth=float16", "scene_count=1")
    folder = synthetic.write_dataset(settings, tmp_path)
    view = open_dataset(folder).scenes[0].views[0]
    exact = next(synthetic.frames(settings, synthetic.scene(settings, 0))).depth_z
    assert images.read_exr(view.file("depth"))["Z"].dtype == np.float16
    np.testing.assert_array_equal(view.depth_z, exact.astype(np.float16).astype(np.float32))
    assert view.normal is None and view.instance is None and view.position is None


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_depth_codec_keeps_every_bit(tmp_path: Path, precision: str) -> None:
    depth = np.random.default_rng(0).lognormal(size=(33, 47)).astype(precision)
    depth[0, :4] = [0, np.finfo(precision).tiny, np.finfo(precision).max, 1]
    images.write_depth(tmp_path / "z.exr", depth, precision)
    np.testing.assert_array_equal(images.read_depth(tmp_path / "z.exr"), depth.astype(np.float32))
    independent = OpenEXR.File(str(tmp_path / "z.exr"), separate_channels=True).channels()
    assert list(independent) == ["Z"] and independent["Z"].pixels.dtype == precision
    np.testing.assert_array_equal(independent["Z"].pixels, depth)


def test_16_bit_ids_survive(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 255], [256, 40000, 65535]], dtype=np.uint16)
    images.write_png(tmp_path / "ids.png", ids)
    np.testing.assert_array_equal(images.read_ids(tmp_path / "ids.png"), ids)


def test_a_scene_that_exists_is_left_as_it_is(dataset: Path) -> None:
    settings = synthetic.config(*synthetic.ALL_LAYERS)
    witness = paths.scene_dir(dataset, 1) / "rgb" / "0000.png"
    witness.write_bytes(b"somebody's own")
    synthetic.write_scene(settings, dataset, synthetic.scene(settings, 1))
    assert witness.read_bytes() == b"somebody's own"
    assert not list((dataset / "tmp").iterdir())


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    settings = synthetic.config()
    folder = open_for_writing(settings, tmp_path, 0)
    spec = synthetic.scene(settings, 0)
    with (
        pytest.raises(ZeroDivisionError),
        SceneWriter(folder, spec, synthetic.WIDTH, synthetic.HEIGHT, settings.write, {}) as writer,
    ):
        writer.write_frame(0, next(synthetic.frames(settings, spec)))
        raise ZeroDivisionError
    assert not list((folder / "tmp").iterdir())
    assert paths.finished_scenes(folder) == []


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"rgba": np.zeros((56, 70, 3), np.uint8)}, (), r"rgba should be uint8 of shape \(56, 70, 4\)"),
        ({"depth_z": np.zeros((56, 70), np.float64)}, (), "depth_z should be float32"),
        ({"depth_z": np.full((56, 70), np.nan, np.float32)}, (), "3920 values that are not finite"),
        ({"depth_z": np.full((56, 70), -1, np.float32)}, (), "negative"),
        ({"depth_z": np.full((56, 70), 1e6, np.float32)}, ("write.depth=float16",), "does not fit float16"),
        ({"instance": None}, ("write.instance=true",), "instance should be uint16"),
    ],
)
def test_unusable_frames_are_refused(
    tmp_path: Path, change: dict[str, np.ndarray], words: tuple[str, ...], message: str
) -> None:
    settings = synthetic.config(*words)
    folder = open_for_writing(settings, tmp_path, 0)
    spec = synthetic.scene(settings, 0)
    frame = replace(next(synthetic.frames(settings, spec)), **change)
    with (
        SceneWriter(folder, spec, synthetic.WIDTH, synthetic.HEIGHT, settings.write, {}) as writer,
        pytest.raises(RenderError, match=message),
    ):
        writer.write_frame(0, frame)


def test_commit_demands_every_frame(tmp_path: Path) -> None:
    settings = synthetic.config()
    folder = open_for_writing(settings, tmp_path, 0)
    spec = synthetic.scene(settings, 0)
    with SceneWriter(folder, spec, synthetic.WIDTH, synthetic.HEIGHT, settings.write, {}) as writer:
        for index, frame in enumerate(synthetic.frames(settings, spec)):
            if index != 4:
                writer.write_frame(index, frame)
        with pytest.raises(RenderError, match=r"1 of 6 frames were not rendered, e\.g\. 4"):
            writer.commit()


class TestIdentity:
    def test_the_same_settings_may_continue(self, dataset: Path) -> None:
        before = tree(dataset)
        assert open_for_writing(synthetic.config(*synthetic.ALL_LAYERS), dataset.parent, 0) == dataset
        assert tree(dataset) == before

    def test_more_scenes_are_the_same_dataset(self, dataset: Path) -> None:
        open_for_writing(synthetic.config(*synthetic.ALL_LAYERS, "scene_count=9"), dataset.parent, 0)
        record = json.loads((dataset / "dataset.json").read_text())
        assert record["scene_count"] == record["config"]["content"]["scene_count"] == 9
        assert len(record["scenes"]) == 3
        open_for_writing(synthetic.config(*synthetic.ALL_LAYERS), dataset.parent, 0)
        assert json.loads((dataset / "dataset.json").read_text()) == record

    def test_another_dataset_is_refused_and_named(self, dataset: Path) -> None:
        before = tree(dataset)
        other = synthetic.config(*synthetic.ALL_LAYERS, "seed=5", "camera.clearance=0.2")
        with pytest.raises(
            ConfigError, match=r"camera.clearance is 0.1 there and 0.2 now; seed is 0 there and 5 now\."
        ):
            open_for_writing(other, dataset.parent, 0)
        assert tree(dataset) == before

    def test_foreign_files_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "texture_00").mkdir()
        (tmp_path / "texture_00" / "thesis.tex").write_text("years of work")
        with pytest.raises(ConfigError, match=r"thesis\.tex"):
            open_for_writing(synthetic.config(), tmp_path, 0)
        assert tree(tmp_path) == {"texture_00/thesis.tex": b"years of work"}

    def test_a_file_in_the_way_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "texture_00").write_text("a file")
        with pytest.raises(ConfigError, match="is a file"):
            open_for_writing(synthetic.config(), tmp_path, 0)

    def test_a_damaged_record_is_named(self, dataset: Path) -> None:
        (dataset / "dataset.json").write_text("{")
        with pytest.raises(DatasetError, match=r"dataset.json is damaged"):
            open_for_writing(synthetic.config(*synthetic.ALL_LAYERS), dataset.parent, 0)


def test_many_may_open_at_once(tmp_path: Path) -> None:
    settings, other = synthetic.config(), synthetic.config("seed=1")
    barrier = threading.Barrier(16)

    def open_one(chosen: Config) -> tuple[str, Config]:
        barrier.wait()
        try:
            open_for_writing(chosen, tmp_path, 0)
        except ConfigError:
            return "refused", chosen
        return "made", chosen

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(open_one, [settings, other] * 8))
    winners = {chosen.content.seed for verdict, chosen in outcomes if verdict == "made"}
    losers = {chosen.content.seed for verdict, chosen in outcomes if verdict == "refused"}
    assert len(winners) == len(losers) == 1 and winners != losers
    record = json.loads((tmp_path / "texture_00" / "dataset.json").read_text())
    assert record["config"]["content"]["seed"] == winners.pop()
    assert sorted(tree(tmp_path)) == ["texture_00/dataset.json"]


def test_finalise_depends_on_the_scenes_alone(dataset: Path, pristine: Path) -> None:
    finalise(dataset, [], {"texture": {"geometry": 0.0}})
    record = json.loads((dataset / "dataset.json").read_text())
    assert record.pop("isolation") == {"texture": {"geometry": 0.0}}
    before = json.loads((pristine / "dataset.json").read_text())
    assert record.pop("checksum") == checksum_of(record | {"isolation": {"texture": {"geometry": 0.0}}})
    assert before.pop("checksum") == checksum_of(before)
    assert record == before  # licences were kept
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(finalise, [dataset] * 4, [synthetic.MATERIALS] * 4))
    assert json.loads((dataset / "dataset.json").read_text())["isolation"] == {"texture": {"geometry": 0.0}}


class TestReaderErrors:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="there is no folder"):
            open_dataset(tmp_path / "nothing")

    def test_not_a_dataset(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="is no dataset"):
            open_dataset(tmp_path)
        with pytest.raises(DatasetError, match="holds no dataset"):
            open_experiment(tmp_path)

    def test_an_experiment_names_its_datasets(self, dataset: Path) -> None:
        with pytest.raises(DatasetError, match="it holds the datasets texture_00"):
            open_dataset(dataset.parent)
        assert [d.name for d in open_experiment(dataset.parent)] == ["texture_00"]

    def test_missing_scene(self, pristine: Path) -> None:
        with pytest.raises(DatasetError, match="scene 7 is not in"):
            open_dataset(pristine).scene(7)

    @pytest.mark.parametrize(("layer", "name"), [("rgb", "image"), ("depth", "depth_z"), ("normal", "normal")])
    def test_damaged_and_missing_images(self, dataset: Path, layer: str, name: str) -> None:
        view = open_dataset(dataset).scenes[0].views[2]
        file = view.file(layer)
        content = file.read_bytes()
        for damaged in (content[: len(content) // 2], b"", b"no image at all", None):
            file.unlink(missing_ok=True)
            if damaged is not None:
                file.write_bytes(damaged)
            with pytest.raises(DatasetError, match=rf"{layer}/0002.*render it anew"):
                getattr(view, name)

    def test_wrong_size_is_noticed(self, dataset: Path) -> None:
        view = open_dataset(dataset).scenes[0].views[0]
        Image.new("RGBA", (8, 8)).save(view.file("rgb"))
        with pytest.raises(DatasetError, match=r"shape \(8, 8, 4\), but cameras.json says \(56, 70, 4\)"):
            _ = view.image

    @pytest.mark.parametrize("content", ["", "[]", '{"format": "other"}', '{"format": "megasynth-attr cameras 1"}'])
    def test_damaged_cameras(self, dataset: Path, content: str) -> None:
        data = open_dataset(dataset).scenes[0]
        (data.path / "cameras.json").write_text(content)
        with pytest.raises(DatasetError, match=r"cameras.json"):
            _ = data.views

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("intrinsics", [[1, 0, 0], [0, "one", 0], [0, 0, 1]]),
            ("intrinsics", [np.eye(3).tolist()]),
            ("intrinsics", None),
            ("intrinsics", [[1, 0], [0, 1, 0]]),
            ("camera_from_world", np.eye(4).tolist()),
            ("camera_from_world", []),
            ("camera_from_world", [[["x"] * 4] * 4]),
            ("width_px", "wide"),
        ],
    )
    def test_cameras_that_are_none(self, dataset: Path, key: str, value: object) -> None:
        data = open_dataset(dataset).scenes[0]
        file = data.path / "cameras.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
        with pytest.raises(DatasetError, match=rf"cameras\.json is damaged: {key}"):
            _ = data.views

    @pytest.mark.parametrize(("key", "value"), [("scene_count", "four"), ("dataset_index", None), ("config", 3)])
    def test_a_dataset_record_of_the_wrong_kind(self, dataset: Path, key: str, value: object) -> None:
        file = dataset / "dataset.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
        with pytest.raises(DatasetError, match=rf"dataset\.json is damaged: {key}: expected"):
            open_dataset(dataset)

    def test_an_image_of_absurd_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        Image.new("RGBA", (20, 20)).save(tmp_path / "x.png")
        with pytest.raises(DatasetError, match=r"x\.png cannot be read .*decompression bomb"):
            images.read_image(tmp_path / "x.png")

    def test_changed_scene_file(self, dataset: Path) -> None:
        data = open_dataset(dataset).scenes[0]
        file = data.path / "scene.json"
        file.write_text(file.read_text().replace('"noise_seed":7', '"noise_seed":8'))
        with pytest.raises(DatasetError, match="hashes do not match"):
            _ = data.scene


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EISDIR, errno.ENOTDIR])
def test_something_in_the_way_is_no_trouble_with_the_disk(tmp_path: Path, number: int) -> None:
    problem = storage_problem(OSError(number, os.strerror(number)), "a thing", tmp_path)
    assert "choose another out=" in str(problem) and "check the disk" not in str(problem)
