"""Stages that packages bring: found, ordered, checked, priced, run, and on the summary page; named where absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import packages
import pytest
import small_experiment
from PIL import Image

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem, ExitCode
from megasynth_attr.core.stages import Stage, StageRun
from megasynth_attr.pipeline.__main__ import main
from megasynth_attr.pipeline.help import help_text
from megasynth_attr.pipeline.stages import VerificationFailed, _ordered, find_stages

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder into which pip has installed the package that docs/adding-a-stage.md shows."""
    pytest.importorskip("setuptools", reason="pip needs setuptools to build the package")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    files = packages.documented()
    assert set(files) == {"sharpness.py", "pyproject.toml"}
    for name, text in files.items():
        (source / name).write_text(text)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(target), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def sharp(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))


def test_a_stage_from_outside_runs_with_its_own_key_and_has_a_chapter(sharp: None, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    preset, out = small_experiment.write_preset(tmp_path), tmp_path / "out"
    preset.write_text(preset.read_text() + "sharpness: {step_px: 6}\n")
    small_experiment.write_datasets(preset, out)
    words = [f"preset={preset}", "stages=report,sharpness", f"out={out}"]
    main([*words, "sharpness.step_px=4"])
    record = json.loads((out / "sharpness/measured/sharpness.json").read_text())
    assert record["step_px"] == 4
    assert sorted(record["means"]) == ["camera_00", "camera_01", "texture_00", "texture_01"]  # not the downstream ones
    assert record["means"]["texture_00"] == pytest.approx(difference_of_neighbours(out / "texture_00", 4))
    page = (out / "report/index.html").read_text(encoding="utf-8")
    assert "Are the pictures of all datasets equally sharp?" in page and "The larger the difference" in page
    main([*words[:1], "stages=sharpness", f"out={out}"])
    assert json.loads((out / "sharpness/measured/sharpness.json").read_text())["step_px"] == 6  # the preset's


def difference_of_neighbours(dataset: Path, step: int) -> float:
    """Return the mean over all pictures, which are of one size, with a library of its own for reading them."""
    pictures = [np.asarray(Image.open(file).convert("RGB"), dtype=float) for file in dataset.rglob("rgb/*.png")]
    return float(
        np.mean(
            [
                abs(picture[:, i] - picture[:, i + step]).mean()
                for picture in pictures
                for i in range(picture.shape[1] - step)
            ]
        )
    )


def test_its_keys_are_in_the_help_and_its_cost_in_the_plan(
    sharp: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "sharpness measure how sharp the pictures are" in help_text(["--help"])
    assert "sharpness.step_px=2   (whole number, at least 1)" in help_text(["--help", "sharpness"])
    main(["preset=texture", "stages=sharpness", "dataset_count=2", "plan=true", f"out={tmp_path / 'out'}"])
    assert "sharpness 2 datasets, pixels 2 apart" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plan", [False, True])
@pytest.mark.parametrize(
    ("stages", "word", "message"),
    [
        (
            "generate,sharpness",
            "sharpness.step=5",
            r"unknown key sharpness\.step \(did you mean sharpness\.step_px",
        ),
        ("generate", "sharpness.step_px=0", r"sharpness\.step_px=0: must be at least 1"),
        ("generate,sharpness", "sharpness.step_px=3", r"sharpness\.step_px=3: must be even"),
        ("generate,sharpness", "sharpness=4", "sharpness=4: this is a section"),
        ("sharpnes", "frames=1", r"there is no such stage \(did you mean sharpness\?\)"),
    ],
)
def test_what_it_refuses_is_refused_before_anything_runs(
    sharp: None, tmp_path: Path, stages: str, word: str, message: str, plan: bool
) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["preset=texture", f"stages={stages}", word, f"out={tmp_path / 'out'}", f"plan={str(plan).lower()}"])
    assert not (tmp_path / "out").exists()


def test_a_module_that_a_stage_needs_is_missed_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blurring.py").write_text(
        "from megasynth_attr.core.stages import Stage\n"
        "BLUR = Stage('blur', 'blur pictures', print, needs=('no_such_module',), install='pip install blur')\n"
    )
    packages.write_metadata(tmp_path, "blurring", {"blur": "blurring:BLUR"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="stage blur: the module no_such_module is missing; `pip install"):
        main(["preset=texture", "stages=generate,blur", "scenes=1", f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"blur\.x: the section blur has no keys"):
        main(["preset=texture", "stages=generate", "blur.x=1", f"out={tmp_path / 'out'}"])


def test_without_the_package_its_section_and_stage_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key sharpness"):
        main(["preset=texture", "sharpness.step_px=4", f"out={tmp_path / 'out'}"])
    with pytest.raises(ConfigError, match="stages=sharpness: there is no such stage"):
        main(["preset=texture", "stages=sharpness", f"out={tmp_path / 'out'}"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package.stages:STAGES", r"does not load \(ModuleNotFoundError: No module named 'no_such_package'"),
        ("math:tau", "math:tau is no Stage or StageGroup but a float"),
    ],
)
def test_a_package_that_does_not_load_matters_only_to_who_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    packages.write_metadata(tmp_path, "broken", {"broken": value})
    monkeypatch.syspath_prepend(str(tmp_path))
    stages = find_stages()
    assert [stage.name for stage in stages.choose("generate,report", "")] == ["generate", "report"]
    with pytest.raises(ConfigError, match=f"stages=mend: there is no such stage.*{reason}"):
        stages.choose("mend", "")
    assert "broken: " in help_text(["--help"])


def stage(name: str, *after: str) -> Stage[StageRun]:
    return Stage(name, "", lambda run: None, after=after)


def test_stages_follow_those_they_name_and_else_keep_their_order() -> None:
    named = [stage("d", "c"), stage("a"), stage("c", "b", "not installed"), stage("b")]
    assert [s.name for s in _ordered(named)] == ["a", "b", "c", "d"]
    with pytest.raises(ConfigError, match="the stages a, b wait for each other"):
        _ordered([stage("a", "b"), stage("c"), stage("b", "a")])
    for name in ("a", "verify"):
        with pytest.raises(ConfigError, match=f"two installed packages bring a stage {name}"):
            _ordered([stage("a"), stage(name)])


def test_without_the_training_half_its_stages_say_which_extra_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages.write_metadata(tmp_path, "megasynth-attr", {})  # which hides what is installed
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_stages().names == ["generate", "verify", "report"]
    with pytest.raises(EnvironmentProblem, match=r"stage cluster: .* not installed; `pip .* megasynth-attr\[train\]"):
        main(["preset=demo", "stages=generate,cluster", f"out={tmp_path / 'out'}"])
    with pytest.raises(EnvironmentProblem, match=r"training\.optim\.steps=: .* not installed; `pip .* or leave it out"):
        main(["preset=demo", "stages=generate", "training.optim.steps=9", f"out={tmp_path / 'out'}"])
    main(["preset=demo", "stages=generate", "plan=true", f"out={tmp_path / 'out'}"])  # its section is left alone
    assert "frames" in capsys.readouterr().out and not (tmp_path / "out").exists()
    assert "install the extra [train] to see them" in help_text(["--help", "training"])


WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from megasynth_attr.core.errors import run_main
from megasynth_attr.pipeline.__main__ import main
sys.exit(run_main(main, sys.argv[1:]))
"""


def test_a_missing_pytorch_is_named_before_anything_is_rendered(tmp_path: Path) -> None:
    packages.write_metadata(tmp_path, "megasynth-attr", {"training": "megasynth_train.experiment.stages:STAGES"})
    path = os.pathsep.join([str(ROOT), str(ROOT / "train"), str(tmp_path)])
    words = ["preset=demo", "training.model.checkpoint=", f"out={tmp_path / 'out'}", "stages=generate,cluster"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *words]
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.ENVIRONMENT, done.stderr
    assert done.stderr.startswith("EnvironmentProblem: stage cluster: the module torch is missing")
    assert "megasynth-attr[train]" in done.stderr and not (tmp_path / "out").exists()
    plan = subprocess.run([*command, "plan=true"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert plan.returncode == 0 and "8 adapters" in plan.stdout, plan.stderr  # a plan does without


def test_verify_checks_what_it_cannot_write_to_and_misses_what_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset, out = small_experiment.write_preset(tmp_path), tmp_path / "out"
    small_experiment.write_datasets(preset, out)
    words = [f"preset={preset}", "stages=verify", f"out={out}"]
    with pytest.raises(DatasetError, match=r"texture_00 was made for 2 of 9 scenes; run the stage generate first"):
        main([*words, "scene_count=9", "scenes=0-4"])
    (out / "texture_00" / "tmp").write_text("a file where a folder is needed")  # as good as read-only, for root too
    with pytest.raises(VerificationFailed, match="camera_00"):  # whose scenes were not drawn, and do not vary
        main(words)
    said = capsys.readouterr()
    assert said.out.count("reprojection") == 6 and "how isolated texture is was not recorded" in said.err
    assert "texture_00/verify.json was not written" in said.err
