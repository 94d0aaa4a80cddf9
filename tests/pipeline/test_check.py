"""What a run refuses before its first stage: the message, the exit code, and that nothing was changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import runs

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem, ExitCode, MegaSynthError, run_main
from megasynth_attr.dataset.reader import downstream_attributes
from megasynth_attr.farm.experiment import check_experiment, open_experiment
from megasynth_attr.pipeline.__main__ import main
from megasynth_attr.scene.config import resolve

HUGE = ("frames=10000", "scene_count=1000000", "scenes=0-999", "render.width_px=8176", "render.height_px=8176")


def refused(tmp_path: Path, code: int, *words: str) -> str:
    """Run in an empty folder; return the message of the error after checking that nothing was rendered."""
    with pytest.raises(MegaSynthError) as caught:
        main([*runs.TINY, f"out={tmp_path / 'out'}", *words])
    assert caught.value.exit_code == code
    assert not runs.complete_scenes(tmp_path / "out")
    return str(caught.value)


def test_no_such_blender(tmp_path: Path) -> None:
    assert "blender=/no/such/blender does not exist" in refused(tmp_path, 4, "blender=/no/such/blender")


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "blender").write_text("hello")
    assert "is not an executable file" in refused(tmp_path, 4, f"blender={tmp_path / 'blender'}")


def test_a_program_that_is_no_blender(tmp_path: Path) -> None:
    message = refused(tmp_path, 4, "blender=/bin/echo", "workers=1")
    assert "/bin/echo does not start as a worker" in message and "ended with exit code 0" in message


def test_a_module_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "bpy").mkdir()
    (tmp_path / "bpy" / "__init__.py").write_text("raise ImportError('libXrender.so.1: no such file')")
    env = runs.environment()
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    command = runs.command(*runs.TINY, f"out={tmp_path / 'out'}", "workers=1", "blender=module")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4, done.stderr
    (line,) = done.stderr.splitlines()[-1:]
    assert "cannot import bpy (libXrender.so.1: no such file)" in line


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    message = refused(tmp_path, 4, *HUGE)
    assert "is too small: 10000000 frames need about" in message and "TB" in message
    assert not (tmp_path / "out" / "geometry_00").exists()


def test_an_output_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    message = refused(tmp_path, 4)
    assert "is a file, not a folder; choose another out=" in message
    assert (tmp_path / "out").read_text() == "mine"


def test_a_place_where_nothing_can_be_created() -> None:
    with pytest.raises(
        EnvironmentProblem, match=r"out=/proc/megasynth: .* cannot store files, such as /proc; choose another out="
    ):
        main([*runs.TINY, "out=/proc/megasynth"])


@pytest.mark.parametrize(
    "words", [("out=new/" + "n" * 300, "plan=true"), ("config=" + "ä" * 200,), ("config=" + "a/" * 2500,)]
)
def test_a_path_that_is_too_long(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(main, [*runs.TINY, *words]) == ExitCode.USAGE
    out, message = capsys.readouterr()
    assert "File name too long (most file systems take 255 bytes" in message and len(message) < 250 and out == ""


@pytest.mark.parametrize("word", ["scenes=4", "scenes=0-4", "datasets=1", "shard=3/2", "scenes=a"])
def test_a_selection_out_of_range(tmp_path: Path, word: str) -> None:
    assert word in refused(tmp_path, 2, word)


@pytest.mark.parametrize(
    "words",
    [("preset=scan", "geometry.scan_folder={}"), ("preset=paper_human", "downstream.thuman={}")],
)
def test_a_plan_needs_the_meshes(tmp_path: Path, words: tuple[str, ...]) -> None:
    given = [word.format(tmp_path / "nowhere") for word in words]
    with pytest.raises(DatasetError, match=r"geometry\.scan_folder=.*/nowhere: there is no such folder"):
        main([*given, "plan=true", "stages=generate,verify", f"out={tmp_path / 'out'}"])
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(DatasetError, match=r"it has no \.obj, \.ply, \.glb file"):
        main([*given, "plan=true", "stages=generate", f"out={tmp_path / 'out'}"])
    main([*given, "plan=true", "stages=verify", f"out={tmp_path / 'out'}"])  # which looks at no mesh
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_experiment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    open_experiment(resolve([*runs.TINY, f"out={out}"]))  # all that an interrupted run may leave
    before = (out / "experiment.json").read_bytes()
    message = refused(tmp_path, 2, "seed=7")
    assert "holds another experiment: in geometry, seed is 0 there and 7 now" in message
    assert "Nothing was changed there" in message
    message = refused(tmp_path, 2, "members=[texture]")
    assert "it varies geometry, this one texture" in message
    assert (out / "experiment.json").read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        {"downstream": 5},
        {"downstream": [["a"]]},
        {"attributes": {"geometry": {}}},
        {"attributes": {"geometry": {"config": {"content": []}, "datasets": [], "scene_count": 1}}},
        {"attributes": {"geometry": {"config": {}, "datasets": 3, "scene_count": 1}}},
    ],
)
def test_a_damaged_experiment_file_is_refused_in_a_sentence(tmp_path: Path, damage: dict[str, Any]) -> None:
    record = {"format": "megasynth-attr experiment 1", "attributes": {"geometry": None}} | damage
    (tmp_path / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(DatasetError, match=r"experiment\.json is damaged: "):
        check_experiment(resolve(["preset=geometry", f"out={tmp_path}"]))
    if "downstream" in damage:
        with pytest.raises(DatasetError, match=r"experiment\.json is damaged: downstream"):
            downstream_attributes(tmp_path)
