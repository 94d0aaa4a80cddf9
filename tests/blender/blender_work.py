"""What inside_blender.py does once it has found the packages: the jobs of a JSON file.

A job renders frames of a scene; what goes wrong is recorded, not raised, because some jobs are meant to fail.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np

from megasynth_attr.blender import compat
from megasynth_attr.blender.build import build_scene, data_block_counts, empty_blender
from megasynth_attr.blender.render import render_record, render_view
from megasynth_attr.core.codec import from_plain
from megasynth_attr.core.errors import MegaSynthError
from megasynth_attr.scene.factor import load_plugins
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Assets, scene_from_json


def main(folder: Path) -> None:
    jobs = json.loads((folder / "jobs.json").read_text())
    results = {"version": compat.blender_version(), "jobs": {}}
    for job in jobs:
        results["jobs"][job["name"]] = run_job(job, folder)
    bpy = compat.load_bpy()
    empty_blender(bpy)
    results["left_over"] = data_block_counts(bpy)
    (folder / "results.json").write_text(json.dumps(results))


def run_job(job: dict, folder: Path) -> dict:
    load_plugins(job["plugins"])
    scene = scene_from_json(job["scene"])
    render, write = from_plain(RenderSettings, job["render"]), from_plain(WriteSettings, job["write"])
    started, result = time.perf_counter(), {"rss_mb": []}
    try:
        for _ in range(job["builds"]):
            stage = build_scene(
                scene, from_plain(Assets, job["assets"]), render=render, write=write,
                quality=job["quality"], device=job["device"], threads=job["threads"],
            )  # fmt: skip
            if job["whole_picture"]:
                stage.shared["visible points"] = None  # as if something were everywhere
            for frame in range(len(scene.factors["camera"].positions)):
                view = render_view(stage, frame)
                arrays = {k: v for k, v in vars(view.frame).items() if v is not None}
                np.savez(folder / f"{job['name']}_{frame}.npz", **arrays)
                result["cycles_s"] = view.cycles_s
            result["rss_mb"].append(resident_mb())
        result["counts"] = data_block_counts(stage.bpy)
        result["record"] = render_record(render, write, job["quality"], job["device"])
        if job["project"]:
            result["projected"] = project(stage, job["project"])
    except MegaSynthError as error:
        result["error"] = [type(error).__name__, str(error)]
    return result | {"seconds": time.perf_counter() - started}


def project(stage, points: list[list[float]]) -> list[list[list[float]]]:
    """Return frames × points × (x, y, depth): where Blender's own function sees world points, in picture widths."""
    from bpy_extras.object_utils import world_to_camera_view
    from mathutils import Vector

    from megasynth_attr.blender.factors.camera import move_camera

    seen = []
    for frame in range(len(stage.factor("camera").positions)):
        move_camera(stage, frame)
        stage.bpy.context.view_layer.update()
        seen.append([list(world_to_camera_view(stage.blender_scene, stage.camera, Vector(p))) for p in points])
    return seen


def resident_mb() -> float:
    """Return the resident memory of this process in MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
