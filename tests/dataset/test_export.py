"""Every layout is read back by its own rules (COLMAP's and WebDataset's by their own libraries).

Hugging Face folders are in ``test_huggingface.py``, derived layers in ``test_derived.py``, loaders in
``test_loaders.py``.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import synthetic
from synthetic import tree

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.dataset import images
from megasynth_attr.dataset.export.__main__ import Options, export_dataset, main
from megasynth_attr.dataset.export.derived import covisibility
from megasynth_attr.dataset.reader import SceneData, open_dataset
from megasynth_attr.dataset.record_file import sealed

FORMATS = ("paper", "colmap", "nerfstudio", "webdataset", "wai", "huggingface")
PIECES = {"webdataset": "texture_00-{:06d}.tar", "huggingface": "data/texture_00/train-{:05d}.parquet"}


def export(kind: str, dataset: Path, out: Path, **options: Any) -> Path:
    export_dataset(Options(kind, str(dataset), str(out), **options), progress=False)
    return out


def content(out: Path) -> dict[str, bytes]:
    """Return what an export holds apart from its marker."""
    return {name: data for name, data in tree(out).items() if not name.startswith(".megasynth-export")}


class TestPaper:
    def test_round_trip(self, pristine: Path, tmp_path: Path) -> None:
        export("paper", pristine, tmp_path / "out")
        for scene in open_dataset(pristine).scenes:
            sequence = tmp_path / "out" / "texture_00" / scene.name
            frames = json.loads((sequence / "opencv_cameras.json").read_text())["frames"]
            assert len(frames) == synthetic.FRAMES
            for view, frame in zip(scene.views, frames, strict=True):
                assert sorted(frame) == ["cx", "cy", "file_path", "fx", "fy", "h", "w", "w2c"]
                assert frame["file_path"] == f"renderings/{view.index:08d}_rgba.png"
                assert (frame["w"], frame["h"], frame["cx"], frame["cy"]) == (70, 56, 35, 28)
                assert frame["fx"] == frame["fy"] == view.intrinsics[0, 0]
                np.testing.assert_array_equal(frame["w2c"], view.camera_from_world)
                image = sequence / frame["file_path"]
                assert image.read_bytes() == view.file("rgb").read_bytes()
                channels = images.read_exr(Path(str(image).replace("rgba", "depth").replace(".png", ".exr")))
                assert sorted(channels) == ["B", "G", "R"]
                depth = channels["R"]
                assert depth.dtype == np.float32
                np.testing.assert_array_equal(channels["G"], depth)
                np.testing.assert_array_equal(channels["B"], depth)
                assert (depth[view.depth_z == 0] == np.float32(1e10)).all()
                np.testing.assert_array_equal(np.where(depth > 1e9, 0, depth), view.depth_z)

    def test_nothing_but_categories(self, pristine: Path, tmp_path: Path) -> None:
        """The released loader takes every folder for a category."""
        export("paper", pristine, tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["texture_00"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.megasynth-export"]

    def test_an_export_of_an_earlier_version_goes_on(self, pristine: Path, tmp_path: Path) -> None:
        export("paper", pristine, tmp_path / "out", scenes="0")
        (tmp_path / "out.megasynth-export").rename(tmp_path / "out/.megasynth-export")
        export("paper", pristine, tmp_path / "out")
        assert len(list((tmp_path / "out/texture_00").iterdir())) == 3
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_removed_export_is_forgotten(self, pristine: Path, tmp_path: Path) -> None:
        export("paper", pristine, tmp_path / "out", scenes="0")
        shutil.rmtree(tmp_path / "out")
        export("paper", pristine, tmp_path / "out", scenes="0", pixel_centre=0)
        frames = json.loads((tmp_path / "out/texture_00/000000/opencv_cameras.json").read_text())["frames"]
        assert {(frame["cx"], frame["cy"]) for frame in frames} == {(34.5, 27.5)}
        with pytest.raises(ConfigError, match=r"options\.pixel_centre is 0.* there and absent now"):
            export("paper", pristine, tmp_path / "out")

    def test_links(self, dataset: Path, tmp_path: Path) -> None:
        export("paper", dataset, tmp_path / "linked", link=True)
        image = tmp_path / "linked/texture_00/000000/renderings/00000002_rgba.png"
        assert image.samefile(dataset / "scenes/000/000000/rgb/0002.png")
        assert content(tmp_path / "linked") == content(export("paper", dataset, tmp_path / "copied"))


class TestColmap:
    @pytest.mark.parametrize("model", ["text", "binary"])
    def test_pycolmap_reads_it(self, pristine: Path, tmp_path: Path, model: str) -> None:
        pycolmap = pytest.importorskip("pycolmap")
        export("colmap", pristine, tmp_path / "out", model=model, scenes="0-1")
        for scene in open_dataset(pristine).scenes[:2]:
            folder = tmp_path / "out" / "texture_00" / scene.name
            self.check(pycolmap.Reconstruction(str(folder / "sparse/0")), scene, folder)

    def check(self, model: Any, scene: SceneData, folder: Path) -> None:
        assert (model.num_cameras(), model.num_images()) == (1, synthetic.FRAMES)
        assert model.num_points3D() > 300
        camera = next(iter(model.cameras.values()))
        np.testing.assert_allclose(camera.calibration_matrix(), scene.intrinsics, atol=1e-12)
        assert (camera.width, camera.height) == (70, 56)
        total = 0
        for image in model.images.values():
            view = scene.views[int(Path(image.name).stem)]
            assert (folder / "images" / image.name).read_bytes() == view.file("rgb").read_bytes()
            pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
            np.testing.assert_allclose(pose.matrix(), view.camera_from_world[:3], atol=1e-12)
            depth = view.depth_z
            total += len(image.points2D)
            for point2d in list(image.points2D)[::7]:
                point = model.points3D[point2d.point3D_id]
                np.testing.assert_allclose(image.project_point(point.xyz), point2d.xy, atol=1e-6)
                column, row = np.floor(point2d.xy).astype(int)
                nearby = depth[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                z = (pose.matrix() @ [*point.xyz, 1])[2]
                assert nearby.min() * 0.995 <= z <= nearby.max() * 1.005
        assert total == sum(len(point.track.elements) for point in model.points3D.values())
        assert min(len(point.track.elements) for point in model.points3D.values()) >= 2
        for point in list(model.points3D.values())[::50]:
            for element in point.track.elements:
                assert model.images[element.image_id].points2D[element.point2D_idx].xy.shape == (2,)
                observed = model.images[element.image_id].points2D[element.point2D_idx].point3D_id
                assert model.points3D[observed].xyz.tolist() == point.xyz.tolist()

    def test_points_lie_on_the_surfaces(self, pristine: Path, tmp_path: Path) -> None:
        """Oracle: the ray-cast world itself."""
        export("colmap", pristine, tmp_path / "out", model="text", scenes="0")
        lines = (tmp_path / "out/texture_00/000000/sparse/0/points3D.txt").read_text().splitlines()
        points = np.array([line.split()[1:4] for line in lines if not line.startswith("#")], dtype=float)
        world = synthetic.WORLD
        distances = [np.abs(points[:, 2] - world.floor)]
        distances += [np.abs(np.linalg.norm(points - c, axis=1) - r) for c, r in world.spheres]
        low, high = np.asarray(world.box)
        outside = np.maximum(np.maximum(low - points, points - high), 0)
        distances.append(np.linalg.norm(outside, axis=1))
        assert np.min(distances, axis=0).max() < 1e-5


class TestNerfstudio:
    @pytest.mark.parametrize("kind", ["png", "npy"])
    def test_unprojection_by_its_rules_gives_the_positions(self, pristine: Path, tmp_path: Path, kind: str) -> None:
        export("nerfstudio", pristine, tmp_path / "out", depth=kind, scenes="1")
        folder = tmp_path / "out" / "texture_00" / "000001"
        record = json.loads((folder / "transforms.json").read_text())
        assert (record["w"], record["h"], record["camera_model"]) == (70, 56, "OPENCV")
        scene = open_dataset(pristine).scene(1)
        assert len(record["frames"]) == synthetic.FRAMES
        for view, frame in zip(scene.views, record["frames"], strict=True):
            assert (folder / frame["file_path"]).read_bytes() == view.file("rgb").read_bytes()
            file = folder / frame["depth_file_path"]
            stored = np.load(file) if kind == "npy" else images.read_ids(file)
            depth = stored.astype(np.float64) * 0.001  # nerfstudio's default depth_unit_scale_factor
            columns, rows = np.meshgrid(np.arange(70) + 0.5, np.arange(56) + 0.5)
            # OpenGL camera axes: x right, y up, looking along -z
            x, y = (columns - record["cx"]) / record["fl_x"], -(rows - record["cy"]) / record["fl_y"]
            camera = np.stack([x, y, -np.ones_like(x), np.ones_like(x)], -1) * depth[..., None]
            camera[..., 3] = 1
            points = camera @ np.array(frame["transform_matrix"]).T
            hit = view.depth_z > 0
            assert ((depth > 0) == hit).all()
            tolerance = 1e-3 if kind == "png" else 2e-6
            assert view.position is not None
            np.testing.assert_allclose(points[hit][:, :3], view.position[hit], atol=tolerance)

    def test_depth_beyond_16_bit_is_refused(self, dataset: Path, tmp_path: Path) -> None:
        file = dataset / "scenes/000/000000/depth/0000.exr"
        images.write_depth(file, np.full((56, 70), 70, np.float32), "float32")
        hostile.reseal_checksums(dataset / "scenes/000/000000", "depth/0000.exr")
        with pytest.raises(DatasetError, match="use depth=npy"):
            export("nerfstudio", dataset, tmp_path / "exports")
        assert not (tmp_path / "exports/texture_00").exists()
        assert not (tmp_path / "exports/.megasynth-export/tmp").exists()


class TestWebDataset:
    def test_read_back(self, pristine: Path, tmp_path: Path) -> None:
        webdataset = pytest.importorskip("webdataset")
        export("webdataset", pristine, tmp_path / "out", scenes_per_shard=2)
        shards = sorted(str(p) for p in (tmp_path / "out").glob("*.tar"))
        assert [Path(s).name for s in shards] == ["texture_00-000000.tar", "texture_00-000001.tar"]
        samples = list(webdataset.WebDataset(shards, shardshuffle=False))
        views = [view for scene in open_dataset(pristine).scenes for view in scene.views]
        assert len(samples) == len(views) == 18
        for sample, view in zip(samples, views, strict=True):
            record = json.loads(sample["json"])
            assert sample["__key__"] == f"texture_00/{record['scene']:06d}/{record['frame']:04d}"
            np.testing.assert_array_equal(record["camera_from_world"], view.camera_from_world)
            np.testing.assert_array_equal(record["intrinsics"], view.intrinsics)
            for layer, key in (("rgb", "rgb.png"), ("depth", "depth.exr"), ("instance", "instance.png")):
                assert sample[key] == view.file(layer).read_bytes()

    def test_headers_tell_nothing_of_the_machine(self, pristine: Path, tmp_path: Path) -> None:
        export("webdataset", pristine, tmp_path / "out")
        with tarfile.open(tmp_path / "out/texture_00-000000.tar") as tar:
            members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        assert [m.name for m in members] == sorted(m.name for m in members)

    def test_another_selection_is_refused(self, pristine: Path, tmp_path: Path) -> None:
        export("webdataset", pristine, tmp_path / "out", scenes="0")
        with pytest.raises(ConfigError, match=r"holds another export: options\.scenes is .* now"):
            export("webdataset", pristine, tmp_path / "out")


class TestWai:
    def test_points_by_its_rules_are_the_positions(self, pristine: Path, tmp_path: Path) -> None:
        """World from camera, OpenCV axes, whole numbers as pixel centres; half a pixel more or less is far off."""
        export("wai", pristine, tmp_path / "out")
        for scene in open_dataset(pristine).scenes:
            folder = tmp_path / "out/texture_00" / scene.name
            meta = json.loads((folder / "scene_meta.json").read_text())
            assert (meta["camera_model"], meta["camera_convention"], meta["version"]) == ("PINHOLE", "opencv", "0.1")
            assert (meta["scene_name"], meta["dataset_name"]) == (scene.name, "texture_00")
            assert meta["frame_modalities"]["depth"] == {"frame_key": "depth", "format": "depth"}
            for view, frame in zip(scene.views, meta["frames"], strict=True):
                picture = images.read_image(folder / frame["image"])
                np.testing.assert_array_equal(picture, view.rgb)
                channels = images.read_exr(folder / frame["depth"])
                assert list(channels) == ["Y"] and channels["Y"].dtype == np.float32
                np.testing.assert_array_equal(channels["Y"], view.depth_z)
                hit = view.depth_z > 0
                assert view.position is not None
                errors = [
                    np.abs(self.points(meta, frame, channels["Y"], shift) - view.position)[hit].max()
                    for shift in (0, 0.5)
                ]
                assert errors[0] < 2e-6 and errors[1] > 5e-3

    def points(self, meta: dict[str, Any], frame: dict[str, Any], depth: np.ndarray, shift: float) -> np.ndarray:
        columns, rows = np.meshgrid(np.arange(meta["w"]) + shift, np.arange(meta["h"]) + shift)
        x, y = (columns - meta["cx"]) / meta["fl_x"] * depth, (rows - meta["cy"]) / meta["fl_y"] * depth
        camera = np.stack([x, y, depth, np.ones_like(x)], axis=-1)
        return (camera @ np.array(frame["transform_matrix"]).T)[..., :3]

    def test_covisibility_file(self, pristine: Path, tmp_path: Path) -> None:
        export("wai", pristine, tmp_path / "out", scenes="0")
        (file,) = (tmp_path / "out/texture_00/000000/covisibility/v0").iterdir()
        meta = json.loads((tmp_path / "out/texture_00/000000/scene_meta.json").read_text())
        assert meta["scene_modalities"]["pairwise_covisibility"] == {
            "scene_key": "covisibility/v0/pairwise_covisibility--6x6.npy",
            "format": "mmap",
        }
        assert file.name == "pairwise_covisibility--6x6.npy"
        raw = np.memmap(file, dtype=np.float32, mode="r", shape=(6, 6), offset=128)  # as its loader reads it
        np.testing.assert_array_equal(raw, covisibility(open_dataset(pristine).scene(0).views))

    def test_scene_lists(self, pristine: Path, tmp_path: Path) -> None:
        export("wai", pristine, tmp_path / "out", val_scenes=1)
        lists = {
            split: np.load(tmp_path / f"out/metadata/{split}/texture_00_scene_list_{split}.npy").tolist()
            for split in ("train", "val")
        }
        assert lists == {"train": ["000000", "000001"], "val": ["000002"]}


@pytest.mark.parametrize("kind", FORMATS)
def test_twice_gives_equal_bytes(kind: str, pristine: Path, tmp_path: Path) -> None:
    first, second = (content(export(kind, pristine, tmp_path / name)) for name in ("a", "b"))
    assert first == second and first


@pytest.mark.parametrize("kind", FORMATS)
def test_running_again_continues(kind: str, pristine: Path, tmp_path: Path) -> None:
    out = export(kind, pristine, tmp_path / "out", scenes_per_shard=1)
    whole = content(out)
    victim, kept = (out / PIECES.get(kind, "texture_00/{:06d}").format(i) for i in (1, 2))
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    before = kept.stat().st_mtime_ns
    export(kind, pristine, out, scenes_per_shard=1)
    assert content(out) == whole
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", FORMATS)
def test_shards_make_the_same(kind: str, pristine: Path, tmp_path: Path) -> None:
    """Each machine fills a folder of its own; put together, one run completes them."""
    own = {"scenes_per_shard": 1} | ({"val_scenes": 1} if kind in ("wai", "huggingface") else {})
    whole = content(export(kind, pristine, tmp_path / "whole", flow=True, **own))
    for i in (1, 2):
        part = export(kind, pristine, tmp_path / f"part{i}", flow=True, shard=f"{i}/2", **own)
        assert 0 < len(content(part)) < len(whole)
        shutil.copytree(part, tmp_path / "together", dirs_exist_ok=True)
        if (control := tmp_path / f"part{i}.megasynth-export").exists():
            shutil.copytree(control, tmp_path / "together.megasynth-export", dirs_exist_ok=True)
    assert content(export(kind, pristine, tmp_path / "together", flow=True, **own)) == whole


KILLED = """
import os, signal
from pathlib import Path
from megasynth_attr.dataset.export import target
from megasynth_attr.dataset.export.__main__ import Options, export_dataset

