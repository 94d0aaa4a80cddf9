"""A folder of meshes through the whole pipeline: one that is broken is recorded by name, all others are a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import runs
import trimesh

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.dataset.reader import open_dataset
from megasynth_attr.pipeline.__main__ import main
from megasynth_attr.report.facts import read_facts

WORDS = (
    "preset=scan",
    "frames=3",
    "quality=draft",
    "render.width_px=56",
    "render.height_px=56",
    "texture.bank_size_px=64",
    "isolation.scenes=3",
    "workers=1",
)


def test_one_broken_mesh_does_not_stop_the_others(tmp_path: Path) -> None:
    meshes, out = tmp_path / "meshes", tmp_path / "out"
    (meshes / "b").mkdir(parents=True)
    painted = trimesh.creation.icosphere(2)
    painted.visual.vertex_colors = [[int(90 + 80 * z), 120, 60, 255] for z in painted.vertices[:, 2]]
    painted.export(meshes / "a.ply")
    (meshes / "b" / "body.obj").write_text("a gated page, not a mesh\n")
    trimesh.creation.torus(1, 0.3).export(meshes / "c.glb")
    words = (*WORDS, f"geometry.scan_folder={meshes}", f"out={out}", "scene_count=3")
    first = runs.pipeline(*words, "stages=generate,verify")
    assert first.returncode == 3 and "b/body.obj has no faces" in first.stderr
    (failure,) = (out / "scan_00" / "failures").iterdir()
    assert failure.name == "000001.json" and "b/body.obj" in json.loads(failure.read_text())["message"]
    assert runs.complete_scenes(out) == ["000000", "000002"] and "passed for 2 of 3 scenes" in first.stdout
    before = {path: path.stat().st_mtime_ns for path in (out / "scan_00" / "scenes").rglob("*.png")}

    trimesh.creation.cone(1, 2).export(meshes / "b" / "body.obj")  # mended
    second = runs.pipeline(*words, "stages=generate,verify")
    assert second.returncode == 0, second.stderr
    assert "3 selected, 2 complete, 1 to render" in second.stdout and "scan_00: passed" in second.stdout
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    dataset = open_dataset(out / "scan_00")
    names = [scene.scene.factors["geometry"].scan.name for scene in dataset.scenes]
    assert names == ["a.ply", "b/body.obj", "c.glb"]
    assert read_facts(dataset).meshes == dict(zip(runs.complete_scenes(out), names, strict=True))
    trimesh.creation.cone(1, 2).export(meshes / "aa.obj")  # which moves the others
    records = {path: path.read_bytes() for path in out.rglob("*.json")}
    main([*words, "stages=generate", "plan=true"])  # nothing is left to do
    with pytest.raises(ConfigError, match=r"came or went .*: scene 000002 of dataset 0 shows c\.glb, and"):
        main([*words, "scene_count=4", "stages=generate"])
    assert records == {path: path.read_bytes() for path in out.rglob("*.json")}
    (meshes / "aa.obj").rename(meshes / "d.obj")  # which comes after them
    main([*words, "scene_count=4", "stages=generate", "plan=true"])
    row = dataset.record["isolation"]["relative"]
    assert row["geometry"] > 0.05 and {row[name] for name in ("texture", "camera", "lighting")} == {0.0}


def test_light_varies_over_one_mesh(tmp_path: Path) -> None:
    """An isolated dataset of a scan: verify finds depth equal to the byte, and different pictures."""
    trimesh.creation.torus(1, 0.3).export(tmp_path / "ring.ply")
    words = ("preset=lighting", "geometry.layout=scan", f"geometry.scan_folder={tmp_path}", "dataset_count=1")
    done = runs.pipeline(*words, *WORDS[1:], "scene_count=2", f"out={tmp_path / 'out'}", "stages=generate,verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lighting_00: passed" in done.stdout and "different  camera 1, geometry 1, lighting 2" in done.stdout
    depths = [path.read_bytes() for path in sorted((tmp_path / "out").rglob("depth/0000.exr"))]
    pictures = [path.read_bytes() for path in sorted((tmp_path / "out").rglob("rgb/0000.png"))]
    assert len(depths) == 2 and depths[0] == depths[1] and pictures[0] != pictures[1]
