"""Every layout gives the pictures, depth and cameras that went into it, whichever program reads it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import layout_folders
import numpy as np
import pytest
from layout_folders import SHORT, WRITERS, edit, exported, opened, scale_rotation
from PIL import ExifTags, Image
from scipy.spatial.transform import Rotation

from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.dataset.images import write_png
from megasynth_train.compare.settings import CompareSettings, evaluation_of
from megasynth_train.data.agreement import agreement, pairs_of, sample_frames
from megasynth_train.data.batch import load_step
from megasynth_train.data.depth_files import DepthFile
from megasynth_train.data.images import image_files, load_pictures
from megasynth_train.data.layouts.choose import LAYOUTS, choose
from megasynth_train.data.layouts.names import AUTO, FORMATS, OURS
from megasynth_train.data.layouts.view import Reading
from megasynth_train.data.plan import Sampling
from megasynth_train.data.scene import outside_scene, scene_pictures
from megasynth_train.evaluate.inputs import select_scenes
from megasynth_train.evaluate.options import EvaluateSettings

ROUNDED = ("nerfstudio", "scannet", "clearpose", "clearpose-page")  # depth in whole millimetres


class TestConventions:
    @pytest.mark.parametrize("name", WRITERS)
    def test_what_went_in_comes_out(self, name, folders, ours):
        kept = [0, 2, 3, 4, 5] if name == "scannet" else range(6)  # a pose is lost there
        scenes = opened(folders(name)).train
        assert len(scenes) == 3 and {scene.layout for scene in scenes} == {name.partition("-")[0]}
        for scene, truth in zip(scenes, opened(ours).train, strict=True):
            assert (scene.view_count, scene.image_size_hw) == (len(kept), (56, 70))
            for frame, true in zip(scene.read_views(range(len(kept))), truth.read_views(kept), strict=True):
                np.testing.assert_allclose(frame.intrinsics, true.intrinsics, atol=1e-9)
                np.testing.assert_allclose(frame.camera_from_world, true.camera_from_world, atol=1e-9)
                np.testing.assert_allclose(frame.depth_z, true.depth_z, atol=5.1e-4 if name in ROUNDED else 0)
                np.testing.assert_allclose(frame.rgb, true.rgb, atol=12 if name == "scannet" else 0)  # JPEG
                assert frame.rgb.dtype == np.uint8 and frame.depth_z.dtype == np.float32

    @pytest.mark.parametrize("name", WRITERS)
    def test_neighbouring_views_agree(self, name, folders):
        for scene in opened(folders(name)).train:
            now = agreement(pairs_of(sample_frames(scene, 6)))
            assert now.error_px < 0.5 and now.overlap > 0.5

    @pytest.mark.parametrize("name", WRITERS)
    def test_a_flipped_axis_does_not(self, name, folders):
        """The test of the test: turning any two axes of the cameras round is seen."""
        pairs = pairs_of(sample_frames(opened(folders(name)).train[0], 6))
        for signs in ((1, -1, -1, 1), (-1, 1, -1, 1), (-1, -1, 1, 1)):
            turn = np.diag(signs)
            wrong = [[replace(f, camera_from_world=turn @ f.camera_from_world) for f in pair] for pair in pairs]
            assert not agreement(wrong).error_px < 3, signs  # nor is it NaN, without overlap

    def test_half_a_pixel_shows(self, folders):
        """WAI's principal point without its half pixel is found by the same measure, in its own units."""
        pairs = pairs_of(sample_frames(opened(folders("wai")).train[0], 6))
        shift = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        wrong = [[replace(f, intrinsics=f.intrinsics - shift) for f in pair] for pair in pairs]
        assert agreement(wrong).error_px > 20 * agreement(pairs).error_px and agreement(wrong).error_px > 0.01

    def test_depth_smaller_than_colour(self, ours, tmp_path):
        root = layout_folders.write_scannet(tmp_path / "scans", ours, depth_stride=2)
        scene = opened(root).train[0]
        assert scene.image_size_hw == (28, 35)
        frame, true = scene.read_views([0])[0], opened(ours).train[0].read_views([0])[0]
        np.testing.assert_allclose(frame.depth_z, true.depth_z[::2, ::2], atol=5.1e-4)
        np.testing.assert_allclose(frame.intrinsics[0], [true.intrinsics[0, 0] / 2, 0, 17.75], atol=1e-6)
        assert agreement(pairs_of(sample_frames(scene, 6))).error_px < 0.5
        file = next(root.glob("*/intrinsic")) / "intrinsic_depth.txt"
        file.unlink()
        np.testing.assert_allclose(opened(root).train[0].read_views([0])[0].intrinsics[0, 2], 17.5)

    def test_nerfstudio_transform_and_scale(self, copied, ours):
        """ns-process-data turns the world and may scale positions: the original cameras come back, in the new scale."""
        root, scene = copied("nerfstudio")
        applied = np.eye(4)
        applied[:3, :3] = Rotation.from_euler("xyz", [90, 20, 5], degrees=True).as_matrix()
        applied[:3, 3] = [1, -2, 3]

        def turn(record):
            for frame in record["frames"]:
                pose = applied @ np.array(frame["transform_matrix"])
                frame["transform_matrix"] = pose.tolist()
            record["applied_transform"] = applied[:3].tolist()

        edit(scene / "transforms.json", turn)
        truth = opened(ours).train[0].read_views([3])[0]
        got = opened(root).train[0].read_views([3])[0]
        np.testing.assert_allclose(got.camera_from_world, truth.camera_from_world, atol=1e-9)

        def scale(record):
            for frame in record["frames"]:
                for row in frame["transform_matrix"][:3]:
                    row[3] *= 0.25
            record["applied_scale"] = 0.25

        edit(scene / "transforms.json", scale)
        scaled = opened(root).train[0]
        np.testing.assert_allclose(scaled.read_views([3])[0].depth_z, truth.depth_z / 4, atol=2e-4)
        assert agreement(pairs_of(sample_frames(scaled, 6))).error_px < 0.5

    def test_nerfstudio_cameras_per_frame_masks_and_order(self, copied):
        root, scene = copied("nerfstudio")
        camera = ("w", "h", "fl_x", "fl_y", "cx", "cy")

        def change(record):
            for frame in record["frames"]:
                frame |= {key: record[key] for key in camera} | {"mask_path": "mask.png"}
            for key in camera:
                del record[key]
            record["frames"].reverse()

        before = opened(root).train[0].read_views(range(6))
        edit(scene / "transforms.json", change)
        mask = np.full((56, 70), 255, np.uint8)
        mask[:, :30] = 0
        write_png(scene / "mask.png", mask)
        for now, then in zip(opened(root).train[0].read_views(range(6)), before, strict=True):
            assert (now.depth_z[:, :30] == 0).all()
            np.testing.assert_array_equal(now.depth_z[:, 30:], then.depth_z[:, 30:])
            np.testing.assert_array_equal(now.camera_from_world, then.camera_from_world)

    @pytest.mark.parametrize("kept", [1, 255])
    def test_what_is_not_black_in_a_mask_is_kept(self, kept, copied):
        root, scene = copied("nerfstudio")
        edit(scene / "transforms.json", lambda r: [frame.update(mask_path="mask.png") for frame in r["frames"]])
        mask = np.full((56, 70), kept, np.uint8)
        mask[:, :30] = 0
        write_png(scene / "mask.png", mask)
        now = opened(root).train[0].read_views([0])[0].depth_z
        stored = DepthFile(scene / "depth/0000.png", 0.001).read()
        np.testing.assert_array_equal(now, np.where(mask > 0, stored, 0))

    @pytest.mark.parametrize("orientation", [2, 3, 6])
    def test_pictures_are_as_stored_whatever_their_tag_says(self, orientation, copied):
        root, scene = copied("nerfstudio")
        before = opened(root).train[0].read_views([0])[0]
        tag = Image.Exif()
        tag[ExifTags.Base.Orientation] = orientation
        for file in (scene / "images/0000.png", scene / "depth/0000.png"):
            with Image.open(file) as picture:
                picture.load()
                picture.save(file, exif=tag)
        now = opened(root).train[0].read_views([0])[0]
        np.testing.assert_array_equal(now.rgb, before.rgb)
        np.testing.assert_array_equal(now.depth_z, before.depth_z)

    def test_wai_shows_the_picture_that_its_modality_names(self, copied):
        root, scene = copied("wai")
        before = opened(root).train[0].read_views([0])[0].rgb

        def distort(record):  # as where pictures were undistorted: file_path leads to those as they were taken
            record["frame_modalities"]["image"]["frame_key"] = "straight"
            for frame in record["frames"]:
                frame["straight"] = frame.pop("image")
                frame["file_path"] = "images/as_taken.png"

        edit(scene / "scene_meta.json", distort)
        write_png(scene / "images/as_taken.png", np.zeros((56, 70, 3), np.uint8))
        np.testing.assert_array_equal(opened(root).train[0].read_views([0])[0].rgb, before)

    def test_clearpose_reads_true_depth_of_every_hundredth_frame(self, folders):
        scene = opened(folders("clearpose")).train[0]
        assert scene.name == "set1/scene1" and scene.skipped == ("6 frames whose number does not end in 00",)
        assert [view.picture.name for view in scene.stored_views()][:2] == ["000000-color.png", "000100-color.png"]

    def test_colmap_reads_what_it_exports(self, ours, tmp_path):
        root = exported("colmap", ours, tmp_path)
        with pytest.raises(DatasetError, match=r"none of its 6 views has a depth file; training and evaluation need"):
            opened(root)
        for scene in opened(ours).train:
            read = outside_scene("colmap", root / scene.name, Reading(needs_depth=False))
            assert not read.has_depth
            for view, true in zip(read.stored_views(), scene.stored_views(), strict=True):
                np.testing.assert_allclose(view.camera_from_world, true.camera_from_world, atol=1e-9)
                np.testing.assert_allclose(view.intrinsics, true.intrinsics, atol=1e-9)

    def test_scaled_rotations_are_divided_by_their_scale(self, copied, ours):
        root, scene = copied("wai")
        edit(scene / "scene_meta.json", lambda r: [scale_rotation(f["transform_matrix"], 2.5) for f in r["frames"]])
        with pytest.raises(DatasetError, match=r"not a rotation .*one times 0\.4; scaled_rotation=true"):
            opened(root)
        got, true = opened(root, scaled_rotation=True).train[0], opened(ours).train[0]
        for a, b in zip(got.stored_views(), true.stored_views(), strict=True):
            np.testing.assert_allclose(a.camera_from_world[:3, :3], b.camera_from_world[:3, :3], atol=1e-9)


