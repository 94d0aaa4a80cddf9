"""The command line: help, presets, stages, exit codes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from megasynth_attr.core.errors import ConfigError, ExitCode, Interrupted, MegaSynthError, ScenesFailed
from megasynth_attr.core.stages import StageRun
from megasynth_attr.pipeline.__main__ import main, run_steps
from megasynth_attr.pipeline.help import help_text, presets_text, section_kinds
from megasynth_attr.pipeline.plan import plan_text
from megasynth_attr.pipeline.stages import Step, VerificationFailed, find_stages
from megasynth_attr.scene.config import Experiment, preset_names, resolve, schema

BUILT_IN = ["generate", "verify", "report"]
ROOT = Path(__file__).resolve().parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "megasynth_attr.pipeline", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def keys(kind: type, prefix: str = "") -> list[str]:
    names = []
    for field in dataclasses.fields(kind):
        nested = field.default_factory if dataclasses.is_dataclass(field.default_factory) else None
        names += keys(nested, f"{prefix}{field.name}.") if nested else [f"{prefix}{field.name}"]  # type: ignore[arg-type]
    return names


def test_help_names_every_key_with_its_meaning() -> None:
    text = help_text(["--help"])
    entries = [line.strip().partition("=")[0] for line in text.splitlines() if line.startswith("  ") and "=" in line]
    assert set(keys(schema())) <= set(entries)
    assert max(map(len, text.splitlines())) <= 120
    for code in ExitCode:
        assert f"{int(code):2}  " in text
    assert "frames=100   (whole number, 1 to 10000)" in text
    assert "camera.fov_x_deg=[45,70]   (range [low, high], numbers, 5 to 150)" in text
    assert "device=cpu   (one of cpu, cuda, optix, hip, oneapi, metal)" in text
    assert "short: max_runtime=" in text


def test_help_of_one_section() -> None:
    text = help_text(["--help", "geometry"])
    assert "geometry.layout" in text and "camera." not in text
    assert set(section_kinds()) >= {"content", "run", "render", "write", "geometry", "texture", "camera", "lighting"}
    with pytest.raises(ConfigError, match=r"there is no such section \(did you mean geometry\?\)"):
        help_text(["--help", "geomtry"])


def test_help_ends_with_0_and_loads_no_heavy_library() -> None:
    """How long it takes is for a benchmark; what made it slow were libraries that only work needs."""
    words = [sys.executable, "-X", "importtime", "-m", "megasynth_attr.pipeline", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "exit codes:" in done.stdout
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    loaded = {name.partition(".")[0] for name in names}
    assert {"megasynth_attr", "megasynth_train", "numpy"} <= loaded
    assert not {"scipy.spatial", "scipy.interpolate"} & names, "`import scipy` alone loads a part when it is used"
    assert not loaded & {"torch", "bpy", "matplotlib", "jinja2", "PIL", "OpenEXR", "tqdm", "safetensors", "peft"}


def test_presets_are_listed_with_what_they_are() -> None:
    lines = presets_text().splitlines()
    assert [line.split()[0] for line in lines] == preset_names()
    assert all(len(line.split()) > 3 for line in lines)


def test_stages_run_in_the_pipelines_order() -> None:
    stages = find_stages()
    assert [name for name in stages.names if name in BUILT_IN] == BUILT_IN
    assert [s.name for s in stages.choose("report, generate", "")] == ["generate", "report"]
    assert [s.name for s in stages.choose("generate,verify,report", "verify")] == ["verify", "report"]


@pytest.mark.parametrize(
    ("names", "first", "message"),
    [
        ("generate,verfy", "", r"stages=verfy: there is no such stage \(did you mean verify\?\)"),
        ("generate", "reprt", r"from=reprt: there is no such stage \(did you mean report\?\)"),
        ("", "", "no stage is named"),
        ("generate", "report", "no stage is left to run"),
    ],
)
def test_wrong_stages(names: str, first: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_stages().choose(names, first)


def test_a_wrong_stage_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        main(["preset=demo", "stages=rendr", f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_usage_errors_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    started = time.monotonic()
    done = run("preset=demo", "framse=3", f"out={tmp_path / 'out'}")
    assert done.returncode == 2 and time.monotonic() - started < 30
    assert done.stderr.splitlines() == ["ConfigError: unknown key framse (did you mean frames?); --help lists all keys"]
    assert not (tmp_path / "out").exists()


def test_a_plan_says_what_the_papers_experiments_cost_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["preset=paper_human", "plan=true", "stages=generate,verify", f"out={tmp_path / 'out'}"])
    text = capsys.readouterr().out
    assert "840,000 of 518×518 px" in text and "everything 40,000" in text and "core hours" in text
    assert "nothing is written" in text and not (tmp_path / "out").exists()
    main(["preset=texture", "dataset_count=1", "scene_count=1", "frames=1", "stages=report", "plan=true"])
    assert "these stages take little" in capsys.readouterr().out


def plan_of(experiment: Experiment, wanted: bool = True) -> str:
    return plan_text(find_stages().steps(experiment)[:1], wanted)


def test_a_short_run_has_no_table_of_costs(tmp_path: Path) -> None:
    words = ["preset=texture", f"out={tmp_path}", "dataset_count=1", "render.width_px=28", "render.height_px=28"]
    short = resolve([*words, "scene_count=1", "frames=1"])
    assert plan_of(short, wanted=False) == ""
    assert "rendering" in plan_of(resolve([*words, "scene_count=200", "frames=100"]), wanted=False)


def test_a_plan_warns_of_a_disk_that_is_too_small(tmp_path: Path) -> None:
    words = [f"out={tmp_path}", "plan=true", "stages=generate", "render.width_px=4088", "render.height_px=4088"]
    large = plan_of(resolve(["preset=texture", "scene_count=2000", "frames=1000", *words]))
    small = plan_of(resolve(["preset=texture", *words, "dataset_count=1", "scene_count=1"]))
    assert "rendering" in small and "WARNING" not in small
    assert "THE DISK IS TOO SMALL" in large and "WARNING" in large


@pytest.mark.parametrize("error", [ScenesFailed("some"), VerificationFailed("wrong")])
def test_after_a_failure_nothing_is_trained_and_the_report_is_written(error: MegaSynthError) -> None:
    ran: list[str] = []

    def fail(run: StageRun) -> None:
        raise error

    steps = steps_that(lambda name: fail if name == "generate" else lambda run: ran.append(name))
    training = dataclasses.replace(steps[0].stage, name="train", run=lambda run: ran.append("train"))
    with pytest.raises(type(error)):
        run_steps([steps[0], Step(training, steps[0].run), *steps[1:]], time.monotonic())
    assert ran == ["verify", "report"]


def test_later_stages_get_what_is_left_of_the_time() -> None:
    left: list[float] = []
    steps = steps_that(lambda name: lambda run: left.append(run.max_runtime_s), "max_runtime=100")
    run_steps(steps, time.monotonic() - 40)
    assert len(left) == 3 and all(55 < seconds < 60.1 for seconds in left)
    with pytest.raises(Interrupted, match="max_runtime_s=100 is over"):
        run_steps(steps, time.monotonic() - 101)
    run_steps(steps_that(lambda name: lambda run: left.append(run.max_runtime_s)), time.monotonic() - 1e6)
    assert left[3:] == [0.0] * 3  # no limit


def steps_that(run: Callable[[str], Callable[[StageRun], None]], *words: str) -> list[Step]:
    """Return the built-in stages with other functions: ``run`` of their name."""
    steps = find_stages().steps(resolve(["preset=demo", "stages=generate,verify,report", *words]))
    return [Step(dataclasses.replace(stage, run=run(stage.name)), given) for stage, given in steps]


def test_verify_before_generate_says_so(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="there is no experiment here; run the stage generate first"):
        main(["preset=demo", "stages=verify,report", f"out={tmp_path / 'out'}"])
