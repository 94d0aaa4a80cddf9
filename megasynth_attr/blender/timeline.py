"""A built scene prepared for viewing: the camera's path as an animation with a marker per view, a .blend file."""

from __future__ import annotations

from pathlib import Path

from megasynth_attr.blender import compat
from megasynth_attr.blender.blender_scene import BlenderScene
from megasynth_attr.blender.factors.camera import move_camera
from megasynth_attr.core.errors import EnvironmentProblem


def animate_camera(stage: BlenderScene) -> None:
    """Key the camera's pose at one timeline frame per view, counted from 0 like the files, with a marker at each."""
    scene, count = stage.blender_scene, len(stage.factor("camera").positions)
    scene.frame_start, scene.frame_end = 0, count - 1
    editing = stage.bpy.context.preferences.edit
    kept, editing.keyframe_new_interpolation_type = editing.keyframe_new_interpolation_type, "LINEAR"
    try:
        for index in range(count):
            move_camera(stage, index)
            for channel in ("location", "rotation_quaternion"):
                stage.camera.keyframe_insert(channel, frame=index)
            marker = scene.timeline_markers.new(f"view {index:04d}", frame=index)
            marker.camera = stage.camera
    finally:
        editing.keyframe_new_interpolation_type = kept
    scene.frame_set(0)


def prepare_for_people(stage: BlenderScene) -> None:
    """Let F12 and Render Animation make PNG files that look like the dataset's, beside the .blend file."""
    render = stage.blender_scene.render
    compat.set_png(render)
    render.use_border, render.use_file_extension = False, True
    render.filepath = "//view_"
    windows = stage.bpy.context.window_manager.windows  # none in background mode
    for area in (area for window in windows for area in window.screen.areas):
        if area.type == "VIEW_3D":
            area.spaces.active.region_3d.view_perspective = "CAMERA"
            area.spaces.active.shading.type = "MATERIAL"


def save_blend(stage: BlenderScene, path: Path, *, pack: bool) -> None:
    """Save the file; ``pack``: with the textures inside it. EnvironmentProblem if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if pack:
            stage.bpy.ops.file.pack_all()
        stage.bpy.ops.wm.save_as_mainfile(filepath=str(path.absolute()), compress=True, check_existing=False)
    except (RuntimeError, OSError) as error:
        raise EnvironmentProblem(f"save={path}: the file cannot be written ({' '.join(str(error).split())})") from error