class TestChoice:
    def test_names(self):
        assert (AUTO, OURS, *LAYOUTS) == FORMATS

    def test_two_layouts_are_both_named(self, folders, ours, tmp_path):
        for name in ("wai", "scannet"):
            shutil.copytree(folders(name), tmp_path / "both" / name)
        with pytest.raises(DatasetError, match=r"scenes of 2 layouts: wai \(.*both/wai/0.*\) and scannet \(.*scannet/"):
            opened(tmp_path / "both")
        assert {scene.layout for scene in opened(tmp_path / "both", format="wai").train} == {"wai"}
        copy = shutil.copytree(ours, tmp_path / "ours" / ours.name)
        shutil.copytree(folders("wai") / "000000", tmp_path / "ours" / "scan")
        with pytest.raises(DatasetError, match=r"2 layouts: megasynth-attr \(.*/ours\) and wai \(.*/scan\)"):
            choose(tmp_path / "ours")
        shutil.copy(folders("wai") / "000000" / "scene_meta.json", copy)
        with pytest.raises(DatasetError, match=r"2 layouts: megasynth-attr \(.*\) and wai"):
            opened(copy)
        assert {scene.layout for scene in opened(copy, format=OURS).train} == {OURS}

    def test_a_format_that_is_not_there(self, folders):
        with pytest.raises(DatasetError, match=r"holds no scene in COLMAP's layout \(sparse/0/cameras\.bin, images/\)"):
            opened(folders("wai"), format="colmap")
        with pytest.raises(DatasetError, match=r"holds no dataset \(dataset\.json\) and no experiment"):
            opened(folders("wai"), format=OURS)

    @pytest.mark.parametrize("format", [AUTO, "wai", "colmap"])
    def test_pictures_of_wai_that_are_still_distorted(self, format, copied):
        root, _ = copied("wai")
        for file in root.glob("*/scene_meta.json"):
            file.rename(file.with_name("scene_meta_distorted.json"))
        words = r"000000/scene_meta_distorted\.json: these pictures are as the lens took them.*undistort"
        with pytest.raises(DatasetError, match=words if format != "colmap" else "holds no scene in COLMAP's"):
            opened(root, format=format)

    def test_no_distorted_scene_is_left_out_silently(self, copied):
        root, scene = copied("wai")
        (scene / "scene_meta.json").rename(scene / "scene_meta_distorted.json")
        with pytest.raises(DatasetError, match=rf"{scene.name}/scene_meta_distorted\.json: these pictures are as"):
            opened(root)

    def test_a_scene_itself_and_folders_inside_it(self, copied):
        root, scene = copied("wai")
        assert opened(scene).train[0].name == f"{root.name}/{scene.name}"
        shutil.copytree(scene, scene / "backup")
        assert len(opened(root).train) == 3

    def test_fingerprints_follow_cameras_and_units(self, copied):
        root, scene = copied("scannet")
        before = opened(root).fingerprint
        assert opened(root, depth_unit=0.002).fingerprint != before
        np.savetxt(scene / "pose/0.txt", np.eye(4))
        assert opened(root, on_bad_file="skip", scenes="0-2").fingerprint != before


