"""From a scene file to a Blender scene: an empty file, every setting explicit, then one builder per factor."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from megasynth_attr.blender import compat
from megasynth_attr.blender.blender_scene import FILTER_WIDTH_PX, NORMAL_AOV, VISIBLE_TYPES, BlenderScene
from megasynth_attr.blender.device import set_denoiser_device, use_device
from megasynth_attr.blender.quality import apply_quality, resolve_quality
from megasynth_attr.core.errors import DatasetError, RenderError
from megasynth_attr.scene.factor import Factor, registered
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Assets, Scene

CONTENT = ("meshes", "materials", "images", "lights", "cameras", "objects", "collections", "node_groups", "worlds")


def build_scene(
    scene: Scene,
    assets: Assets,
    *,
    render: RenderSettings,
    write: WriteSettings,
    quality: str = "default",
    device: str = "cpu",
    threads: int = 0,
) -> BlenderScene:
    """Return the BlenderScene of ``scene``, ready for ``render_view``; whatever Blender held before is gone.

    Raises EnvironmentProblem for a Blender or device that cannot be used, DatasetError for an asset that is missing,
    unreadable or not what the scene file says.
    """
    bpy = compat.load_bpy()
    blender_scene = empty_blender(bpy)
    numbers = resolve_quality(bpy, quality, render)
    _set_render(blender_scene, render)
    compat.set_texture_filter(bpy, blender_scene.render, render.texture_filter)
    use_device(bpy, blender_scene, device, threads)
    apply_quality(blender_scene, numbers, render.max_bounces)
    set_denoiser_device(bpy, blender_scene.cycles, render.denoiser_device)
    stage = BlenderScene(bpy, scene, assets, render, write, numbers, blender_scene, blender_scene.collection)
    _set_passes(stage)
    for factor in factors_of(scene):
        before = set(stage.bpy.data.objects)
        if (build := builder(factor)) is not None:
            build(stage, scene.factors[factor.name])
        if not factor.changes_depth:
            added = [body for body in stage.bpy.data.objects if body not in before]
            stage.beside_geometry += [body for body in added if body.type in VISIBLE_TYPES]
    return stage


def factors_of(scene: Scene) -> list[Factor]:
    """Return the factors of a scene in their order; DatasetError for one that nothing loaded defines."""
    known = registered()
    if unknown := sorted(scene.factors.keys() - known.keys()):
        raise DatasetError(
            f"{scene.name} has the factor {unknown[0]!r}, which no loaded plugin defines (plugins=[...])"
        )
    return [factor for name, factor in known.items() if name in scene.factors]


def builder(factor: Factor) -> Callable[[Any, Any], None] | None:
    """Return what builds a factor in Blender, None for one that only acts while pictures are developed.

    RenderError if it does neither.
    """
    if factor.build is not None:
        return factor.build
    name = f"megasynth_attr.blender.factors.{factor.name}"
    if importlib.util.find_spec(name) is not None:
        build: Callable[[Any, Any], None] = importlib.import_module(name).build
        return build
    if factor.develop is None:
        raise RenderError(
            f"no picture can show the factor {factor.name!r}: it has neither build nor develop, nor a module {name}"
        )
    return None


def empty_blender(bpy: Any) -> Any:
    """Return the only scene of a fresh empty file; the file open before is closed and its memory freed."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    left_over = {kind: count for kind, count in data_block_counts(bpy).items() if count}
    if left_over:
        raise RenderError(f"Blender {bpy.app.version_string} kept {left_over} after opening an empty file; restart it")
    return bpy.context.scene


def data_block_counts(bpy: Any) -> dict[str, int]:
    """Return how many data blocks of each kind of content there are; all 0 in an empty file."""
    return {kind: len(getattr(bpy.data, kind)) for kind in CONTENT}


def _set_render(scene: Any, render: RenderSettings) -> None:
    """Set what Blender's defaults would otherwise decide, differently in different versions."""
    settings = scene.render
    settings.engine = "CYCLES"
    settings.resolution_x, settings.resolution_y = render.width_px, render.height_px
    settings.resolution_percentage = 100
    settings.pixel_aspect_x = settings.pixel_aspect_y = 1.0
    settings.film_transparent = True
    settings.use_persistent_data = True  # only the camera moves between the views of a scene
    settings.use_border = settings.use_crop_to_border = False
    settings.use_compositing = settings.use_sequencer = False
    settings.use_motion_blur = settings.use_simplify = settings.use_freestyle = settings.use_stamp = False
    settings.use_multiview = settings.use_single_layer = False
    settings.use_overwrite, settings.use_placeholder, settings.use_file_extension = True, False, False
    settings.dither_intensity = 0.0
    compat.set_multilayer_exr(settings)
    cycles = scene.cycles
    cycles.film_exposure = 1.0
    cycles.film_transparent_glass = False
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", FILTER_WIDTH_PX
    cycles.use_auto_tile = False  # tiles go through files on disk
    cycles.shading_system = False
    compat.set_if_present(cycles, feature_set="SUPPORTED")
    view = scene.view_settings  # only for people who look at the file: images are made from linear data
    scene.display_settings.display_device = "sRGB"
    view.view_transform, view.look, view.exposure, view.gamma = "Standard", "None", render.exposure_stops, 1.0
    view.use_curve_mapping = False


def _set_passes(stage: BlenderScene) -> None:
    """Ask Cycles for the passes that will be written, and for nothing else."""
    layer = stage.layer
    layer.use_pass_combined = layer.use_pass_z = True
    layer.use_pass_object_index = stage.write.instance
    layer.use_pass_position = stage.write.position
    layer.use_pass_normal = False  # averaged over the pixel, and with the relief of normal maps
    if stage.write.normal:
        aov = layer.aovs.add()
        aov.name, aov.type = NORMAL_AOV, "COLOR"
    layer.pass_alpha_threshold = 0.5
    layer.cycles.use_denoising = True  # if the scene does
