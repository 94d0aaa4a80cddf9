"""A scene file becomes a .blend file: everything in it, the camera's path as an animation, a marker per view."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analytic_scenes import geometry, scene, solid, texture
from blender_jobs import VIEWS
from blender_runtime import CHECKOUT, RUNTIMES, Runtime, environment
from scipy.spatial.transform import Rotation

from megasynth_attr.core.codec import content_hash
from megasynth_attr.scene.spec import SlotMaterial, scene_to_json
from megasynth_attr.textures.bank import open_bank

INSPECT = """
import json, sys
import bpy
for file in sys.argv[sys.argv.index("--") + 1:]:
    bpy.ops.wm.open_mainfile(filepath=file)
    scene = bpy.context.scene
    poses = []
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
        poses.append([list(row) for row in scene.camera.matrix_world])
    print("FOUND " + json.dumps({
        "meshes": len(bpy.data.meshes), "frames": [scene.frame_start, scene.frame_end], "poses": poses,
        "markers": [[m.name, m.frame, m.camera.name] for m in scene.timeline_markers],
        "packed": [bool(i.packed_file) for i in bpy.data.images if i.source == "FILE"],
        "engine": scene.render.engine, "size": [scene.render.resolution_x, scene.render.resolution_y],
    }))
"""


ALL = """
import sys
from pathlib import Path
checkout, folder, *words = sys.argv[sys.argv.index("--") + 1:]
sys.path.insert(0, checkout)
from megasynth_attr.core.errors import run_main
from megasynth_attr.pipeline.open_scene import main
print("CODES", [run_main(main, [f"scene={file}", *words]) for file in sorted(Path(folder).glob("?.json"))])
"""


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene folder outside of any dataset, with 16 px procedural materials beside it."""
    folder = tmp_path_factory.mktemp("scene")
    names = [record.name for record in open_bank("procedural", cache_dir=folder / "cache", size_px=16).records[:2]]
    shape = geometry(
        [((0, 0, 0), (1, 1, 1)), ((0, 0, 1), (0.5, 0.5, 0.5))], [solid("cuboid"), solid("ellipsoid", 1, slot=1)]
    )
    look = texture(*[SlotMaterial(name, None, None) for name in names])
    look = type(look)(look.slots, dict.fromkeys(names, "x"), None, 0.0, None)
    (folder / "scene.json").write_text(scene_to_json(scene(shape, VIEWS, look)))
    render = {
        "width_px": 98,
        "height_px": 140,
        "exposure_stops": 0.0,
        "samples": 1,
        "denoiser": "none",
        "max_bounces": 2,
    }
    (folder / "render.json").write_text(json.dumps({"render": render}))
    return folder


def open_scene(runtime: Runtime, *words: str) -> subprocess.CompletedProcess[str]:
    start = [*runtime.command, str(CHECKOUT / "blender_scripts" / "open_scene.py"), "--"]
    return subprocess.run([*start, *words], env=environment(), capture_output=True, text=True, timeout=120, check=False)


def test_the_blend_files_hold_the_scene(runtime: Runtime, scene_folder: Path, tmp_path: Path) -> None:
    words = f"scene={scene_folder}", f"cache={scene_folder / 'cache'}", "bank_size_px=16"
    blends = {textures: tmp_path / "new folder" / f"{textures}.blend" for textures in ("pack", "refer")}
    for textures, blend in blends.items():
        done = open_scene(runtime, *words, f"save={blend}", f"textures={textures}")
        assert done.returncode == 0, done.stdout + done.stderr
    script = tmp_path / "inspect_blend.py"
    script.write_text(INSPECT)
    command = [*runtime.command, str(script), "--", *map(str, blends.values())]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = [json.loads(line.partition("FOUND ")[2]) for line in shown.stdout.splitlines() if "FOUND " in line]
    for textures, one in zip(blends, found, strict=True):
        assert_holds_the_scene(one, packed=textures == "pack")