class TestPrograms:
    def test_a_step_over_another_layout_is_the_same_step(self, folders, ours):
        """WAI loses nothing, so training sees the same bytes as over our own dataset."""
        settings = replace(SHORT, views=Uniform(3, 6), images_per_step=12, width_px=70)
        ours_too, theirs = (
            load_step(Sampling(opened(source).train, settings, 3), 7) for source in (ours, folders("wai"))
        )
        for a, b in zip(ours_too.images_u8 + ours_too.depth_z, theirs.images_u8 + theirs.depth_z, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(ours_too.windows, theirs.windows)
        np.testing.assert_allclose(ours_too.camera_from_world, theirs.camera_from_world, atol=1e-12)

    def test_evaluation_and_comparison_read_with_their_own_keys(self, folders):
        settings = EvaluateSettings(data=(str(folders("clearpose")),), format="clearpose", depth_unit=0.002)
        selection = select_scenes(settings)
        assert [scene.name for scene in selection.scenes] == ["set1/scene1", "set1/scene2", "set1/scene3"]
        assert {scene.depth_unit for scene in selection.scenes} == {0.002}
        compared = fill(CompareSettings, {"test": {"format": "wai", "scaled_rotation": True}})
        assert (evaluation_of(compared).format, evaluation_of(compared).scaled_rotation) == ("wai", True)


class TestPictures:
    @pytest.mark.parametrize("name", ["nerfstudio", "colmap-npy", "scannet", "clearpose"])
    def test_prediction_takes_a_scenes_pictures(self, name, folders):
        scene = choose(folders(name)).folders[0]
        found = scene_pictures(scene, stride=2, max_views=2)
        views = outside_scene(name.partition("-")[0], scene, Reading(needs_depth=False)).stored_views()
        assert found.used == (views[0].picture, views[2].picture)
        assert found.note.startswith("pictures of a scene in ")

    def test_pictures_with_cameras_are_not_turned_in_prediction_either(self, copied):
        """But those of a folder of photographs are, as nobody says where they were taken from."""
        _, scene = copied("nerfstudio")
        file = scene / "images/0000.png"
        tag = Image.Exif()
        tag[ExifTags.Base.Orientation] = 6
        with Image.open(file) as picture:
            picture.load()
            picture.save(file, exif=tag)
        with_cameras, alone = scene_pictures(scene, max_views=1), scene_pictures(scene / "images", max_views=1)
        assert (with_cameras.turn, alone.turn) == (False, True) and with_cameras.used == alone.used
        sizes = [load_pictures(files, "crop", 70, 14)[0].file_size_wh for files in (with_cameras, alone)]
        assert sizes == [(70, 56), (56, 70)]

    def test_or_those_of_a_folder(self, folders):
        folder = choose(folders("colmap-npy")).folders[0] / "images"
        assert scene_pictures(folder) == image_files(folder)

    def test_two_layouts_at_once(self, copied, folders):
        _, scene = copied("wai")
        shutil.copy(folders("nerfstudio") / "texture_00/000000/transforms.json", scene)
        with pytest.raises(DatasetError, match=r"scenes of 2 layouts: nerfstudio \(.*\) and wai"):
            scene_pictures(scene)
