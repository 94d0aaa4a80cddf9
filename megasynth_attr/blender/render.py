"""One view: one call of Cycles, then arrays."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.blender import compat
from megasynth_attr.blender.blender_scene import NORMAL_AOV, BlenderScene
from megasynth_attr.blender.build import factors_of
from megasynth_attr.blender.colour import display_rgba
from megasynth_attr.blender.factors.camera import move_camera
from megasynth_attr.blender.passes import Passes, facing_normals, picture_problem, read_passes
from megasynth_attr.blender.quality import quality_record, resolve_quality
from megasynth_attr.blender.window import set_window, world_has_volume
from megasynth_attr.core.codec import content_hash, to_plain
from megasynth_attr.core.errors import RenderError
from megasynth_attr.core.fields import identity_of
from megasynth_attr.core.streams import STREAM_VERSION, stream
from megasynth_attr.scene.factor import Factor
from megasynth_attr.scene.frame import Frame, camera_from_world, intrinsics
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Camera, Scene

SEED_LIMIT = 2**31  # Cycles' seed is a signed 32-bit number


@dataclass(frozen=True)
class RenderedView:
    """A frame, and the seconds it took by Cycles' own record (sampling, denoising, synchronisation; steps of 0.01)."""

    frame: Frame
    cycles_s: float


def render_view(stage: BlenderScene, frame_index: int) -> RenderedView:
    """Return view ``frame_index`` of the stage's scene, with normals, instance ids and positions where asked for.

    Raises RenderError when Blender fails or what it returns is not a usable picture.
    """
    move_camera(stage, frame_index)
    set_window(stage, frame_index)
    stage.blender_scene.cycles.seed = (stage.scene.noise_seed + frame_index) % SEED_LIMIT
    where, normal = f"{stage.scene.name}, frame {frame_index}", None
    try:
        passes = _render_passes(stage)
    except (RuntimeError, OSError, ValueError) as error:
        raise RenderError(f"{where}: Blender {stage.bpy.app.version_string} made no picture ({error})") from error
    if problem := picture_problem(passes):
        raise RenderError(f"{where}: {problem}")
    if passes.normal is not None:
        rays = towards_camera(stage.factor("camera"), frame_index, stage.render.width_px, stage.render.height_px)
        normal = facing_normals(passes.normal, passes.depth_z > 0, rays)
    rgba = display_rgba(passes.combined, stage.render.exposure_stops, developers(stage.scene, frame_index))
    return RenderedView(Frame(rgba, passes.depth_z, normal, passes.instance, passes.position), passes.cycles_s)


def developers(scene: Scene, frame_index: int) -> list[Callable[[np.ndarray], np.ndarray]]:
    """Return what the scene's factors do to the linear picture of a frame, in their order; see ``Factor.develop``.

    The generator of each depends on its data and the frame alone: workers, order and other factors cannot matter.
    """
    active = [factor for factor in factors_of(scene) if factor.develop is not None]
    return [partial(_developed, factor=factor, scene=scene, frame_index=frame_index) for factor in active]


def _developed(linear: np.ndarray, factor: Factor, scene: Scene, frame_index: int) -> np.ndarray:
    assert factor.develop is not None
    data = scene.factors[factor.name]
    rng = stream(f"{STREAM_VERSION}|develop={factor.name}|data={content_hash(data)}|frame={frame_index}")
    picture = factor.develop(linear, data, frame_index, rng)
    if picture.shape != linear.shape or not np.isfinite(picture).all():
        raise RenderError(
            f"{scene.name}, frame {frame_index}: what the factor {factor.name!r} developed is no picture of "
            f"{linear.shape} finite numbers"
        )
    return picture


def _render_passes(stage: BlenderScene) -> Passes:
    """Return what one view shows: the picture, and the geometry at the pixel centres.

    Depth, ids and positions come with the picture, exact, unless there is a volume or another object that must not
    change them: then they are rendered separately, without it. Normals always are: Cycles averages a custom output over
    a pixel's samples, and only the first of them falls on the centre.
    """
    write, apart = stage.write, bool(stage.beside_geometry) or world_has_volume(stage)
    passes = _read(stage, instance=write.instance and not apart, position=write.position and not apart)
    if apart:
        with _geometry_only(stage):
            seen = _read(stage, instance=write.instance, position=write.position, normal=write.normal)
        return replace(seen, combined=passes.combined, cycles_s=passes.cycles_s + seen.cycles_s)
    if write.normal:
        with _geometry_only(stage):
            seen = _read(stage, normal=True)
        return replace(passes, normal=seen.normal, cycles_s=passes.cycles_s + seen.cycles_s)
    return passes


def _read(stage: BlenderScene, *, instance: bool = False, position: bool = False, normal: bool = False) -> Passes:
    aov = NORMAL_AOV if normal else None
    return read_passes(_render_exr(stage), stage.layer.name, instance=instance, position=position, normal_aov=aov)


@contextmanager
def _geometry_only(stage: BlenderScene) -> Iterator[None]:
    """Render with one sample, no light and nothing but the geometry; neither materials nor meshes are loaded again."""
    scene, cycles = stage.blender_scene, stage.blender_scene.cycles
    kept = cycles.samples, cycles.use_denoising, cycles.max_bounces
    world = scene.world
    try:
        cycles.samples, cycles.use_denoising, cycles.max_bounces = 1, False, 0
        for body in stage.beside_geometry:
            body.hide_render = True
        if world_has_volume(stage):
            scene.world = None
        yield
    finally:
        cycles.samples, cycles.use_denoising, cycles.max_bounces = kept
        scene.world = world
        for body in stage.beside_geometry:
            body.hide_render = False


def towards_camera(camera: Camera, frame_index: int, width_px: int, height_px: int) -> np.ndarray:
    """Return H×W×3 unit vectors (world) from the surface seen at each pixel centre to the camera."""
    inverse = np.linalg.inv(intrinsics(camera.fov_x_deg, width_px, height_px))
    world_from_camera = camera_from_world(camera)[frame_index, :3, :3].T
    u, v = np.meshgrid(np.arange(width_px) + 0.5, np.arange(height_px) + 0.5)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ (world_from_camera @ inverse).T
    return -rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _render_exr(stage: BlenderScene) -> bytes:
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
        "write": identity_of(write),
    }