publish, done = target.publish, []

def once(new, final):
    if done:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(final)
    return publish(new, final)

target.publish = once
export_dataset(Options({kind!r}, {dataset!r}, {out!r}, scenes_per_shard=1), progress=False)
"""


@pytest.mark.parametrize("kind", ["paper", "wai", "huggingface"])
def test_a_killed_export_goes_on_to_the_same_bytes(kind: str, pristine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = KILLED.format(kind=kind, dataset=str(pristine), out=str(out))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (left,) = {*tmp_path.glob("*/.megasynth-export/tmp"), *tmp_path.glob("*.megasynth-export/tmp")}
    assert any(left.iterdir())
    one = content(out)
    assert one and content(export(kind, pristine, tmp_path / "whole", scenes_per_shard=1)).items() > one.items()
    assert content(export(kind, pristine, out, scenes_per_shard=1)) == content(tmp_path / "whole")
    assert not left.exists()


@pytest.mark.parametrize("kind", ["paper", "huggingface"])
def test_memory_does_not_grow_with_the_number_of_scenes(kind: str, dataset: Path, tmp_path: Path) -> None:
    record = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(sealed(record | {"scene_count": 1000})))
    first = dataset / "scenes/000/000000"
    for i in range(3, 9):
        shutil.copytree(first, first.with_name(f"{i:06d}"), copy_function=os.link)
    export(kind, dataset, tmp_path / "warm", scenes="0")
    few, many = (peak(kind, dataset, tmp_path / words, words) for words in ("0-2", "0-8"))
    assert many < few + 100_000  # the depth of one scene takes 94,080 bytes


def peak(kind: str, dataset: Path, out: Path, scenes: str) -> int:
    gc.collect()
    tracemalloc.start()
    export(kind, dataset, out, scenes=scenes, scenes_per_shard=2)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_a_list_of_scenes_in_an_earlier_record_is_the_same_as_ranges(pristine: Path, tmp_path: Path) -> None:
    out = export("webdataset", pristine, tmp_path / "out")
    file = out / ".megasynth-export/texture_00.json"
    record = json.loads(file.read_text())
    assert record["options"] == {"scenes": "0-2", "scenes_per_shard": 10}
    file.write_text(json.dumps(record | {"options": {"scenes": [0, 1, 2], "scenes_per_shard": 10}}))
    export("webdataset", pristine, out)


class TestRefusals:
    def test_foreign_folder(self, pristine: Path, tmp_path: Path) -> None:
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(ConfigError, match=r"holds letter\.txt, but no .*: it is no export"):
            export("paper", pristine, tmp_path)
        assert tree(tmp_path) == {"letter.txt": b"dear"}

    def test_another_format(self, pristine: Path, tmp_path: Path) -> None:
        export("paper", pristine, tmp_path / "out", scenes="0")
        before = tree(tmp_path)
        with pytest.raises(ConfigError, match='holds another export: layout is "paper" there and "colmap" now'):
            export("colmap", pristine, tmp_path / "out")
        assert tree(tmp_path) == before

    def test_another_dataset_of_that_name(self, pristine: Path, dataset: Path, tmp_path: Path) -> None:
        export("paper", pristine, tmp_path / "exports", scenes="0")
        record = json.loads((dataset / "dataset.json").read_text())
        (dataset / "dataset.json").write_text(json.dumps(record | {"fingerprint": "0" * 64}))
        with pytest.raises(ConfigError, match=r"another export: the fingerprint of texture_00 is .* now"):
            export("paper", dataset, tmp_path / "exports")

    def test_the_dataset_itself(self, dataset: Path) -> None:
        with pytest.raises(ConfigError, match="inside the dataset"):
            export("paper", dataset, dataset / "export")

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("layer", ["rgb", "depth"])
    def test_missing_files_are_named(self, dataset: Path, tmp_path: Path, kind: str, layer: str) -> None:
        victim = next((dataset / "scenes/000/000000" / layer).glob("0003.*"))
        victim.unlink()
        with pytest.raises(DatasetError, match=victim.name.replace(".", r"\.")):
            export(kind, dataset, tmp_path / "exports")
        assert content(tmp_path / "exports") == {}

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["format=colmpa", "dataset=x", "out=y"], "did you mean colmap"),
            (["fromat=colmap"], "did you mean format"),
            (["format=paper", "dataset=x"], "out= is missing"),
            (["format=paper", "dataset=x", "out=y", "link=perhaps"], "write true or false"),
            (["format=colmap", "dataset=x", "out=y", "model=xml"], "must be one of both, text, binary"),
            (["format=wai", "dataset=x", "out=y", "link=true"], "link=True: format=wai has no such key; leave it out"),
            (["format=colmap", "dataset=x", "out=y", "push=a/b"], "push=a/b: format=colmap has no such key"),
            (["format=paper", "dataset=x", "out=y", "pixel_centre=0.25"], r"pixel_centre=0\.25: write 0\.5"),
            (["format=paper", "dataset=x", "out=y", "shard=3/2"], "shard=3/2: write i/n"),
            (["format=paper", "dataset=x", "out=y", "disparity=-1"], "disparity"),
            (["format=paper", "dataset=x", "out=y", "disparity=1e300"], r"disparity=1e\+300: write a baseline between"),
            (["format=wai", "dataset=x", "out=y", "disparity=1e-300"], "between 1e-06 and 1e.06 scene units, or 0"),
            (["format=wai", "dataset=x", "out=y", "disparity=nan"], "disparity"),
        ],
    )
    def test_bad_words(self, words: list[str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            main(words)

    def test_more_validation_than_scenes(self, pristine: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="val_scenes=4: only 3 scenes are exported"):
            export("wai", pristine, tmp_path / "out", val_scenes=4)
        assert not (tmp_path / "out").exists()

    def test_scene_out_of_range(self, pristine: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="index 3 is out of range"):
            export("paper", pristine, tmp_path / "out", scenes="0-3")
        assert not (tmp_path / "out").exists()


def test_command(pristine: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "megasynth_attr.dataset.export"]
    words = ["format=paper", f"dataset={pristine}", f"out={tmp_path / 'out'}", "scenes=0"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "exported to" in done.stdout and "export texture_00: 100%" in done.stderr
    done = subprocess.run([*command, "format=webp", *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "unknown format" in done.stderr and "Traceback" not in done.stderr


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    text = capsys.readouterr().out
    for word in (*FORMATS, "scenes_per_shard=", "  python -m megasynth_attr.dataset.export format=colmap"):
        assert word in text
