"""The wheel, built from the sdist, works in an empty environment: presets, assets, scripts, commands are inside it."""

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # without --wheel: the sdist first, and the wheel from what is in it
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.parametrize(
    ("python", "packages"), [("3.11", {"bpy": "==5.0.1", "numpy": "<2"}), ("3.13", {"bpy": "<5.3,>=5.2.3"})]
)
def test_each_python_gets_the_blender_that_fits_it(python, packages):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(one) for one in project["optional-dependencies"]["blender"]]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"python_version": python})]
    assert {one.name: one.specifier for one in wanted} == {name: SpecifierSet(s) for name, s in packages.items()}


@pytest.mark.slow
def test_the_wheel_holds_what_a_run_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "presets/demo.yaml",
        "blender_scripts/render.py",
        "assets/materials/procedural_index.json",
        "assets/materials/recipes.yaml",
        "assets/models/sizes.yaml",
        "assets/models/vggt-tiny.safetensors",
        "report/templates/dataset.html",
        "core/pages/templates/base.html",
        "dataset/view/templates/view.html",
    ):
        assert f"megasynth_attr/{needed}" in names
    assert {
        "megasynth_train/finetune.py",
        "megasynth_train/evaluate/templates/points.html",
        "megasynth_train/subspace/figures/templates/analysis.html",
        "megasynth_train/evaluate/results.yaml",
        "megasynth_train/subspace/figures/texts.yaml",
        "megasynth_train/compare/templates/comparison.html",
    } <= names
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "runs/"))]
    (about,) = [name for name in names if name.endswith(".dist-info/METADATA")]
    readme = zipfile.ZipFile(wheel).read(about).decode()  # shown by an index, which has no files to link to
    assert "# MegaSynth-Attr" in readme and not re.findall(
        r"\]\((?!https?:)[^)]*\)", readme
    )  # an index has no such files


@pytest.mark.slow
def test_the_wheel_samples_a_scene_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--no-compile", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    script = """
from pathlib import Path
from megasynth_attr.scene.config import resolve
from megasynth_attr.farm.library import open_library
from megasynth_attr.scene.sample import sample_scene
import megasynth_attr
assert "site-packages" in megasynth_attr.__file__, megasynth_attr.__file__
for preset in ("geometry", "micro_texture", "spoof_plane"):
    config = resolve([f"preset={preset}", "frames=4"]).members[0]
    print(sorted(sample_scene(config, 0, 0, open_library(config, Path("cache")).records).hashes().items()))
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=clean)
    assert done.returncode == 0, done.stderr
    here = subprocess.run(
        [sys.executable, "-c", script.replace("assert", "#")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == here.stdout  # the wheel and the checkout draw the same scenes
    for command, program in (("megasynth-attr", "pipeline"), ("megasynth-train", "finetune")):
        listed = subprocess.run([python.parent / command], capture_output=True, text=True, cwd=tmp_path, env=clean)
        assert listed.returncode == 0 and f"  {program} " in listed.stdout, listed.stderr
    words = ["megasynth-attr", "pipeline", "--presets"]
    presets = subprocess.run([python.parent / words[0], *words[1:]], capture_output=True, text=True, env=clean)
    assert presets.returncode == 0 and presets.stdout.startswith("camera "), presets.stderr
