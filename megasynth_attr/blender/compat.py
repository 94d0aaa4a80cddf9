"""Every difference between the supported Blender versions, 3.4 to 5.2, and nothing else.

Names of enum items and sockets are looked up rather than derived from a version number wherever Blender can be asked:
that also holds for the versions between those tested.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from megasynth_attr.core.errors import EnvironmentProblem, importing
from megasynth_attr.core.machine import INSTALL_BPY

OLDEST = (3, 4)
NEWEST_TESTED = (5, 2)


class BlenderWarning(UserWarning):
    """Something about this Blender the user should know; the run goes on."""


def load_bpy() -> Any:
    """Return the module bpy; EnvironmentProblem if this is not Blender or one older than 3.4."""
    with importing(f"this Python cannot import bpy ({{error}}); {INSTALL_BPY}, or run inside Blender"):
        import bpy
    if not hasattr(bpy, "app"):
        raise EnvironmentProblem(f"the module bpy found here is not Blender's; {INSTALL_BPY}")
    version = tuple(bpy.app.version)
    if version[:2] < OLDEST:
        raise EnvironmentProblem(
            f"Blender {bpy.app.version_string} is too old; {_dotted(OLDEST)} to {_dotted(NEWEST_TESTED)} are supported"
        )
    if version[:2] > NEWEST_TESTED:
        warnings.warn(
            f"Blender {bpy.app.version_string} is newer than the newest tested one ({_dotted(NEWEST_TESTED)})",
            BlenderWarning,
            stacklevel=2,
        )
    return bpy


def blender_version() -> str:
    """Return this Blender's version, e.g. "5.0.1"; EnvironmentProblem if it cannot be used."""
    return ".".join(map(str, load_bpy().app.version))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def set_if_present(struct: Any, **values: Any) -> None:
    """Set the properties that this version has; for settings whose absence means the wanted behaviour."""
    for name, value in values.items():
        if hasattr(struct, name):
            setattr(struct, name, value)


def use_nodes(block: Any) -> Any:
    """Return the empty node tree of a material or world; before 5.0 nodes must be switched on."""
    if block.node_tree is None or load_bpy().app.version < (5, 0, 0):
        block.use_nodes = True
    block.node_tree.nodes.clear()
    return block.node_tree


def socket(node: Any, *names: str) -> Any:
    """Return the first input among ``names``: Blender 4.0 renamed sockets of the Principled BSDF."""
    for name in names:
        if name in node.inputs:
            return node.inputs[name]
    raise EnvironmentProblem(f"this Blender's {node.bl_idname} has none of the inputs {', '.join(names)}")


def specular_socket(principled: Any) -> Any:
    """Return the input that scales dielectric reflection (0.5: 4 % at normal incidence)."""
    return socket(principled, "Specular IOR Level", "Specular")


def set_first_known(struct: Any, name: str, preferred: Sequence[str]) -> None:
    """Set an enum property to the first of the ``preferred`` items this version knows.

    Cycles computes the items of some enums in a Python function, which RNA cannot list; assigning asks it.
    """
    for item in preferred:
        try:
            setattr(struct, name, item)
        except TypeError:
            continue
        return
    raise EnvironmentProblem(f"this Blender's {struct.bl_rna.name} knows none of {', '.join(preferred)} as {name}")


def set_linear_colour_space(image: Any) -> None:
    """Declare an image's values linear Rec.709; Blender 4.0 renamed that."""
    set_first_known(image.colorspace_settings, "name", ("Linear Rec.709", "Linear"))


def set_sampling_pattern(cycles: Any) -> None:
    """Choose tabulated Sobol points, or their predecessor in 3.4."""
    set_first_known(cycles, "sampling_pattern", ("TABULATED_SOBOL", "PROGRESSIVE_MULTI_JITTER"))


def set_multilayer_exr(render: Any) -> None:
    """Make ``render`` write float32 multilayer EXR files, uncompressed; Blender 5.0 wants the media type first."""
    settings = render.image_settings
    set_if_present(settings, media_type="MULTI_LAYER_IMAGE")
    settings.file_format = "OPEN_EXR_MULTILAYER"
    settings.color_mode = "RGBA"
    settings.color_depth = "32"
    settings.exr_codec = "NONE"
    set_if_present(settings, use_preview=False, use_exr_interleave=False)


def set_texture_filter(bpy: Any, render: Any, name: str) -> None:
    """Make Cycles read textures "linear", at their full resolution, or "mip", at the one a pixel needs.

    Blender 5.2 brought the second, as its default. It keeps reduced copies of the files, here in the temporary folder
    of this process. Raises EnvironmentProblem for "mip" in older versions.
    """
    if hasattr(render, "use_texture_cache"):
        render.use_texture_cache = render.use_auto_generate_texture_cache = name == "mip"
        bpy.context.preferences.filepaths.texture_cache_directory = bpy.app.tempdir
    elif name == "mip":
        raise EnvironmentProblem(
            f"render.texture_filter=mip: Blender {bpy.app.version_string} has no such filter, 5.2 and newer do; use "
            "render.texture_filter=linear"
        )


