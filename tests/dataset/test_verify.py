"""verify: a correct dataset passes, and every kind of damage is found and named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import raycast
import synthetic
from PIL import Image

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import json_bytes, sha256_of
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.findings import SceneFacts, VerifyReport
from megasynth_attr.dataset.images import write_depth, write_vectors
from megasynth_attr.dataset.reader import open_dataset
from megasynth_attr.dataset.reprojection import PairResult
from megasynth_attr.dataset.verify import expectations, main, report_of, verify_dataset
from megasynth_attr.dataset.writer import finalise, open_for_writing


def quiet(folder: Path, **options: object) -> VerifyReport:
    return verify_dataset(folder, progress=False, **options)


def found(report: VerifyReport, check: str, text: str, where: str = "") -> bool:
    return any(f.check == check and text in f.message and where in f.where for f in report.findings)


def resealed(scene: Path) -> None:
    """Make checksums.json agree with changed files, so that only deeper checks can notice."""
    record = json.loads((scene / "checksums.json").read_text())
    for name in record["files"]:
        file = scene / name
        record["files"][name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    (scene / "checksums.json").write_bytes(json_bytes(record))


def test_a_correct_dataset_passes(dataset: Path) -> None:
    report = quiet(dataset)
    assert report.findings == () and report.passed
    assert (report.scenes, report.frames) == (3, 18)
    assert report.distinct_hashes == {"camera": 1, "geometry": 1, "lighting": 1, "noise": 1, "texture": 3}
    assert report.depth_groups == 1
    assert report.agreeing_share == 1.0 and report.covisible_pixels > 1000
    assert report.clipped_share == report.black_share == 0
    assert report.bytes == sum(
        f.stat().st_size for f in dataset.glob("scenes/*/*/**/*") if f.is_file() and f.name != "checksums.json"
    )
    saved = json.loads((dataset / "verify.json").read_text())
    assert saved["passed"] is True and saved["frames"] == 18
    assert "passed" in report.table() and "100.000%" in report.table()


def test_scenes_of_several_blenders_are_said(dataset: Path) -> None:
    """They may pass: nothing else compares pictures between scenes whose geometry differs."""
    scene, usual = dataset / "scenes/000/000001", "none: ray-cast test data"
    for version, said in (("\x1b[2J", rf"by Blender {usual} (2) and '\x1b[2J' (1)"), (usual, "")):
        record = json.loads((scene / "render.json").read_text()) | {"blender": version}
        (scene / "render.json").write_bytes(json_bytes(record))
        resealed(scene)
        assert [said in f.message and f.check == "isolation" for f in quiet(dataset).findings] == [True] * bool(said)


def test_clearance_is_measured_along_the_ray(tmp_path: Path) -> None:
    """Oracle: the distance to a sphere off the optical axis, which planar z would understate."""
    settings = synthetic.config("scene_count=1", "frames=2", "camera.clearance=0.5")
    world = raycast.World(spheres=(((0.0, 0.0, 0.0), 0.5),), half_floor=0.0, box=((9.0, 9, 9), (9.1, 9.1, 9.1)))
    poses = [raycast.look_at(np.array([0.0, -d, 0.0]), np.array([0.25, 0, 0])) for d in (1.2, 0.9)]
    folder = open_for_writing(settings, tmp_path, 0)
    synthetic.write_scene(settings, folder, synthetic.scene(settings, 0, poses), world)
    report = quiet(folder)
    assert report.nearest_surface == pytest.approx(0.4, abs=2e-3)
    assert found(report, "clearance", "at least 0.5 is required", "000000/frame 1")
    assert not report.passed


def damage_truncate(scene: Path) -> None:
    file = scene / "rgb/0003.png"
    file.write_bytes(file.read_bytes()[:-20])


def damage_flip(scene: Path) -> None:
    file = scene / "depth/0002.exr"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def damage_depth_nan(scene: Path) -> None:
    depth = np.full((56, 70), 2.0, np.float32)
    depth[5, 5] = np.nan
    write_depth(scene / "depth/0001.exr", depth, "float32")
    resealed(scene)


def damage_depth_scale(scene: Path) -> None:
    from megasynth_attr.dataset.images import read_depth

    for file in sorted((scene / "depth").iterdir()):
        write_depth(file, read_depth(file) * np.float32(1.2), "float32")
    resealed(scene)


def damage_png_size(scene: Path) -> None:
    Image.new("RGBA", (20, 20)).save(scene / "rgb/0000.png")
    resealed(scene)


def damage_pose(scene: Path) -> None:
    change_camera(scene, lambda pose: pose[0].__setitem__(0, pose[0][0] + 1e-3))


def damage_reflection(scene: Path) -> None:
    change_camera(scene, lambda pose: pose.__setitem__(0, [-v for v in pose[0]]))


def change_camera(scene: Path, change: Callable[[list[list[float]]], object]) -> None:
    record = json.loads((scene / "cameras.json").read_text())
    change(record["camera_from_world"][4])
    (scene / "cameras.json").write_bytes(json_bytes(record))
    resealed(scene)


def damage_scene_file(scene: Path) -> None:
    file = scene / "scene.json"
    file.write_text(file.read_text().replace('"root_seed":0', '"root_seed":1').replace('"attempts":1', '"attempts":2'))
    resealed(scene)


def damage_normals(scene: Path) -> None:
    write_vectors(scene / "normal/0000.exr", np.full((56, 70, 3), 0.3, np.float32), "float16")
    resealed(scene)


def damage_instance(scene: Path) -> None:
    Image.fromarray(np.full((56, 70), 4000, np.uint16)).save(scene / "instance/0000.png")
    resealed(scene)


def damage_position(scene: Path) -> None:
    write_vectors(scene / "position/0000.exr", np.zeros((56, 70, 3), np.float32))
    resealed(scene)


@pytest.mark.parametrize(
    ("damage", "check", "message", "where"),
    [
        (damage_truncate, "files", "bytes", "rgb/0003.png"),
        (damage_flip, "files", "checksum differs", "depth/0002.exr"),
        (lambda s: (s / "rgb/0001.png").unlink(), "files", "is missing", "rgb/0001.png"),
        (lambda s: (s / "notes.txt").write_text("?"), "files", "does not belong here", "notes.txt"),
        (lambda s: (s / "checksums.json").unlink(), "files", "is missing", "000001"),
        (lambda s: (s / "checksums.json").write_text("{"), "files", "is damaged", "000001"),
        (damage_depth_nan, "values", "1 values are not finite", "000001"),
        (damage_depth_scale, "reprojection", "co-visible pixels agree", "000001"),
        (damage_depth_scale, "equal depth", "depth differs in 6 frames", "000001"),
        (damage_png_size, "values", "has shape (20, 20, 4)", "000001"),
        (damage_pose, "cameras", "not orthonormal", "frame 4"),
        (damage_reflection, "cameras", "determinant is negative", "frame 4"),
        (damage_reflection, "cameras", "not those of the scene file", "000001"),
        (damage_scene_file, "scene", "hashes do not match", "000001"),
        (damage_normals, "layers", "do not have length 1", "frame 0"),
        (damage_instance, "layers", "instance id 4000", "frame 0"),
        (damage_position, "layers", "positions differ", "frame 0"),
    ],
)
def test_damage_is_found(dataset: Path, damage: Callable[[Path], object], check: str, message: str, where: str) -> None:
    damage(paths.scene_dir(dataset, 1))
    report = quiet(dataset)
    assert not report.passed
    assert found(report, check, message, where), report.table()
    assert all("000001" in f.where or not f.where for f in report.findings), report.table()


def test_missing_scenes_are_told(dataset: Path) -> None:
    for file in sorted(paths.scene_dir(dataset, 2).rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    paths.scene_dir(dataset, 2).rmdir()
    report = quiet(dataset)
    advice = (
        "if you made this dataset, the command that made it renders the missing scenes; if you were given it, fetch"
    )
    assert found(report, "completeness", f"2 of 3 scenes exist; {advice}")
    assert found(report, "completeness", "its folder is missing", "000002")
    partly = quiet(dataset, scenes=[0, 1], write=False)
    assert partly.passed and partly.findings == ()
    assert "texture_00: passed for 2 of 3 scenes" in partly.table()


def test_a_dataset_without_scenes_has_not_passed(tmp_path: Path) -> None:
    folder = open_for_writing(synthetic.config("scene_count=4"), tmp_path, 0)
    report = quiet(folder)
    assert found(report, "completeness", "none of 4 scenes exists") and not report.passed
    assert "texture_00: FAILED" in report.table()
    assert not quiet(folder, scenes=[1], write=False).passed
    done = run_verify(f"dataset={folder}")
    assert done.returncode == 2 and "there is nothing to verify" in done.stdout
    assert "– (no frame was read)" in done.stdout and "0.00% of frames" not in done.stdout


def test_a_factor_that_should_stand_still_is_caught(tmp_path: Path) -> None:
    settings = synthetic.config("scene_count=2", "frames=3")
    folder = open_for_writing(settings, tmp_path, 0)
    for index, elevation in enumerate((0.5, 0.55)):
        poses = raycast.orbit(3, elevation=elevation)
        synthetic.write_scene(settings, folder, synthetic.scene(settings, index, poses))
    report = quiet(folder)
    assert found(report, "isolation", "scope=dataset, variants=1, but scenes 000000 and 000001 differ", "camera")
    assert report.depth_groups == 0 and not report.passed


def test_variants_take_turns(tmp_path: Path) -> None:
    settings = synthetic.config("scene_count=4", "frames=2", "camera.variants=2")
    folder = open_for_writing(settings, tmp_path, 0)
    for index in range(4):
        poses = raycast.orbit(2, elevation=(0.5, 0.55)[index % 2])
        synthetic.write_scene(settings, folder, synthetic.scene(settings, index, poses))
    report = quiet(folder)
    assert report.passed, report.table()
    assert report.depth_groups == 2 and report.distinct_hashes["camera"] == 2


def test_an_attribute_that_does_not_vary_is_caught(tmp_path: Path) -> None:
    settings = synthetic.config("scene_count=4", "frames=2")
    folder = open_for_writing(settings, tmp_path, 0)
    for index in (0, 3):  # the same material
        synthetic.write_scene(settings, folder, synthetic.scene(settings, index))
    finalise(folder, synthetic.MATERIALS)
    assert found(quiet(folder), "isolation", "it should vary", "texture")


def test_bad_exposure_is_reported(dataset: Path) -> None:
    scene = paths.scene_dir(dataset, 0)
    for index, value in ((0, 255), (1, 0)):
        image = np.full((56, 70, 4), value, np.uint8)
        Image.fromarray(image).save(scene / f"rgb/{index:04d}.png")
    resealed(scene)
    report = quiet(dataset)
    assert report.passed
    assert report.clipped_share == report.black_share == pytest.approx(1 / 18)
    assert found(report, "exposure", "5.6% of the frames have more than 20 % clipped")


def test_workers_give_the_same_report(pristine: Path) -> None:
    assert quiet(pristine, workers=2, write=False) == quiet(pristine, write=False)


class TestCommand:
    def test_exit_codes_and_table(self, dataset: Path) -> None:
        done = run_verify(f"dataset={dataset}")
        assert done.returncode == 0 and "passed" in done.stdout
        shutil.rmtree(dataset / "tmp", ignore_errors=True)
        (dataset / "tmp").write_text("a file where a folder is needed")  # as good as read-only, for root too
        done = run_verify(f"dataset={dataset}")
        assert done.returncode == 0 and "passed" in done.stdout
        assert "texture_00/verify.json was not written: Not a directory\n" in done.stderr
        damage_flip(paths.scene_dir(dataset, 1))
        done = run_verify(f"dataset={dataset.parent}", "workers=1")
        assert done.returncode == 2
        assert "texture_00: FAILED" in done.stdout and "depth/0002.exr" in done.stdout
        assert "texture_00: verification failed" in done.stderr and "Traceback" not in done.stderr

    def test_help_teaches(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--help"])
        text = capsys.readouterr().out
        assert "usage: python -m megasynth_attr.dataset.verify dataset=<dir>" in text and "workers=" in text

    @pytest.mark.parametrize(
        ("words", "error", "message"),
        [
            (["datset=x"], ConfigError, "did you mean dataset"),
            (["workers=2"], ConfigError, "dataset= is missing"),
            (["dataset=x", "workers=many"], ConfigError, "expected a whole number"),
            (["dataset=x", "workers=0"], ConfigError, "at least 1"),
            (["here"], ConfigError, "not of the form key=value"),
            (["dataset=/nowhere"], DatasetError, "there is no folder /nowhere"),
        ],
    )
    def test_bad_words(self, words: list[str], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            main(words)


def run_verify(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "megasynth_attr.dataset.verify", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


def test_memory_does_not_grow_with_the_number_of_scenes(dataset: Path) -> None:
    """What is compared between scenes lies on disk; before, each took 16 kB."""
    opened = open_dataset(dataset)
    expected = expectations(opened)
    pair = PairResult(10_000, True, 9_000, 9_000, np.eye(3), np.zeros(3), 1.0, 9_000)

    def facts(count: int) -> Iterator[SceneFacts]:
        for index in range(count):
            digests = [f"{frame:032d}{index:032d}" for frame in range(100)]
            hashes = {factor: f"{index:064d}" for factor in ("geometry", "texture", "noise")}
            pairs = [(0, 1, pair), (1, 2, pair)]
            yield SceneFacts(f"{index:06d}", hashes=hashes, depth_digests=digests, frames=100, pairs=pairs)

    def peak(count: int) -> int:
        tracemalloc.start()
        report_of(opened, expected, facts(count), partial_check=True)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)
    assert peak(320) - peak(20) < 20_000  # bytes
