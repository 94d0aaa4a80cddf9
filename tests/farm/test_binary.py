"""A Blender binary as worker, and as the program a person starts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import runs
from runs import Reference

SCRIPT = runs.ROOT / "blender_scripts" / "render.py"
WORDS = [word for word in runs.TINY if not word.startswith("stages=")]


def start(binary: str, cwd: Path, script: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    env["PWD"] = str(cwd)  # Blender believes the shell's variable
    command = [binary, "-b", "--factory-startup", "--python-exit-code", "1", "-P", str(script), "--", *words]
    return subprocess.run(
        command, cwd=cwd, env=runs.environment(**env), capture_output=True, text=True, timeout=runs.LIMIT_S, check=False
    )


def test_the_binary_makes_the_same_scenes_from_any_folder(
    blender_binary: str, reference: Reference, tmp_path: Path
) -> None:
    shutil.copytree(reference.out, tmp_path / "here")  # where another version of Blender has begun
    shutil.rmtree(tmp_path / "here/geometry_00/scenes/000/000001")
    done = start(blender_binary, tmp_path, SCRIPT, *WORDS, "scenes=1", "out=here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("geometry_00 was begun with Blender 5") == 1
    ours, theirs = (out / "geometry_00" / "scenes" / "000" / "000001" for out in (tmp_path / "here", reference.out))
    for name in ("scene.json", "cameras.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    assert sorted(p.relative_to(ours) for p in ours.rglob("*")) == sorted(
        p.relative_to(theirs) for p in theirs.rglob("*")
    )


def test_exit_codes_get_out_of_blender(blender_binary: str, tmp_path: Path) -> None:
    unknown = start(blender_binary, SCRIPT.parent, Path("render.py"), "preset=geometri", f"out={tmp_path / 'out'}")
    assert unknown.returncode == 2
    assert "did you mean geometry?" in unknown.stderr and "Traceback" not in unknown.stderr
    assert start(blender_binary, tmp_path, SCRIPT, *WORDS, "blender=/no/such", "out=here").returncode == 4


def test_a_binary_without_the_packages_says_what_to_do(blender_binary: str, tmp_path: Path) -> None:
    for part in ("megasynth_attr", "presets", "assets", "blender_scripts"):  # a checkout without .venv
        shutil.copytree(runs.ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    script = tmp_path / "blender_scripts" / "render.py"
    done = start(blender_binary, tmp_path, script, "preset=no_such_preset", PYTHONPATH="", VIRTUAL_ENV="/nowhere")
    if done.returncode == 2:
        pytest.skip("this Blender's own Python has every package")
    assert done.returncode == 4
    assert "cannot find" in done.stderr and "venv" in done.stderr and "Traceback" not in done.stderr
