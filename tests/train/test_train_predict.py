"""From pictures to cameras, points and a picture: predictions, files, bad input."""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from predicted_pictures import NAMES, colours, picture_folder

from megasynth_attr.core.errors import (
    ConfigError,
    DatasetError,
    EnvironmentProblem,
    ExitCode,
    Interrupted,
    MegaSynthError,
    run_main,
)
from megasynth_train import predict as prediction
from megasynth_train.adapters import adapt, save_adapter
from megasynth_train.data.geometry import decode_pose, unproject
from megasynth_train.data.images import image_files, load_pictures
from megasynth_train.evaluate import prediction_files
from megasynth_train.evaluate.overview import save_overview
from megasynth_train.evaluate.prediction import PredictedScene, confident, predict
from megasynth_train.evaluate.prediction_files import ply_bytes
from megasynth_train.predict import PredictSettings, as_images, run
from megasynth_train.training.settings import AdapterSettings, ModelSettings
from megasynth_train.vggt.checkpoint import save_model
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.initialise import random_model

TINY = ModelSettings(size="vggt-tiny", seed=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "pictures")


def settings(folder: Path, where: Path, **changes: object) -> PredictSettings:
    values = {
        "images": str(folder),
        "out": str(where),
        "width_px": 56,
        "device": "cpu",
        "overview": False,
        "model": TINY,
    }
    return PredictSettings(**(values | changes))  # type: ignore[arg-type]