def assert_holds_the_scene(found: dict[str, Any], packed: bool) -> None:
    assert (found["engine"], found["meshes"], found["size"]) == ("CYCLES", 2, [98, 140])
    assert found["frames"] == [0, 2]
    assert found["markers"] == [[f"view {i:04d}", i, "camera"] for i in range(3)]
    assert set(found["packed"]) == {packed} and len(found["packed"]) >= 4
    for pose, position, quaternion in zip(
        np.array(found["poses"]), VIEWS.positions, VIEWS.world_from_camera_xyzw, strict=True
    ):
        opencv = Rotation.from_quat(quaternion).as_matrix()
        assert np.allclose(pose[:3, 3], position, atol=1e-5)
        assert np.allclose(pose[:3, :3], opencv * [1, -1, -1], atol=1e-5)  # y up, z backward


# what comes from the words alone, with one Blender; what shows that words and codes get through, with all
@pytest.mark.parametrize(
    ("runtime", "words", "part"),
    [
        *((name, ["scene=nowhere.json", "save=x.blend"], "nowhere.json") for name in RUNTIMES),
        ("module", ["save=x.blend"], "scene= is missing"),
        ("module", ["scene={scene}", "cache={cache}", "bank_size_px=16"], "save= is missing"),
        ("module", ["scene={scene}", "bnak=x"], "bnak"),
        ("binary", ["scene={scene}", "save=x.blend", "bank=/nowhere"], "/nowhere"),
    ],
    indirect=["runtime"],
)
def test_wrong_words_give_one_message_and_exit_code_2(
    runtime: Runtime, scene_folder: Path, tmp_path: Path, words: list[str], part: str
) -> None:
    filled = [w.format(scene=scene_folder, cache=scene_folder / "cache") for w in words]
    done = open_scene(runtime, *filled)
    assert done.returncode == 2
    assert part in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("runtime", ["module"], indirect=True)
def test_a_scene_that_makes_no_sense_gives_one_message(runtime: Runtime, scene_folder: Path, tmp_path: Path) -> None:
    """Each of these numbers fails in another place, all of them deep inside."""
    record = json.loads((scene_folder / "scene.json").read_text())
    for number, (factor, change) in enumerate(
        [
            ("camera", {"positions": []}),
            ("camera", {"world_from_camera_xyzw": [[0.0, 0.0, 0.0, 0.0]] * 3}),
            ("texture", {"slots": []}),
            ("geometry", {"boxes": []}),
            ("lighting", None),
        ]
    ):
        factors = {name: data for name, data in record["factors"].items() if change or name != factor}
        factors |= {factor: factors[factor] | change} if change else {}
        hashes = {name: content_hash(data) for name, data in factors.items()} | {"noise": record["hashes"]["noise"]}
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(record | {"factors": factors, "hashes": hashes}))
    script = tmp_path / "all.py"
    script.write_text(ALL)
    words = [
        str(CHECKOUT),
        str(tmp_path),
        f"cache={scene_folder / 'cache'}",
        "bank_size_px=16",
        f"save={tmp_path / 'x.blend'}",
    ]
    command = [*runtime.command, str(script), "--", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert "CODES [2, 2, 2, 2, 2]" in done.stdout, done.stdout + done.stderr
    assert done.stderr.count("is no scene that can be shown (") == 5 and "Traceback" not in done.stderr


def test_the_module_has_an_entry_point_of_its_own(scene_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("bpy")
    blend = tmp_path / "look.blend"
    words = [f"scene={scene_folder}", f"save={blend}", f"cache={scene_folder / 'cache'}", "bank_size_px=16"]
    command = [sys.executable, "-m", "megasynth_attr.pipeline.open_scene", *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and blend.stat().st_size > 10_000, done.stderr
    shown = subprocess.run(
        [*command[:3], "--help"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "blender -P blender_scripts/open_scene.py" in shown.stdout
