"""A fifth factor costs one module and one preset: the documentation's example, run on a real Blender."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fog(tmp_path):
    """Write the documentation's code blocks to files and return their folder."""
    text = (ROOT / "docs" / "adding-a-factor.md").read_text(encoding="utf-8")
    for language, name in (("python", "fog.py"), ("yaml", "foggy.yaml")):
        (block,) = re.findall(rf"```{language}\n(# {name}.*?)```", text, re.DOTALL)
        (tmp_path / name).write_text(block, encoding="utf-8")
    return tmp_path


def run(folder, *words):
    command = [sys.executable, "-m", "megasynth_attr.pipeline", *words]
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | path)


def test_help_shows_the_new_keys(fog):
    done = run(fog, "--help", "preset=foggy.yaml")
    assert "fog.density" in done.stdout, done.stdout + done.stderr


def test_fog_renders_and_varies_alone(fog):
    if os.environ.get("CI") != "true" and importlib.util.find_spec("bpy") is None:
        pytest.skip("the bpy module is not installed")
    size = ["render.width_px=56", "render.height_px=56", "quality=draft", "texture.bank_size_px=64"]
    done = run(fog, "preset=foggy.yaml", "scenes=0-1", "frames=2", "stages=generate,verify", "out=out", *size)
    assert done.returncode == 0, done.stdout + done.stderr
    from megasynth_attr.dataset.reader import open_dataset
    from megasynth_attr.scene.config import resolve
    from megasynth_attr.scene.factor import _registry
    from megasynth_attr.scene.spec import diff

    before = dict(_registry.factors)
    try:
        resolve([f"preset={fog / 'foggy.yaml'}", f"plugins=[{fog / 'fog.py'}]"])
        first, second = open_dataset(fog / "out" / "fog_00").scenes
        assert diff(first.scene, second.scene) == {"fog"}
        for a, b in zip(first.views, second.views, strict=True):
            assert a.depth_z.tobytes() == b.depth_z.tobytes()  # air hides nothing from the depth
            assert np.abs(a.rgb.astype(int) - b.rgb).max() > 8
    finally:
        _registry.factors.clear()
        _registry.factors.update(before)
        sys.modules.pop("fog", None)
