"""The whole evaluation: a perfect model is perfect, a worse one measured, a broken scene named, nothing is half."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from eval_scenes import Oracle, fast, write_scenes
from PIL import Image

import megasynth_train.evaluate.__main__ as program
from megasynth_attr.core.errors import ConfigError, DatasetError, ExitCode, Interrupted, run_main
from megasynth_train.evaluate.inputs import read_scene, select_scenes
from megasynth_train.evaluate.options import EvaluateSettings
from megasynth_train.evaluate.run import SceneEvaluation, evaluate_scene, evaluate_scenes

DESCRIBED = {"size": "oracle", "checkpoint": "truth", "weights_sha256": "0" * 64, "adapter": ""}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("eval_run"))


def _perfect(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    """Let the program evaluate ``model``, which no file could hold."""
    monkeypatch.setattr(program, "load_model", lambda settings, device: (model, DESCRIBED))


@pytest.mark.slow
def test_the_truth_as_a_prediction_has_no_errors(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = fast(data, tmp_path / "out", max_scenes=2)
    _perfect(monkeypatch, Oracle(settings))
    record = program.run(settings)
    assert record == json.loads((tmp_path / "out" / "results.json").read_text())
    assert (record["scenes_evaluated"], record["excluded"]) == (2, [])
    for scene in record["scenes"]:
        points, sizes = scene["points"], scene["sizes"]
        assert points["accuracy_mean"] == pytest.approx(0, abs=2e-6) and points["nc_mean"] == pytest.approx(1, abs=1e-4)
        assert points["completeness_mean"] == pytest.approx(0, abs=2e-6)
        for method in ("none", "median", "scale", "scale_shift"):
            assert scene["depth"][method]["abs_rel"] == pytest.approx(0, abs=1e-6)
            assert scene["depth"][method]["delta_1"] == 1
        assert [scene["cameras"][key] for key in ("rra_5", "rta_5", "auc_5", "auc_30")] == [100] * 4
        assert scene["alignment"]["scale"] == pytest.approx(sizes["mean_distance"], rel=1e-6)
        assert (
            scene["view_ids"] == [0, 1, 3] and sizes["views"] == 3 and sizes["compared_points"] == sizes["valid_points"]
        )
    assert record["average"]["points"]["nc_mean"] == {
        "mean": pytest.approx(1, abs=1e-4),
        "std": pytest.approx(0, abs=1e-4),
        "scenes": 2,
    }
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "index.html",
        "pictures",
        "results.json",
        "results.md",
    ]
    pictures = sorted((tmp_path / "out" / "pictures").rglob("*.png"))
    assert [f"{p.parent.name}/{p.stem}" for p in pictures] == [scene["name"] for scene in record["scenes"]]
    assert np.asarray(Image.open(pictures[0]).convert("RGB")).std() > 10
    assert "**average**" in (tmp_path / "out" / "results.md").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_known_errors_are_measured(data: Path, tmp_path: Path) -> None:
    def worsen(poses: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turned = poses.copy()
        angle = np.radians(10)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        turned[1, :3] = turn @ poses[1, :3]  # about the optical axis, the centre stays
        return turned, depth * 1.1

    settings = fast(data, tmp_path)
    kept: list[SceneEvaluation] = []
    records, excluded = evaluate_scenes(
        Oracle(settings, worsen), select_scenes(settings).scenes, "cpu", settings, kept.append
    )
    assert len(records) == len(kept) == 3 and not excluded
    for record, scene in zip(records, kept, strict=True):
        assert record["depth"]["none"]["abs_rel"] == pytest.approx(0.1, rel=1e-4)
        assert record["depth"]["none"]["fit_scale"] == record["sizes"]["mean_distance"]
        assert record["depth"]["median"]["abs_rel"] == pytest.approx(0, abs=1e-6)
        # of the three pairs the two with view 1 are turned by 10 degrees
        cameras = record["cameras"]
        assert cameras["rra_5"] == pytest.approx(100 / 3) and cameras["rra_15"] == 100
        assert cameras["rotation_median_deg"] == pytest.approx(10, abs=1e-3)
        assert record["points"]["accuracy_mean"] > 1e-3
        assert record["points"]["accuracy_mean"] == pytest.approx(scene.accuracy.mean())
        assert len(scene.colours) == len(scene.predicted_points) == len(scene.true_points)
        # the aligned camera still sees its aligned points at its own pixels: the truth's, for the first view
        view, pose = scene.truth[0], scene.predicted_cameras[0]
        seen = scene.predicted_points[: view.valid.sum()] @ pose[:3, :3].T + pose[:3, 3]
        v, u = np.nonzero(view.valid)
        pixels = seen @ view.intrinsics.T / seen[:, 2:]
        np.testing.assert_allclose(pixels[:, :2], np.stack([u + 0.5, v + 0.5], axis=1), atol=1e-3)
        assert record["alignment"]["icp_iterations"] > 0 and np.ptp(seen[:, 2] / view.depth_z[view.valid]) < 1e-5


def test_a_lower_input_size_is_measured_at_the_truth_s_pixels(data: Path, tmp_path: Path) -> None:
    settings = fast(data, tmp_path, width_px=42, scenes="0")
    coarse, fine = Oracle(settings), fast(data, tmp_path, scenes="0")
    # the network sees 42×28 px and answers the truth, sampled to that size
    for key, answer in coarse.answers.items():
        depth = torch.nn.functional.interpolate(answer.depth, (28, 42), mode="area")
        coarse.answers[key] = type(answer)(answer.pose_encodings, depth, depth + 1)
    small, _ = evaluate_scenes(coarse, select_scenes(settings).scenes, "cpu", settings, lambda _: None)
    large, _ = evaluate_scenes(Oracle(fine), select_scenes(fine).scenes, "cpu", fine, lambda _: None)
    assert (small[0]["sizes"]["input_height_px"], small[0]["sizes"]["input_width_px"]) == (28, 42)
    assert small[0]["cameras"]["auc_5"] == 100  # fields of view and poses survive
    assert small[0]["sizes"]["valid_points"] > 0.6 * large[0]["sizes"]["valid_points"]
    assert 0 < small[0]["depth"]["median"]["abs_rel"] < 0.2


def test_a_sample_of_the_points_is_said_to_be_one(data: Path, tmp_path: Path) -> None:
    settings = fast(data, tmp_path, max_points=200, max_scenes=1)
    twice = [
        evaluate_scenes(Oracle(settings), select_scenes(settings).scenes, "cpu", settings, lambda _: None)[0][0]
        for _ in range(2)
    ]
    assert twice[0] == twice[1] and twice[0]["sizes"]["compared_points"] == 200 < twice[0]["sizes"]["valid_points"]


def test_scenes_that_cannot_be_evaluated_are_named_and_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(data, tmp_path / data.name))
    settings = fast(copy, tmp_path / "out", pictures=False, page=False)
    oracle = Oracle(settings)
    names = [scene.name for scene in select_scenes(settings).scenes]
    first, second = (select_scenes(settings).scenes[i].folder for i in (0, 1))
    (first / "depth" / "0001.exr").write_bytes(b"no picture")
    (second / "cameras.json").write_text("{")
    _perfect(monkeypatch, oracle)
    words = [f"data={copy}", f"out={tmp_path / 'out'}", "width_px=56", "views=3", "device=cpu", "threads=1"]
    words += ["progress=false", "pictures=false", "page=false"]
    assert run_main(program.main, words) == ExitCode.SCENES_FAILED  # not done: a script must not go on unaware
    assert f"ScenesFailed: 2 scenes are not in the averages of {tmp_path / 'out'}" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [scene["name"] for scene in record["scenes"]] == names[2:]
    assert record["scenes_excluded"] == 2
    reasons = {bad["scene"]: bad["reason"] for bad in record["excluded"]}
    assert "0001.exr" in reasons[names[0]] and "cameras.json" in reasons[names[1]]
    assert record["average"]["points"]["accuracy_mean"]["scenes"] == 1
    text = (tmp_path / "out" / "results.md").read_text()
    assert "Excluded: 2 scenes" in text and names[0] in text


@pytest.mark.parametrize(("factor", "reason"), [(np.nan, "NaN"), (0.0, "to align coincide")])
def test_predictions_that_cannot_be_aligned_exclude_the_scene(
    data: Path, tmp_path: Path, factor: float, reason: str
) -> None:
    def worsen(poses: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.eye(4)[None].repeat(len(poses), axis=0), depth * factor

    settings = fast(data, tmp_path, max_scenes=1)
    model, selection = Oracle(settings, worsen), select_scenes(settings)
    records, excluded = evaluate_scenes(model, selection.scenes, "cpu", settings, lambda _: None)
    assert not records and reason in excluded[0].reason and excluded[0].scene == selection.scenes[0].name
    with pytest.raises(DatasetError, match="none of the 1 scenes can be evaluated"):
        program.evaluate_into(tmp_path, model, DESCRIBED, selection, "cpu", settings)


def test_a_scene_without_geometry_is_left_out(data: Path, tmp_path: Path) -> None:
    settings = fast(data, tmp_path, max_scenes=1)
    oracle = Oracle(settings)
    scene = read_scene(select_scenes(settings).scenes[0], settings, oracle.config)
    empty = tuple(replace(view, depth_z=np.zeros_like(view.depth_z)) for view in scene.truth)
    with pytest.raises(DatasetError, match="0 pixels have a depth; at least 100 are needed"):
        evaluate_scene(oracle, replace(scene, truth=empty), "cpu", settings)


def test_a_signal_leaves_what_was_there(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = fast(data, tmp_path / "out", pictures=False, page=False)
    oracle = Oracle(settings)
    _perfect(monkeypatch, oracle)
    program.run(settings)
    before = (tmp_path / "out" / "results.json").read_bytes()

    predicted = []

    class Stopped(Oracle):
        def forward(self, images: torch.Tensor) -> object:
            os.kill(os.getpid(), signal.SIGTERM)
            predicted.append(len(images))  # no stage is torn apart: SciPy's threads would go on in freed memory
            return super().forward(images)

    _perfect(monkeypatch, Stopped(settings))
    with pytest.raises(Interrupted, match=r"SIGTERM; nothing has been written; .* start over"):
        program.run(settings)
    assert len(predicted) == 1
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    fresh = fast(data, tmp_path / "fresh", pictures=False, page=False)
    with pytest.raises(Interrupted):
        program.run(fresh)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_killed_in_the_middle_leaves_nothing_and_the_next_run_cleans_up(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sleeping(Oracle):
        def forward(self, images: torch.Tensor) -> object:
            time.sleep(60)
            return super().forward(images)

    settings = fast(data, tmp_path / "out", pictures=False, page=False, max_scenes=1)
    _perfect(monkeypatch, Sleeping(settings))
    child = os.fork()
    if child == 0:
        try:
            program.run(settings)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("tmp/new.*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["tmp"]
    _perfect(monkeypatch, Oracle(settings))
    program.run(settings)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_older_evaluation_is_replaced_and_anything_else_is_not(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    settings = fast(data, out, page=False, max_scenes=1)
    _perfect(monkeypatch, Oracle(settings))
    program.run(settings)
    assert (out / "pictures").is_dir()
    bare = fast(data, out, page=False, pictures=False, max_scenes=1)
    program.run(bare)
    assert sorted(p.name for p in out.iterdir()) == ["results.json", "results.md"]
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.tex").write_text("…")
    with pytest.raises(ConfigError, match="no evaluation"):
        program.run(fast(data, precious))
    assert [p.name for p in precious.iterdir()] == ["chapter1.tex"]


def test_what_lies_beside_an_evaluation_is_not_destroyed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "adapter").mkdir(parents=True)
    (out / "results.json").write_text('{"format": "megasynth-attr evaluation 1"}')
    (out / "adapter" / "adapter.json").write_text("days of training")
    with pytest.raises(ConfigError, match=r"run holds adapter, .* would be lost"):
        program.run(fast(data, out))
    assert (out / "adapter" / "adapter.json").read_text() == "days of training"
    (tmp_path / "notes").write_text("a file")
    with pytest.raises(ConfigError, match="notes is a file"):
        program.run(fast(data, tmp_path / "notes"))


@pytest.mark.parametrize("count", [1, 2, 99])
def test_too_few_points_to_compare(data: Path, tmp_path: Path, count: int) -> None:
    with pytest.raises(ConfigError, match=rf"max_points={count} is too few: use 100 or more"):
        program.run(fast(data, tmp_path / "out", max_points=count))


@pytest.mark.slow
def test_command_line_evaluates_a_random_model_and_says_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        f"data={data}", f"out={tmp_path / 'out'}", "model=vggt-tiny", "device=cpu", "views=2", "max_scenes=2",
        "width_px=28", "threads=1", "progress=false", "page=false",
    ]  # fmt: skip
    assert run_main(program.main, words) == 0
    printed = capsys.readouterr()
    assert "\nfp32, attention sdpa, depth head fp32\n" in printed.err
    assert "RANDOM" in printed.out and "2 scenes evaluated, 0 not" in printed.out and "RANDOM" in printed.err
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(record["model"]["weights_sha256"]) == 64 and record["model"]["precision"] == "fp32"
    assert record["data"]["fingerprint"] and record["settings"]["views"] == 2
    assert record["average"]["depth"]["scale"]["abs_rel"]["mean"] > 0.01
    assert run_main(program.main, [*words, "adapter=" + str(tmp_path / "none")]) == 2
    assert "there is no adapter folder" in capsys.readouterr().err
    assert run_main(program.main, [*words, "view=3"]) == 2  # an unknown key names the nearest
    assert "views" in capsys.readouterr().err


def test_help_lists_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["--help"])
    text = capsys.readouterr().out
    for key in ("icp_distance", "max_points", "view_ids", "model.checkpoint", "split"):
        assert key in text
    assert EvaluateSettings().views == 8
