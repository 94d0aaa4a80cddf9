"""One view: one call of Cycles, then arrays."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.blender import compat
from megasynth_attr.blender.build import NORMAL_AOV, Stage
from megasynth_attr.blender.camera import move_camera
from megasynth_attr.blender.colour import display_rgba
from megasynth_attr.blender.passes import facing_normals, picture_problem, read_normals, read_passes
from megasynth_attr.blender.quality import quality_record, resolve_quality
from megasynth_attr.blender.window import set_window
from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import RenderError
from megasynth_attr.scene.frame import Frame, camera_from_world, intrinsics
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Camera

SEED_LIMIT = 2**31  # Cycles' seed is a signed 32-bit number


@dataclass(frozen=True)
class RenderedView:
    """A frame, and the seconds Cycles itself says it took (sampling, denoising, synchronisation; in steps of 0.01)."""

    frame: Frame
    cycles_s: float


def render_view(stage: Stage, frame_index: int) -> RenderedView:
    """Return view ``frame_index`` of the stage's scene, with normals, instance ids and positions where asked for.

    Raises RenderError when Blender fails or what it returns is not a usable picture.
    """
    move_camera(stage, frame_index)
    set_window(stage, frame_index)
    stage.blender_scene.cycles.seed = (stage.scene.noise_seed + frame_index) % SEED_LIMIT
    where, write, normal, normal_s = f"{stage.scene.name}, frame {frame_index}", stage.write, None, 0.0
    try:
        passes = read_passes(_render_exr(stage), stage.layer.name, instance=write.instance, position=write.position)
        if write.normal:
            normal, normal_s = _render_normals(stage)
    except (RuntimeError, OSError, ValueError) as error:
        raise RenderError(f"{where}: Blender {stage.bpy.app.version_string} made no picture ({error})") from error
    if problem := picture_problem(passes):
        raise RenderError(f"{where}: {problem}")
    if normal is not None:
        rays = towards_camera(stage.factor("camera"), frame_index, stage.render.width_px, stage.render.height_px)
        normal = facing_normals(normal, passes.depth_z > 0, rays)
    rgba = display_rgba(passes.combined, stage.render.exposure_stops)
    frame = Frame(rgba, passes.depth_z, normal, passes.instance, passes.position)
    return RenderedView(frame, passes.cycles_s + normal_s)


def _render_normals(stage: Stage) -> tuple[np.ndarray, float]:
    """Return (normals H×W×3 of the meshes at the pixel centres, seconds Cycles took).

    Cycles averages a custom output over a pixel's samples, the first of which falls on the centre: so this is a
    rendering of its own, with one sample and no light. Neither materials nor meshes are loaded again for it.
    """
    cycles = stage.blender_scene.cycles
    kept = cycles.samples, cycles.use_denoising, cycles.max_bounces
    try:
        cycles.samples, cycles.use_denoising, cycles.max_bounces = 1, False, 0
        return read_normals(_render_exr(stage), stage.layer.name, NORMAL_AOV)
    finally:
        cycles.samples, cycles.use_denoising, cycles.max_bounces = kept


def towards_camera(camera: Camera, frame_index: int, width_px: int, height_px: int) -> np.ndarray:
    """Return H×W×3 unit vectors (world) from the surface seen at each pixel centre to the camera."""
    inverse = np.linalg.inv(intrinsics(camera.fov_x_deg, width_px, height_px))
    world_from_camera = camera_from_world(camera)[frame_index, :3, :3].T
    u, v = np.meshgrid(np.arange(width_px) + 0.5, np.arange(height_px) + 0.5)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ (world_from_camera @ inverse).T
    return -rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _render_exr(stage: Stage) -> bytes:
    """Return the multilayer EXR file of one rendering."""
    with _memory_file() as (path, read):
        stage.blender_scene.render.filepath = path
        finished = stage.bpy.ops.render.render(write_still=True, scene=stage.blender_scene.name)
        if finished != {"FINISHED"}:
            raise RuntimeError(f"render returned {finished}")
        return read()


@contextmanager
def _memory_file() -> Iterator[tuple[str, Any]]:
    """Yield (path, function that returns the content) of a file for Blender to write.

    On Linux the file is anonymous memory of this process: it cannot fill a disk and nothing is left of it however the
    process ends. Elsewhere it is a temporary file.
    """
    if sys.platform == "linux":
        descriptor = os.memfd_create("megasynth-attr")
        path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        try:
            yield str(path), path.read_bytes
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="megasynth-attr-") as folder:
        path = Path(folder) / "view.exr"
        yield str(path), path.read_bytes


def render_record(render: RenderSettings, write: WriteSettings, quality: str, device: str) -> dict[str, Any]:
    """Return what renders a dataset, as plain data: Blender's version, device, sampling numbers, the denoiser used.

    No time, path or host: equal records mean equal conditions. Raises EnvironmentProblem like ``build_scene``.
    """
    bpy = compat.load_bpy()
    numbers = resolve_quality(bpy, quality, render)
    return {
        "blender": compat.blender_version(),
        "device": device,
        "quality": quality,
        "denoiser": "oidn" if numbers.denoise else "none",
        "sampling": quality_record(numbers, render.max_bounces),
        "render": to_plain(render),
        "write": to_plain(write),
    }