def test_ply_is_read_back_by_another_library(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    (tmp_path / "x.ply").write_bytes(ply_bytes(points, colours(1, 50, 3).reshape(-1, 3)[:50]))
    cloud = trimesh.load(tmp_path / "x.ply")
    assert np.array_equal(np.asarray(cloud.vertices, np.float32), points)
    assert np.array_equal(cloud.colors[:, :3], colours(1, 50, 3).reshape(-1, 3)[:50])
    assert ply_bytes(points[:0], np.zeros((0, 3), np.uint8)).endswith(b"end_header\n")
    with pytest.raises(ValueError, match="finite"):
        ply_bytes(np.full((1, 3), np.nan), np.zeros((1, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        ply_bytes(points, np.zeros((50, 3)))


def test_prediction_is_what_the_model_says(folder: Path) -> None:
    model = random_model(named_config("vggt-tiny", point_head=False), seed=3)
    images = as_images(load_pictures(image_files(folder), "crop", 56, 14))
    assert images.shape == (3, 3, 42, 56) and images.dtype == torch.float32 and 0 <= images.min() <= images.max() <= 1
    scene = predict(model, images, "cpu", "fp32", pixel_centre=0.0)
    with torch.no_grad():
        answer = model(images[None])
    cameras = decode_pose(answer.pose_encodings[-1][0], (42, 56))
    assert answer.depth is not None
    points = unproject(answer.depth[0], cameras.intrinsics, cameras.camera_from_world, pixel_centre=0.0)
    for field, expected in (
        ("pose_encoding", answer.pose_encodings[-1][0]),
        ("camera_from_world", cameras.camera_from_world),
        ("intrinsics", cameras.intrinsics),
        ("depth_z", answer.depth[0]),
        ("confidence", answer.depth_confidence[0]),
        ("points_world", points),
    ):
        array = getattr(scene, field)
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_bf16_is_close_and_a_headless_model_is_refused(folder: Path) -> None:
    model = random_model(named_config("vggt-tiny", point_head=False), seed=3)
    images = as_images(load_pictures(image_files(folder), "crop", 56, 14))
    exact, rounded = predict(model, images, "cpu", "fp32"), predict(model, images, "cpu", "bf16")
    assert rounded.depth_z.dtype == np.float32 and not np.array_equal(exact.depth_z, rounded.depth_z)
    np.testing.assert_allclose(rounded.depth_z, exact.depth_z, rtol=0.05)
    headless = random_model(named_config("vggt-tiny", point_head=False, depth_head=False), seed=3)
    with pytest.raises(ConfigError, match="no depth head"):
        predict(headless, images, "cpu")


def scene_of(confidence: np.ndarray) -> PredictedScene:
    views, height, width = confidence.shape
    encoding = np.tile(np.array([0, 0, 0, 0, 0, 0, 1, 1, 1], np.float32), (views, 1))
    cameras = decode_pose(torch.from_numpy(encoding), (height, width))
    depth = np.ones_like(confidence)
    points = unproject(torch.from_numpy(depth), cameras.intrinsics, cameras.camera_from_world).numpy()
    return PredictedScene(
        encoding, cameras.camera_from_world.numpy(), cameras.intrinsics.numpy(), depth, confidence, points
    )


def test_confidence_threshold_is_a_percentile_of_usable_points() -> None:
    scene = scene_of(np.arange(1, 101, dtype=np.float32).reshape(1, 10, 10))
    visible = scene.confidence > 50
    kept = confident(scene, visible, 20)
    assert set(scene.confidence[kept]) == set(range(61, 101))
    assert confident(scene, visible, 0).sum() == 50
    scene.points_world[0, 9, 9] = np.inf
    assert confident(scene, visible, 0).sum() == 49
    assert not confident(scene, np.zeros_like(visible), 20).any()


def test_run_writes_everything(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    notes = run(settings(folder, out, mode="pad", overview=True, drop_percent=25.0))
    assert any("RANDOM" in note for note in notes) and "fp32, attention sdpa, depth head fp32" in notes
    assert sorted(path.name for path in out.iterdir()) == [
        "cameras.json",
        "overview.png",
        "points.ply",
        "predictions.npz",
    ]
    with np.load(out / "predictions.npz") as arrays:
        assert arrays["points_world"].shape == (3, 56, 56, 3) and arrays["pose_encoding"].shape == (3, 9)
        visible, confidence, points = (arrays[name] for name in ("visible", "confidence", "points_world"))
    assert visible.sum() == 3 * 42 * 56
    cloud = trimesh.load(out / "points.ply")
    keep = visible & (confidence >= np.percentile(confidence[visible], 25))
    np.testing.assert_array_equal(np.asarray(cloud.vertices, np.float32), points[keep])
    rgb = np.stack([p.rgb for p in load_pictures(image_files(folder), "pad", 56, 14)])
    np.testing.assert_array_equal(cloud.colors[:, :3], rgb[keep])
    record = json.loads((out / "cameras.json").read_text())
    assert [frame["file"] for frame in record["frames"]] == list(NAMES)
    assert record["frames"][0]["file_size_wh"] == [80, 60] and record["frames"][0]["offset_xy"] == [0, 7]
    assert record["settings"]["model"]["size"] == "vggt-tiny"
    with Image.open(out / "overview.png") as picture:
        assert picture.width == 1500


def test_a_second_run_replaces_the_first_and_a_failing_one_leaves_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(settings(folder, out, overview=True))
    run(settings(folder, out, stride=2))
    assert len(json.loads((out / "cameras.json").read_text())["frames"]) == 2
    assert not (out / "overview.png").exists()  # it showed the first run
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (folder / "10.jpg").write_bytes(b"\xff\xd8 damaged")
    with pytest.raises(DatasetError, match=r"10\.jpg"):
        run(settings(folder, out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_pictures_of_the_user_are_not_destroyed(folder: Path, tmp_path: Path) -> None:
    (folder / "2.png").rename(folder / "overview.png")
    (tmp_path / "link").symlink_to(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="is the folder of the pictures"):
        run(settings(folder, tmp_path / "link"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "overview.png").write_text("not ours")
    run(settings(folder, other))
    assert (other / "overview.png").read_text() == "not ours"


def test_a_signal_ends_it_with_nothing_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = prediction.predict

    def interrupted(*given: object, **named: object) -> PredictedScene:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(prediction, "predict", interrupted)
    with pytest.raises(Interrupted, match="stopped by SIGTERM; nothing has been written"):
        run(settings(folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert Interrupted.exit_code == 75


def test_a_signal_while_writing_comes_too_late(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = prediction_files.ply_bytes

    def interrupted(points: np.ndarray, colours: np.ndarray) -> bytes:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(points, colours)

    monkeypatch.setattr(prediction_files, "ply_bytes", interrupted)
    run(settings(folder, tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cameras.json",
        "points.ply",
        "predictions.npz",
    ]


def test_a_failure_while_writing_leaves_nothing_half(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(settings(folder, out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # predictions.npz is larger
    try:
        with pytest.raises(EnvironmentProblem, match=r"out.*file-size limit"):
            run(settings(folder, out, stride=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": ""}, ConfigError, "images= is missing"),
        ({"out": ""}, ConfigError, "out= is missing"),
        ({"width_px": 100}, ConfigError, "width_px=100"),
        ({"model": ModelSettings(size="vggt-tiny", checkpoint="CHECKPOINT")}, DatasetError, "does not fit"),
        ({"adapter": "nowhere"}, DatasetError, "nowhere"),
        ({"out": "OCCUPIED"}, ConfigError, "occupied is a file; name a folder"),
    ],
)
def test_bad_settings(
    folder: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    (tmp_path / "occupied").write_text("a file where the folder should go")
    if changes.get("out") == "OCCUPIED":
        changes = {"out": str(tmp_path / "occupied")}
    if "model" in changes:
        other = named_config("vggt-tiny", point_head=False, width=48)
        save_model(random_model(other, seed=0), tmp_path / "other.safetensors")
        changes = {"model": ModelSettings(size="vggt-tiny", checkpoint=str(tmp_path / "other.safetensors"))}
    with pytest.raises(error, match=message):
        run(settings(folder, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="GPU"):
        run(settings(folder, tmp_path / "out", device="cuda"))


def test_an_adapter_changes_the_prediction(folder: Path, tmp_path: Path) -> None:
    model = random_model(named_config("vggt-tiny", point_head=False), seed=TINY.seed)
    adapted = adapt(model, AdapterSettings(rank=2, seed=1), total_steps=10)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    save_adapter(adapted, tmp_path / "adapter", {})
    expected = predict(adapted.model, as_images(load_pictures(image_files(folder), "crop", 56, 14)), "cpu")
    run(settings(folder, tmp_path / "plain"))
    run(settings(folder, tmp_path / "adapted", adapter=str(tmp_path / "adapter")))
    with np.load(tmp_path / "plain/predictions.npz") as plain, np.load(tmp_path / "adapted/predictions.npz") as changed:
        np.testing.assert_allclose(changed["depth_z"], expected.depth_z, rtol=1e-5)
        assert not np.allclose(changed["depth_z"], plain["depth_z"], rtol=1e-3)
    with pytest.raises(DatasetError, match="made for"):
        other = ModelSettings(size="vggt-tiny", seed=4)
        run(settings(folder, tmp_path / "out", adapter=str(tmp_path / "adapter"), model=other))


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"images={folder}", f"out={tmp_path / 'out'}", "model=vggt-tiny", "width_px=28", "max_views=2"]
    assert run_main(prediction.main, [*words, "overview=false", "device=cpu"]) == ExitCode.DONE
    assert "2 views" in capsys.readouterr().out
    assert run_main(prediction.main, [*words, "widht_px=3"]) == ExitCode.USAGE
    assert "widht_px" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prediction.main(["--help"])
    assert "megasynth_train.predict images=FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize(("views", "hw"), [(1, (28, 28)), (9, (14, 56))])
def test_overview_is_drawn_for_every_shape_and_without_points(tmp_path: Path, views: int, hw: tuple[int, int]) -> None:
    """Garbage included: equal confidences, infinite depth, cameras in one place, names that are no text."""
    scene = scene_of(np.full((views, *hw), 2, np.float32))
    scene.depth_z[0, 0, 0] = np.inf
    rgb = colours(0, views * hw[0], hw[1]).reshape(views, *hw, 3)
    names = ["\udcff$a_{b}$ and a very long name indeed, longer than its tile is wide.png"] * views
    save_overview(tmp_path / "x.png", scene, rgb, np.full(scene.depth_z.shape, views > 1), names)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width == 1500 and np.asarray(picture).std() > 5


@pytest.mark.parametrize("program", ["predict", "evaluate", "finetune"])
def test_a_tilde_is_a_folder_like_any_other(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell replaces those that mean a home; what arrives here is what was meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    main = importlib.import_module(f"megasynth_train.{program}{'.__main__' * (program == 'evaluate')}").main
    key = "images" if program == "predict" else "data"
    with pytest.raises(MegaSynthError, match=r"~.*(no picture|is no dataset|is not a dataset|no dataset)"):
        main([f"{key}=~", "out=out", "model=vggt-tiny"])
