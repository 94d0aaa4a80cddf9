"""Sources: both layouts give equal arrays, splits are stable, and whatever is wrong is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import plane_scenes
import pytest
import synthetic
from PIL import Image

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.dataset.images import read_image, write_depth, write_exr, write_png
from megasynth_attr.dataset.reader import open_dataset
from megasynth_train.data.frames import over_background
from megasynth_train.data.layouts.names import OURS
from megasynth_train.data.scene import TrainingScene
from megasynth_train.data.sources import open_sources, split
from megasynth_train.training.settings import DataSettings

SHORT = DataSettings(views=Uniform(2, 6), validation_share=0)


def opened(*sources, **changes):
    return open_sources(replace(SHORT, sources=tuple(map(str, sources)), **changes))


class TestReading:
    def test_our_layout(self, ours):
        data = opened(ours)
        assert [s.name for s in data.train] == ["texture_00/000000", "texture_00/000001", "texture_00/000002"]
        assert {(s.view_count, s.image_size_hw) for s in data.train} == {(6, (56, 70))} and data.notes == ()
        for scene, reference in zip(data.train, open_dataset(ours).scenes, strict=True):
            for frame, view in zip(scene.read_views(range(6)), reference.views, strict=True):
                assert frame.rgb.shape == (56, 70, 3) and frame.rgb.dtype == np.uint8
                alpha = view.image[..., 3]
                np.testing.assert_array_equal(frame.rgb[alpha == 255], view.rgb[alpha == 255])
                assert (frame.rgb[alpha == 0] == 255).all() and (alpha == 0).sum() > 0
                np.testing.assert_array_equal(frame.depth_z, view.depth_z)
                np.testing.assert_array_equal(frame.camera_from_world, view.camera_from_world)

    def test_both_layouts_give_equal_arrays(self, ours, paper):
        first, second = opened(ours).train, opened(paper).train
        assert [s.name for s in first] == [s.name for s in second]
        for a, b in zip(first, second, strict=True):
            assert a.view_count == b.view_count
            for view in (0, 5, 3):
                left, right = a.read_views([view])[0], b.read_views([view])[0]
                for name in ("rgb", "depth_z", "intrinsics", "camera_from_world"):
                    np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
                    assert getattr(left, name).dtype == getattr(right, name).dtype

    def test_packed_scenes_are_the_same_data(self, ours, packed):
        first, second = opened(ours), opened(packed)
        assert second.fingerprint == first.fingerprint
        assert [(s.name, s.identity, s.digest) for s in second.train] == [
            (s.name, s.identity, s.digest) for s in first.train
        ]
        assert [s.folder.name for s in second.train] == ["000000.tar", "000001.tar", "000002.tar"]

    def test_a_torn_archive_is_named(self, packed, tmp_path):
        copy = shutil.copytree(packed, tmp_path / "texture_00")
        torn = copy / "scenes/000/000001.tar"
        torn.write_bytes(torn.read_bytes()[:-1000])
        with pytest.raises(DatasetError, match=r"000001\.tar is no packed scene or not a whole one.*on_bad_file=skip"):
            opened(copy)
        data = opened(copy, on_bad_file="skip")
        assert len(data.train) == 2 and [bad.scene for bad in data.unreadable] == ["texture_00/000001"]

    def test_half_precision_depth(self, tmp_path):
        folder = synthetic.write_dataset(synthetic.config("write.depth=float16"), tmp_path)
        frame = opened(folder).train[0].read_views([0])[0]
        assert frame.depth_z.dtype == np.float32 and frame.depth_z.max() > 1

    def test_transparency_shows_white(self):
        image = np.zeros((1, 4, 4), np.uint8)
        image[0] = [[10, 20, 30, 255], [10, 20, 30, 0], [10, 20, 30, 128], [0, 0, 0, 1]]
        got = over_background(Image.fromarray(image))[0].astype(float)
        exact = image[0, :, :3] * (image[0, :, 3:] / 255) + 255 * (1 - image[0, :, 3:] / 255)
        np.testing.assert_allclose(got, exact, atol=0.5)

    def test_paper_background_and_opaque_images(self, paper_copy):
        scene = paper_copy / "texture_00/000000"
        depth = np.full((56, 70), 2.5, np.float32)
        depth[0, :4] = [np.nan, np.inf, 1e10, -np.inf]
        Image.new("RGB", (70, 56), (1, 2, 3)).save(scene / "renderings/00000000_rgba.png")
        write_exr(scene / "renderings/00000000_depth.exr", {"Z": depth})
        frame = opened(paper_copy).train[0].read_views([0])[0]
        assert (frame.depth_z[0, :4] == 0).all() and (frame.depth_z[1:] == 2.5).all()
        assert (frame.rgb == (1, 2, 3)).all()

    def test_rare_compressions_are_read_by_the_library(self, paper_copy):
        openexr = pytest.importorskip("OpenEXR")
        depth = np.random.default_rng(0).uniform(1, 2, (56, 70)).astype(np.float32)
        header = {"compression": openexr.PIZ_COMPRESSION, "type": openexr.scanlineimage}
        file = paper_copy / "texture_00/000001/renderings/00000002_depth.exr"
        openexr.File(header, {"V": depth}).write(str(file))
        np.testing.assert_array_equal(opened(paper_copy).train[1].read_views([2])[0].depth_z, depth)

    @pytest.mark.parametrize("below", ["", "a", "a/b"])
    def test_paper_scenes_at_any_of_three_levels(self, tmp_path, below):
        intrinsics = plane_scenes.pinhole(80, 80, 35, 28)
        folder = plane_scenes.write_scene(tmp_path / "root" / below / "s", (56, 70), intrinsics, 3)
        plane_scenes.write_scene(tmp_path / "root/.hidden/s", (56, 70), intrinsics, 3)
        if below == "a/b":
            with pytest.raises(DatasetError, match="no scene in the paper's layout"):
                opened(tmp_path / "root")
        else:
            assert [s.folder for s in opened(tmp_path / "root").train] == [folder]
        assert len(opened(folder).train) == 1

    def test_an_experiment_is_all_its_datasets(self, ours):
        assert [s.name for s in opened(ours.parent).train] == [s.name for s in opened(ours).train]
        assert opened(ours.parent).fingerprint == opened(ours).fingerprint


class TestIdentity:
    def test_fingerprint_and_split_follow_the_content_not_the_place(self, ours, ours_copy):
        assert opened(ours).fingerprint == opened(ours_copy).fingerprint
        shutil.rmtree(ours_copy / "scenes/000/000001")
        assert opened(ours).fingerprint != opened(ours_copy).fingerprint

    def test_paper_fingerprint(self, paper, paper_copy):
        before = opened(paper).fingerprint
        assert opened(paper_copy).fingerprint == before
        cameras = paper_copy / "texture_00/000002/opencv_cameras.json"
        record = json.loads(cameras.read_text())
        record["frames"].pop()
        cameras.write_text(json.dumps(record))
        assert opened(paper_copy).fingerprint != before

    def test_the_order_of_the_sources_does_not_matter(self, ours, tmp_path):
        intrinsics = plane_scenes.pinhole(80, 80, 35, 28)
        plane_scenes.write_scene(tmp_path / "a/s", (56, 70), intrinsics, 3)
        one, two = opened(ours, tmp_path / "a"), opened(tmp_path / "a", ours)
        assert one == two and len(one.train) == 4

    def test_split_is_stable_and_fair(self):
        scenes = [TrainingScene(f"s{i}", Path(f"s{i}"), OURS, f"id{i}", "", 9, (14, 14)) for i in range(2000)]
        train, validation = split(scenes[:1000], 0.1)
        more_train, more_validation = split(reversed(scenes), 0.1)
        assert set(train) <= set(more_train) and set(validation) <= set(more_validation)
        assert set(train).isdisjoint(validation) and len(train) + len(validation) == 1000
        assert 70 < len(validation) < 130  # 3 standard deviations
        assert set(validation) <= set(split(scenes, 0.3)[1]) and split(scenes, 0)[1] == ()

    def test_copies_of_a_scene_are_never_on_both_sides(self, ours, ours_copy):
        data = opened(ours, ours_copy, validation_share=0.05)
        assert len(data.train) + len(data.validation) == 6 and data.validation
        assert not {s.identity for s in data.train} & {s.identity for s in data.validation}

    def test_too_few_scenes_to_split(self, ours):
        shares = [1e-9, *np.linspace(0.05, 0.9, 18).tolist()]
        seen = set()
        for share in shares:
            try:
                data = opened(ours, validation_share=share)
            except ConfigError as error:
                assert "all 3 scenes fall into the validation share" in str(error)
                continue
            seen.add(len(data.validation))
            assert bool(data.notes) == (not data.validation)
            assert not data.notes or "nothing is validated" in data.notes[0]
        assert 0 in seen and len(seen) > 1


class TestTrouble:
    def test_no_sources(self):
        with pytest.raises(ConfigError, match="data= is missing"):
            opened()

    def test_missing_empty_and_doubled_folders(self, ours, tmp_path):
        with pytest.raises(DatasetError, match=r"nowhere: there is no such folder"):
            opened(tmp_path / "nowhere")
        (tmp_path / "list.txt").write_text("runs/demo")
        with pytest.raises(DatasetError, match=r"list\.txt: this is a file; name a folder"):
            opened(tmp_path / "list.txt")
        with pytest.raises(DatasetError, match=r"holds no dataset .* no experiment"):
            opened(tmp_path)
        with pytest.raises(ConfigError, match=r"000000 twice"):
            opened(ours, ours.parent)

    def test_a_dataset_without_scenes(self, ours_copy):
        shutil.rmtree(ours_copy / "scenes")
        with pytest.raises(DatasetError, match=r"texture_00 has no complete scene .*if you were given it, fetch them"):
            opened(ours_copy)

    def test_an_incomplete_dataset_is_used_and_said(self, ours_copy):
        shutil.rmtree(ours_copy / "scenes/000/000001")
        data = opened(ours_copy)
        assert len(data.train) == 2 and "2 of 3 scenes; if you made this dataset" in data.notes[0]

    def test_short_scenes_are_left_out_and_counted(self, paper_copy):
        cameras = paper_copy / "texture_00/000001/opencv_cameras.json"
        cameras.write_text(json.dumps({"frames": json.loads(cameras.read_text())["frames"][:3]}))
        data = opened(paper_copy, views=Uniform(4, 5))
        assert len(data.train) == 2 and data.notes[0].startswith("1 of 3 scenes have fewer than 4 views")
        assert len(opened(paper_copy, views=Uniform(4, 5), duplicate_views=True).train) == 3
        with pytest.raises(DatasetError, match=r"the longest has 6 views, data\.views=\[7, 9\] asks for 7"):
            opened(paper_copy, views=Uniform(7, 9))
        assert "at most 3 views per scene are drawn instead of 6" in opened(paper_copy).notes[0]

    @pytest.mark.parametrize("on_bad_file", ["stop", "skip"])
    def test_a_damaged_cameras_file(self, ours_copy, on_bad_file):
        (ours_copy / "scenes/000/000001/cameras.json").write_text("{")
        if on_bad_file == "stop":
            with pytest.raises(DatasetError, match=r"000001/cameras\.json is damaged.*data\.on_bad_file=skip"):
                opened(ours_copy)
        else:
            data = opened(ours_copy, on_bad_file="skip")
            assert [s.name[-1] for s in data.train] == ["0", "2"]
            assert data.unreadable[0].scene == "texture_00/000001" and "cameras.json" in data.unreadable[0].reason

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda f: f.pop("fx"), "frame 2 is damaged .*fx"),
            (lambda f: f.update(fx=-1), "frame 2: a focal length is not positive"),
            (lambda f: f.update(w2c=[[1, 0], [0, 1]]), r"w2c has shape \(2, 2\)"),
            (lambda f: f.update(w2c=(2 * np.eye(4)).tolist()), "is not a rotation"),
            (lambda f: f.update(w2c=np.diag([1, 1, -1, 1]).tolist()), "is not a rotation"),
            (lambda f: f.update(cx=71), "principal point .* outside"),
            (lambda f: f.update(w=71), "frames differ in size"),
        ],
    )
    def test_bad_paper_cameras(self, paper_copy, change, words):
        cameras = paper_copy / "texture_00/000001/opencv_cameras.json"
        record = json.loads(cameras.read_text())
        change(record["frames"][2])
        cameras.write_text(json.dumps(record))
        with pytest.raises(DatasetError, match=words) as caught:
            opened(paper_copy)
        assert "000001/opencv_cameras.json" in str(caught.value)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -1])
    def test_bad_depth_in_our_layout(self, ours_copy, value):
        depth = np.full((56, 70), 2, np.float32)
        depth[3, 4] = value
        write_depth(ours_copy / "scenes/000/000000/depth/0002.exr", depth, "float32")
        scene = opened(ours_copy).train[0]
        scene.read_views([0, 1, 3])
        with pytest.raises(DatasetError, match=r"depth/0002\.exr holds 1 values that are not a depth"):
            scene.read_views([0, 1, 2])

    @pytest.mark.parametrize("layout", ["ours", "paper"])
    @pytest.mark.parametrize("kind", ["missing", "truncated", "size"])
    @pytest.mark.parametrize("layer", ["rgb", "depth"])
    def test_bad_files_are_named(self, ours_copy, paper_copy, layout, kind, layer):
        if layout == "ours":
            file = ours_copy / f"scenes/000/000000/{layer}/0001.{'png' if layer == 'rgb' else 'exr'}"
        else:
            name = {"rgb": "rgba.png", "depth": "depth.exr"}[layer]
            file = paper_copy / f"texture_00/000000/renderings/00000001_{name}"
        if kind == "missing":
            file.unlink()
        elif kind == "truncated":
            file.write_bytes(file.read_bytes()[:300])
        elif layer == "rgb":
            write_png(file, read_image(file)[:-1])
        else:
            write_exr(file, {"Z": np.ones((55, 70), np.float32)})
        with pytest.raises(DatasetError, match=file.name.replace(".", r"\.")):
            opened(ours_copy if layout == "ours" else paper_copy).train[0].read_views([1])[0]

    def test_a_file_of_another_kind_of_colours_is_shown_right(self, paper_copy):
        file = paper_copy / "texture_00/000000/renderings/00000001_rgba.png"
        with Image.open(file) as image:
            Image.new("RGB", image.size, (200, 40, 90)).convert("CMYK").save(file, "JPEG", quality=100)
        rgb = opened(paper_copy).train[0].read_views([1])[0].rgb
        assert np.abs(rgb.astype(int) - (200, 40, 90)).max() <= 2

    def test_advice_fits_whose_data_it_is(self, ours_copy, paper_copy):
        (ours_copy / "scenes/000/000000/rgb/0001.png").unlink()
        (paper_copy / "texture_00/000000/renderings/00000001_rgba.png").unlink()
        with pytest.raises(DatasetError, match="render it anew; if you were given it, fetch the scene again"):
            opened(ours_copy).train[0].read_views([1])[0]
        with pytest.raises(DatasetError, match=r"is missing; restore it, or train with data\.on_bad_file=skip$"):
            opened(paper_copy).train[0].read_views([1])[0]


class TestChosenScenes:
    def test_by_number_in_both_layouts(self, ours, paper):
        assert [s.name for s in opened(ours, scenes="0,2").train] == ["texture_00/000000", "texture_00/000002"]
        assert [s.name for s in opened(paper, scenes="1-2").train] == ["texture_00/000001", "texture_00/000002"]
        assert opened(ours, scenes="0,2").notes == ()  # what was not asked for is not missing
        assert opened(ours, scenes="0-1").fingerprint != opened(ours).fingerprint

    @pytest.mark.parametrize(("scenes", "message"), [("3", "out of range"), ("2-1", "backwards"), ("x", "write all")])
    def test_bad_numbers(self, ours, scenes, message):
        with pytest.raises(ConfigError, match=message):
            opened(ours, scenes=scenes)

    def test_a_chosen_scene_that_does_not_exist_yet(self, ours_copy):
        shutil.rmtree(ours_copy / "scenes" / "000" / "000001")
        with pytest.raises(DatasetError, match=r"no complete scene \(data.scenes=1\)"):
            opened(ours_copy, scenes="1")
