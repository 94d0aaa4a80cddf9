"""Whatever a user's Blender, shell or account is set to, the same words make the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import runs
from runs import Reference

VERSIONS = ("3.4", "5.0", "5.2")
SCRIPT = """
import bpy
from bpy.app.handlers import persistent

@persistent
def spoil(*_):
    for scene in bpy.data.scenes:
        scene.render.engine = "BLENDER_WORKBENCH"
        scene.render.resolution_percentage = 10
        scene.view_settings.exposure = 3
        scene.render.film_transparent = False
        scene.cycles.samples = 1

def register():
    print("this user's script was loaded")
    for handlers in (bpy.app.handlers.load_post, bpy.app.handlers.render_pre, bpy.app.handlers.depsgraph_update_post):
        handlers.append(spoil)
"""

# a colour configuration in which the sRGB curve does nothing: textures would be too bright
COLOURS = """ocio_profile_version: 1
strictparsing: false
roles: {default: Linear, scene_linear: Linear, data: Linear, color_picking: sRGB, texture_paint: sRGB,
  default_byte: sRGB, default_float: Linear, default_sequencer: sRGB, XYZ: Linear, matte_paint: Linear,
  color_timing: Linear, compositing_log: Linear}
displays: {sRGB: [!<View> {name: Standard, colorspace: sRGB}, !<View> {name: Raw, colorspace: Linear}]}
active_displays: [sRGB]
active_views: [Standard]
colorspaces:
  - !<ColorSpace> {name: Linear, family: linear, bitdepth: 32f, isdata: false}
  - !<ColorSpace> {name: sRGB, family: display, bitdepth: 32f, isdata: false}
  - !<ColorSpace> {name: Non-Color, family: raw, bitdepth: 32f, isdata: true}
"""


def users_blender(home: Path) -> dict[str, str]:
    """Return an environment in which Blender would find a script that spoils every render, and damaged settings."""
    for version in VERSIONS:
        settings = home / ".config" / "blender" / version
        for folder in (settings / "scripts" / "startup", settings / "config"):
            folder.mkdir(parents=True)
        (settings / "scripts" / "startup" / "spoil.py").write_text(SCRIPT)
        for name in ("startup.blend", "userpref.blend"):
            (settings / "config" / name).write_bytes(b"BLENDER-v500" + bytes(1000))
    newest = home / ".config" / "blender" / VERSIONS[1]
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "BLENDER_USER_RESOURCES": str(newest)}
    return own | {"BLENDER_USER_SCRIPTS": str(newest / "scripts"), "BLENDER_USER_CONFIG": str(newest / "config")}


def settings(home: Path) -> dict[str, dict[str, str]]:
    (home / "startup.py").write_text("raise SystemExit('PYTHONSTARTUP was run')")
    (home / "no home").mkdir()
    (home / "own.ocio").write_text(COLOURS)
    return {
        "blender": users_blender(home),
        "colour management": {"OCIO": str(home / "own.ocio")},
        "language": {"LANG": "de_DE.UTF-8", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
        "threads": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "7", "OIDN_NUM_THREADS": "3"},
        "python": {"PYTHONHASHSEED": "5", "PYTHONSTARTUP": str(home / "startup.py"), "PYTHONOPTIMIZE": "2"},
        "other folders": {
            "TMPDIR": str(home / "no home"),
            "TEMP": "/nowhere",
            "BLENDER_SYSTEM_EXTENSIONS": "/nowhere",
        },
    }


def test_hostile_settings_change_no_byte(reference: Reference, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    every = {key: value for one in settings(tmp_path / "home").values() for key, value in one.items()}
    done = runs.pipeline(*runs.TINY, f"out={tmp_path / 'out'}", **every)
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs.tree_hash(tmp_path / "out") == reference.hash


@pytest.mark.proof
@pytest.mark.parametrize("blender", ["module", "binary"])
def test_each_of_them(tmp_path: Path, blender: str) -> None:
    (tmp_path / "home").mkdir()
    binary = shutil.which("blender") if blender == "binary" else "module"
    if binary is None:
        pytest.skip("there is no `blender` on the PATH")
    hashes = {}
    for name, values in {"none": {}, **settings(tmp_path / "home")}.items():
        done = runs.pipeline(*runs.TINY, f"out={tmp_path / name}", f"blender={binary}", **values)
        assert done.returncode == 0, (name, done.stdout + done.stderr)
        hashes[name] = runs.tree_hash(tmp_path / name)
        print(blender, name, hashes[name][:8])
    assert set(hashes.values()) == {hashes["none"]}, hashes
