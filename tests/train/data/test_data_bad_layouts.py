"""Layouts that are damaged, turned or doubtful: what is wrong is found and named."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import zlib
from dataclasses import replace

import layout_folders
import numpy as np
import pytest
from layout_folders import SHORT, edit, exported, opened, scale_rotation
from PIL import Image
from scipy.io import loadmat, savemat

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.dataset.images import write_exr, write_png
from megasynth_attr.dataset.reprojection import pixel_rays
from megasynth_train.data.agreement import agreement, pairs_of, sample_frames
from megasynth_train.data.batch import load_step
from megasynth_train.data.cache import FrameCache
from megasynth_train.data.depth_files import DepthFile
from megasynth_train.data.layouts.choose import choose
from megasynth_train.data.layouts.colmap_files import require_whole
from megasynth_train.data.plan import Sampling
from megasynth_train.data.sources import open_sources

DEPTH = {"format": "depth"}
OPENGL = np.diag([1.0, -1, -1, 1])
FLAT = np.diag([0.0, 0, 0, 1]).tolist()
DOUBLED = np.diag([2.0, 2, 2, 1])[:3].tolist()


def mirror(pose: list) -> None:
    for row in pose[:3]:
        row[0] = -row[0]


def transpose(frame: dict, key: str = "transform_matrix") -> None:
    frame[key] = np.transpose(frame[key]).tolist()


def scale_position(pose: list, factor: float) -> None:
    for row in pose[:3]:
        row[3] *= factor


class TestTrouble:
    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            ("nerfstudio", lambda r: r.update(k1=0.1), r"frame 0: the lens distorts \(k1=0\.1\), .*undistort"),
            ("nerfstudio", lambda r: r.update(camera_model="OPENCV_FISHEYE"), r"distorts \(camera_model=OPENCV_FISH"),
            ("nerfstudio", lambda r: r.pop("fl_x"), "frame 0: fl_x is missing"),
            ("nerfstudio", lambda r: r.update(w="wide"), "frame 0: w is 'wide', no number"),
            ("nerfstudio", lambda r: r.update(applied_transform=DOUBLED), "is no rotation"),
            ("nerfstudio", lambda r: r["frames"][1].pop("transform_matrix"), "frame 1: transform_matrix"),
            ("nerfstudio", lambda r: r["frames"][1].update(file_path="../../secret.png"), "cannot be used as a name"),
            ("nerfstudio", lambda r: r["frames"][1].update(transform_matrix=FLAT), "singular"),
            ("nerfstudio", lambda r: r.update(frames=[]), "has no list of frames"),
            ("nerfstudio", lambda r: r.update(is_fisheye=True), r"the lens distorts \(is_fisheye\)"),
            ("nerfstudio", lambda r: r.update(w=70.7), "frame 0: 70.7×56 is no size of a picture in whole pixels"),
            ("nerfstudio", lambda r: r.update(w=1e300), "is no size of a picture"),
            ("nerfstudio", lambda r: r.update(depth_unit_scale_factor=0), "depth_unit_scale_factor=0 must be positive"),
            ("nerfstudio", lambda r: r.update(applied_scale=-1), "applied_scale=-1 and .* must be positive"),
            ("nerfstudio", lambda r: r["frames"][1].update(depth_file_path=5), "depth_file_path is 5, no path"),
            ("nerfstudio", lambda r: r["frames"][1].update(file_path="/home/a.png"), r"'/home/a\.png' .*relative to"),
            ("nerfstudio", lambda r: transpose(r["frames"][1]), "0 instead of 0 0 0 1|rows and columns are exchanged"),
            ("wai", lambda r: transpose(r["frames"][0]), r"1 instead of 0 0 0 1: rows and columns are exchanged"),
            ("nerfstudio", lambda r: r.update(frames=["a"]), "frame 0 is damaged: it is no table of names and values"),
            (
                "nerfstudio",
                lambda r: r.update(fl_y=1e308),
                r"focal length y is 1e\+308 px in a picture of 56 px,",
            ),
            ("wai", lambda r: r.update(fl_x=0.5), r"focal length x is 0\.5 px in a picture of 70 px"),
            ("wai", lambda r: r["frames"].append(r["frames"][2]), r"two .* the same picture, .*000002\.png; leave one"),
            (
                "nerfstudio",
                lambda r: r["frames"][1].update(file_path="images\\0001.png"),
                "it has a backslash in it; between folders write /",
            ),
            (
                "nerfstudio",
                lambda r: [f.pop("depth_file_path") for f in r["frames"]],
                "none of its 6 views has a depth",
            ),
            ("wai", lambda r: r.update(camera_convention="opengl"), "camera_convention is 'opengl'; WAI's is opencv"),
            ("wai", lambda r: r["frames"][2].update(w=71), r"frames differ in size \[\(56, 70\), \(56, 71\)\]"),
            (
                "wai",
                lambda r: mirror(r["frames"][2]["transform_matrix"]),
                "it mirrors, .*left-handed; turn",
            ),
            ("wai", lambda r: scale_rotation(r["frames"][2]["transform_matrix"], 2), r"not a rotation \(R Rᵀ: off by"),
            ("wai", lambda r: r.update(frame_modalities={"a": DEPTH, "b": DEPTH}), r"several .*\(a, b\); call the"),
            (
                "wai",
                lambda r: r["frames"][0].pop("file_path") and r["frames"][0].pop("image"),
                "neither image nor file_path",
            ),
        ],
    )
    def test_bad_cameras(self, name, change, words, copied):
        root, scene = copied(name)
        file = scene / ("transforms.json" if name == "nerfstudio" else "scene_meta.json")
        edit(file, change)
        with pytest.raises(DatasetError, match=words) as caught:
            opened(root)
        assert str(file) in str(caught.value)

    def test_the_papers_layout(self, paper_copy):
        file = choose(paper_copy).folders[0] / "opencv_cameras.json"
        good = file.read_bytes()
        for change, words in (
            (lambda frame: frame.update(w="nan"), "nan×56 is no size of a picture"),
            (lambda frame: frame.update(h="inf"), "70×inf is no size of a picture"),
            (lambda frame: transpose(frame, "w2c"), "rows and columns are exchanged"),
        ):
            edit(file, lambda record, change=change: [change(frame) for frame in record["frames"]])
            with pytest.raises(DatasetError, match=words):
                opened(paper_copy)
            file.write_bytes(good)

    def test_names_in_capitals(self, copied):
        root, scene = copied("scannet")
        for file in [*(scene / "color").iterdir(), *(scene / "depth").iterdir()]:
            file.rename(file.with_suffix(file.suffix.upper()))
        first, other = opened(root).train[:2]
        assert first.view_count == other.view_count == 5 and first.has_depth

    def test_skewed_pixels(self, copied):
        root, scene = copied("scannet")
        file = scene / "intrinsic/intrinsic_color.txt"
        intrinsics = np.loadtxt(file)
        intrinsics[0, 1] = 20
        np.savetxt(file, intrinsics)
        with pytest.raises(DatasetError, match=r"the pixels are skewed \(row 1, column 2 of the intrinsics is 20\)"):
            opened(root)

    def test_sizes_that_differ_are_said_first(self, copied):
        root, scene = copied("clearpose")
        file = scene / "000100-color.png"
        with Image.open(file) as picture:
            picture.resize((35, 28)).save(file)
        with pytest.raises(DatasetError, match=r"frames differ in size \[\(28, 35\), \(56, 70\)\]"):
            opened(root)

    def test_names_in_a_model_that_are_not_utf8(self, copied):
        root, scene = copied("colmap-exr")
        file = scene / "sparse/0/images.bin"
        file.write_bytes(file.read_bytes().replace(b"0003.png", b"\xe9003.png"))
        with pytest.raises(DatasetError, match=r"the name of a picture is not in UTF-8 .*rename it there"):
            opened(root)

    def test_colmap_wants_pinholes_and_a_unit(self, folders, ours, tmp_path):
        distorted = layout_folders.write_colmap(tmp_path / "distorted", ours, ".exr", "SIMPLE_RADIAL")
        with pytest.raises(DatasetError, match=r"distorts \(camera model SIMPLE_RADIAL\); undistort"):
            opened(distorted)
        straight = layout_folders.write_colmap(tmp_path / "straight", ours, ".exr", "OPENCV")
        for model, pinhole in zip(opened(straight).train, opened(folders("colmap-exr")).train, strict=True):
            for a, b in zip(model.stored_views(), pinhole.stored_views(), strict=True):
                np.testing.assert_array_equal(a.intrinsics, b.intrinsics)
        file = choose(straight).folders[0] / "sparse/0/cameras.bin"
        content = file.read_bytes()
        file.write_bytes(content[:-8])
        with pytest.raises(DatasetError, match=r"cameras\.bin is cut off"):
            opened(straight)
        file.write_bytes(content[:-8] + np.float64(1e-9).tobytes())
        with pytest.raises(DatasetError, match=r"distorts \(camera model OPENCV\); undistort"):
            opened(straight)
        fisheye = layout_folders.write_colmap(tmp_path / "fisheye", ours, ".npy", "OPENCV_FISHEYE")
        with pytest.raises(DatasetError, match=r"distorts \(camera model OPENCV_FISHEYE\); undistort"):
            opened(fisheye)
        png = layout_folders.write_colmap(tmp_path / "png", ours, ".png")
        with pytest.raises(DatasetError, match=r"does not say what the numbers of a PNG mean; give the unit"):
            opened(png)
        scene = opened(png, depth_unit=0.001).train[0]
        assert scene.skipped == ("1 picture that the model does not place",)
        assert agreement(pairs_of(sample_frames(scene, 6))).error_px < 0.5

    def test_a_damaged_model(self, copied, ours, tmp_path):
        root, scene = copied("colmap-npy")
        (scene / "sparse/0/images.txt").write_text("1 2\n\n")
        with pytest.raises(DatasetError, match=r"sparse/0 cannot be read by pycolmap"):
            opened(root)
        _, scene = copied("colmap-exr")
        exported("colmap", ours, tmp_path / "exported")  # which has points with tracks
        for model in (choose(tmp_path / "exported").folders[0] / "sparse/0", scene.parent / "000001/sparse/0"):
            require_whole(model)
            for file in model.glob("*.bin"):
                good = file.read_bytes()
                for length in [*range(0, len(good), max(1, len(good) // 20)), len(good) - 1]:
                    file.write_bytes(good[:length])
                    with pytest.raises(DatasetError, match=rf"{file.name} is cut off or damaged"):
                        require_whole(model)
                if len(good) > 40:  # garbage: numbers of records and lengths beyond everything
                    file.write_bytes(good[:8] + bytes(64) + b"\0" + b"\xff" * 200)
                    with pytest.raises(DatasetError, match=rf"{file.name} is cut off or damaged"):
                        require_whole(model)
                file.write_bytes(good)

    @pytest.mark.parametrize("cameras", [1, 3])
    def test_a_model_with_rigs_is_whole(self, cameras, tmp_path):
        import pycolmap

        options = pycolmap.SyntheticDatasetOptions()
        options.num_cameras_per_rig, options.num_rigs, options.num_frames_per_rig = cameras, 2, 3
        options.num_points3D = 20
        pycolmap.synthesize_dataset(options).write_binary(tmp_path)
        require_whole(tmp_path)
        for file in tmp_path.glob("*.bin"):
            good = file.read_bytes()
            file.write_bytes(good + b"x")
            if file.name != "cameras.bin":  # with cameras that are not pinholes
                with pytest.raises(DatasetError, match="cut off or damaged"):
                    require_whole(tmp_path)
            file.write_bytes(good)

    def test_metadata(self, copied):
        root, scene = copied("clearpose")
        file = scene / "metadata.mat"
        frames = {name: one for name, one in loadmat(file, simplify_cells=True).items() if name.isdigit()}
        for change, words in (
            (lambda: frames["000100"].pop("rotation_translation_matrix"), "000100 lacks intrinsic_matrix, rotation_tr"),
            (lambda: frames["000000"].update(factor_depth=0), "factor_depth=0 is not positive"),
            (
                lambda: frames["000000"].update(factor_depth=1000, intrinsic_matrix=np.eye(3) * 1j),
                "000000: intrinsic_matrix is no table of numbers",
            ),
            (lambda: [frames.pop(name) for name in list(frames)], "holds no frames"),
        ):
            change()
            savemat(file, frames | {"about": "test"})
            with pytest.raises(DatasetError, match=words):
                opened(root)
        file.write_bytes(b"MATLAB 5.0 MAT-file" * 20)
        with pytest.raises(DatasetError, match=r"metadata\.mat is no MATLAB file"):
            opened(root)

    @pytest.mark.parametrize(
        "start", [b"<!DOCTYPE html>", b"\xef\xbb\xbf\n<HTML>", b"version https://git-lfs.github.com"]
    )
    def test_a_page_instead_of_data(self, start, copied):
        words = "is a Git LFS pointer" if b"lfs" in start else "is a web page, not data: a site"
        root, scene = copied("clearpose")
        (scene / "000000-color.png").write_bytes(start)
        with pytest.raises(DatasetError, match=rf"000000-color\.png {words}"):
            opened(root)
        (scene / "metadata.mat").write_bytes(start)
        with pytest.raises(DatasetError, match=rf"metadata\.mat {words}"):
            opened(root)
        root, scene = copied("wai")
        (scene / "depth/000001.exr").write_bytes(start)
        with pytest.raises(DatasetError, match=rf"000001\.exr {words}"):
            opened(root).train[0].read_views([1])
        (scene / "scene_meta.json").write_bytes(start)
        with pytest.raises(DatasetError, match=rf"scene_meta\.json {words}"):
            opened(root)

    def test_an_archive_or_its_page_is_no_folder(self, tmp_path):
        (tmp_path / "set1.zip").write_bytes(b"PK\3\4")
        with pytest.raises(DatasetError, match=r"this is a file; name a folder, unpacked"):
            opened(tmp_path / "set1.zip")
        (tmp_path / "set1.zip").write_bytes(b"<html>log in")
        with pytest.raises(DatasetError, match=r"set1\.zip is a web page"):
            opened(tmp_path / "set1.zip")

    def test_millimetres_for_metres(self, copied):
        _, scene = copied("nerfstudio")
        edit(scene / "transforms.json", lambda r: r.update(depth_unit_scale_factor=1.0))
        with pytest.raises(DatasetError, match=r"once depth is multiplied by 0\.001: .*; say depth_unit=0\.001"):
            opened(scene)
        assert opened(scene, depth_unit=0.001).train[0].depth_unit == 0.001
        assert "another unit" in opened(scene, depth_unit=1.0).notes[0]  # the owner has said so
        _, scene = copied("wai")
        edit(scene / "scene_meta.json", lambda r: [scale_position(f["transform_matrix"], 1000) for f in r["frames"]])
        with pytest.raises(DatasetError, match=r"depth is multiplied by 1000: .*; say depth_unit=1000"):
            opened(scene)

    def test_swapped_conventions_are_named(self, copied):
        for change, words in (
            (np.linalg.inv, "poses are inverted: they are the other way round"),
            (lambda pose: pose @ OPENGL, "y and z of the camera are turned round: its axes are OpenGL's"),
            (lambda pose: np.linalg.inv(pose @ OPENGL), "they are camera-to-world with OpenGL's axes"),
        ):
            root, scene = copied("wai")

            def turn(record, change=change):
                for frame in record["frames"]:
                    frame["transform_matrix"] = change(np.array(frame["transform_matrix"])).tolist()

            edit(scene / "scene_meta.json", turn)
            with pytest.raises(DatasetError, match=f"contradict each other.*{words}.*inspect shows it"):
                opened(scene)
            shutil.rmtree(root)

    def test_no_valid_depth(self, copied):
        root, scene = copied("wai")
        for file in scene.glob("depth/*.exr"):
            write_exr(file, {"Z": np.full((56, 70), 1e10, np.float32)})
        with pytest.raises(DatasetError, match="none of the views looked at has a pixel of valid depth"):
            opened(root)

    def test_some_views_without_depth_are_left_out_and_counted(self, copied):
        root, scene = copied("wai")
        edit(scene / "scene_meta.json", lambda r: r["frames"][4].pop("rendered_depth"))
        data = opened(root)
        assert data.train[0].view_count == 5
        assert data.notes[0] == f"{root.resolve()}: left out: 1 view without depth (wai/{scene.name})"

    @pytest.mark.parametrize("name", ["colmap-exr", "scannet", "clearpose", "wai", "nerfstudio"])
    def test_missing_and_wrong_files_are_named(self, name, copied):
        root, _ = copied(name)
        view = opened(root).train[0].stored_views()[1]
        write_png(view.picture.with_suffix(".new.png"), np.zeros((57, 70, 3), np.uint8))
        shutil.move(view.picture.with_suffix(".new.png"), view.picture)
        with pytest.raises(DatasetError, match=re.escape(f"{view.picture} has (57, 70) pixels (height, width)")):
            view.decode() if name != "scannet" else replace(view, picture_is_scaled=False).decode()
        view.picture.unlink()
        with pytest.raises(DatasetError, match=re.escape(f"{view.picture} is missing")):
            view.decode()

    def test_a_step_without_a_valid_depth(self, copied):
        """A scene whose drawn views have none stops training, or is replaced like any other that cannot be used."""
        root, scene = copied("wai")
        settings = replace(SHORT, sources=(str(root),), views=Uniform(6, 6), images_per_step=18, width_px=70)
        sampling = Sampling(open_sources(settings).train, settings, 5)
        for file in scene.glob("depth/*.exr"):
            write_exr(file, {"Z": np.zeros((56, 70), np.float32)})
        with pytest.raises(DatasetError, match=rf"{scene}: none of the views \[.*\] has a valid depth"):
            load_step(sampling, 0)
        batch = load_step(replace(sampling, settings=replace(settings, on_bad_file="skip")), 0)
        assert [bad.scene for bad in batch.skipped] == [f"wai/{scene.name}"]


class TestDoubt:
    def test_depth_as_distance(self, copied):
        """The mistake of reading a renderer's ray length as z, at 55° of view."""
        _, scene = copied("wai")
        for file in scene.glob("depth/*.exr"):
            depth = DepthFile(file).read()
            view = opened(scene, depth_unit=1.0).train[0].stored_views()[0]
            length = np.linalg.norm(pixel_rays(56, 70, view.intrinsics), axis=-1)
            write_exr(file, {"Z": (depth * length).astype(np.float32)})
        with pytest.raises(DatasetError, match="once depth is taken as distance from the camera"):
            opened(scene)

    def test_constant_depth(self, copied):
        """A placeholder: neither poses nor units are to blame."""
        _, scene = copied("wai")
        for file in scene.glob("depth/*.exr"):
            write_exr(file, {"Z": np.where(DepthFile(file).read() > 0, np.float32(2.5), np.float32(0))})
        with pytest.raises(DatasetError, match=r"depth is constant: in all views looked at, .* says 2\.5; such files"):
            opened(scene)

    @pytest.mark.parametrize("pose", [None, np.eye(4)], ids=["of the first frame", "identity"])
    def test_cameras_at_one_place(self, pose, copied):
        _, scene = copied("wai")

        def hold(record):
            still = record["frames"][0]["transform_matrix"] if pose is None else pose.tolist()
            [frame.update(transform_matrix=still) for frame in record["frames"]]

        edit(scene / "scene_meta.json", hold)
        assert "the cameras do not move: all views are from one place" in opened(scene).notes[0]

    def test_noise_is_no_certain_contradiction(self, copied):
        _, scene = copied("wai")
        generator = np.random.default_rng(0)
        for file in scene.glob("depth/*.exr"):
            depth = DepthFile(file).read()
            write_exr(file, {"Z": (depth * generator.uniform(0.7, 1.4, depth.shape)).astype(np.float32)})
        assert "no common mistake explains it" in opened(scene).notes[0]

    def test_a_camera_that_hardly_moves(self, copied):
        """Nothing can be said of the unit, so a sentence is all."""
        _, scene = copied("wai")
        still = json.loads((scene / "scene_meta.json").read_text())["frames"][0]

        def hold(record):
            for i, frame in enumerate(record["frames"]):
                frame["transform_matrix"] = np.array(still["transform_matrix"]).tolist()
                frame["transform_matrix"][0][3] += 1e-4 * i
                frame["rendered_depth"] = still["rendered_depth"]

        edit(scene / "scene_meta.json", hold)
        assert "Unless these hardly move, it has another unit" in opened(scene).notes[0]

    @pytest.mark.parametrize("chain", [False, True], ids=["in each other", "behind each other"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_cells_in_cells(self, packed, chain, copied):
        """SciPy follows them until its stack overflows; a variable also into those behind it."""

        def element(kind, content):
            return struct.pack("<2I", kind, len(content)) + content + bytes(-len(content) % 8)

        cell = element(6, struct.pack("<2I", 1, 0)) + element(5, struct.pack("<2i", 1, 1)) + element(1, b"000000")
        count = 30_000
        sizes = [len(cell) if chain else n * (8 + len(cell)) - 8 for n in range(count, 0, -1)]
        variables = b"".join(struct.pack("<2I", 14, size) + cell for size in sizes)
        if packed:
            variables = struct.pack("<2I", 15, len(zlib.compress(variables))) + zlib.compress(variables)
        _, scene = copied("clearpose")
        file = scene / "metadata.mat"
        file.write_bytes(file.read_bytes()[:128] + variables)
        with pytest.raises(DatasetError, match=r"metadata\.mat is no MATLAB file"):
            opened(scene)

    @pytest.mark.parametrize("kind", ["pipe", "device"])
    @pytest.mark.parametrize(
        ("name", "file"),
        [("wai", "images/000000.png"), ("wai", "depth/000000.exr"), ("scannet", "depth/0.png")],
    )
    def test_what_is_no_file_is_not_waited_for(self, kind, name, file, copied, tmp_path):
        _, scene = copied(name)
        (scene / file).unlink()
        os.mkfifo(scene / file) if kind == "pipe" else (scene / file).symlink_to("/dev/zero")
        with pytest.raises(DatasetError, match="it is no regular file"):
            for one in opened(scene).train:
                for frame in one.stored_views():
                    FrameCache(tmp_path / "cache", 0).read(frame)