def set_png(render: Any) -> None:
    """Make ``render`` write 8-bit PNG files with alpha."""
    set_if_present(render.image_settings, media_type="IMAGE")
    render.image_settings.file_format = "PNG"
    render.image_settings.color_mode, render.image_settings.color_depth = "RGBA", "8"


def has_open_image_denoise(bpy: Any) -> bool:
    """Return whether this Blender was built with OpenImageDenoise; the scene's denoiser is set to it if so."""
    try:
        set_first_known(bpy.context.scene.cycles, "denoiser", ("OPENIMAGEDENOISE",))
    except EnvironmentProblem:
        return False
    return True


def area_light_energy(power_w: float) -> float:
    """Return the energy setting of an area light that emits ``power_w`` watt as a Lambertian surface of area A.

    Such a surface has the radiance P / (pi A). So has Blender's light of energy P since 4.0; before, it had P / (4 A)
    (measured on 3.4 and 4.2).
    """
    return power_w if load_bpy().app.version >= (4, 0, 0) else power_w * 4 / math.pi


def add_polygons(mesh: Any, face_sizes: Any, starts: Any) -> None:
    """Set the polygons of a mesh whose loops exist; before 4.0 the sizes are not derived from the starts."""
    mesh.polygons.add(len(face_sizes))
    mesh.polygons.foreach_set("loop_start", starts)
    if load_bpy().app.version < (4, 0, 0):
        mesh.polygons.foreach_set("loop_total", face_sizes)


def shade_smooth(mesh: Any, vertex_normals: Callable[[], Any]) -> None:
    """Shade all faces smooth, with the same normals in every run.

    Before 4.1 Blender sums the normals of the faces around a vertex in the order in which its threads finish, so their
    last bits, and now and then a pixel, change from run to run. There the result of ``vertex_normals()`` (V×3) is
    stored as custom normals instead, whose resolution is 0.006°.
    """
    mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
    if hasattr(mesh, "use_auto_smooth"):  # removed in 4.1
        mesh.use_auto_smooth, mesh.auto_smooth_angle = True, math.pi
        mesh.normals_split_custom_set_from_vertices(vertex_normals().tolist())


def import_mesh(bpy: Any, path: str) -> None:
    """Read a mesh file into the open scene, with the file's own axes for .obj and .ply; y up becomes z up for .glb.

    RuntimeError if Blender cannot read it. Blender 4.0 replaced the importer of PLY files.
    """
    kind = path.rpartition(".")[2].lower()
    same_axes = {"forward_axis": "Y", "up_axis": "Z"}
    if kind == "obj":
        finished = bpy.ops.wm.obj_import(filepath=path, **same_axes)
    elif kind == "glb":
        with _numpy_as_before_1_24():
            finished = bpy.ops.import_scene.gltf(filepath=path)
    elif "ply_import" in dir(bpy.ops.wm):
        finished = bpy.ops.wm.ply_import(filepath=path, import_colors="SRGB", **same_axes)
    else:
        finished = bpy.ops.import_mesh.ply(filepath=path)
    if finished != {"FINISHED"}:
        raise RuntimeError(f"the importer returned {finished}")


@contextmanager
def _numpy_as_before_1_24() -> Iterator[None]:
    """Give NumPy the name that the glTF importer of Blender 3.4 uses; Debian ships both, and they do not fit."""
    missing = not hasattr(np, "bool")
    if missing:
        vars(np)["bool"] = np.bool_
    try:
        yield
    finally:
        if missing:
            del vars(np)["bool"]


def aov_node(tree: Any, name: str) -> Any:
    """Return a new node that writes to the layer's custom output ``name``; Blender 4.1 renamed its property."""
    node = tree.nodes.new("ShaderNodeOutputAOV")
    setattr(node, "aov_name" if hasattr(node, "aov_name") else "name", name)
    return node


def object_index_channel(layer: str, channels: Any) -> str:
    """Return the name of the object index channel; Blender 5.0 calls the pass by its full name."""
    for name in (f"{layer}.Object Index.X", f"{layer}.IndexOB.X"):
        if name in channels:
            return name
    raise EnvironmentProblem(f"this Blender wrote no object index, only {', '.join(sorted(channels))}")


def gpu_devices(preferences: Any, kind: str) -> list[Any]:
    """Return the Cycles devices of a kind such as "CUDA"; empty if this build does not know the kind."""
    if hasattr(preferences, "refresh_devices"):
        preferences.refresh_devices()
    try:
        found = preferences.get_devices_for_type(kind)
    except (TypeError, ValueError, AttributeError):
        return []
    return [device for device in found or () if device.type == kind]


def denoises_on_gpu(preferences: Any) -> bool:
    """Return whether one of the GPUs in use can run OpenImageDenoise; older Blenders do not say, and count as no."""
    return hasattr(preferences, "has_oidn_gpu_devices") and bool(preferences.has_oidn_gpu_devices())
