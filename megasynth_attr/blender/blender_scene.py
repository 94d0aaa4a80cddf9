"""The open Blender file while factors build their parts into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from megasynth_attr.blender.meshes import mesh_from_arrays
from megasynth_attr.blender.quality import Quality
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Assets, Scene

FILTER_WIDTH_PX = 1.5
NORMAL_AOV = "surface_normal"  # name of the custom output to which materials write their mesh's normal
VISIBLE_TYPES = ("MESH", "CURVE", "SURFACE", "META", "FONT", "VOLUME", "POINTCLOUD", "CURVES")


@dataclass
class BlenderScene:
    """What factor builders get: the open Blender file and what it is made from; valid until the next ``build_scene``.

    ``primitives`` holds one object per ``Geometry.primitives`` entry once geometry is built (of a scan, which is one
    entry, all parts of its file), ``camera`` the camera object once the camera is built, ``beside_geometry`` the
    objects left out of depth, normals, ids and positions. ``shared`` is for what builders make only once, each under
    its own keys.
    """

    bpy: Any
    scene: Scene
    assets: Assets
    render: RenderSettings
    write: WriteSettings
    quality: Quality
    blender_scene: Any
    collection: Any
    primitives: list[Any] = field(default_factory=list)
    camera: Any = None
    beside_geometry: list[Any] = field(default_factory=list)
    shared: dict[Any, Any] = field(default_factory=dict)

    @property
    def layer(self) -> Any:
        """The only view layer: with a second one Cycles would load all meshes anew for every view."""
        return self.blender_scene.view_layers[0]

    def factor(self, name: str) -> Any:
        """Return the scene's data of a factor, e.g. ``stage.factor("geometry")``."""
        return self.scene.factors[name]

    def add_object(self, name: str, data: Any) -> Any:
        """Return a new object showing ``data`` (a mesh, light or camera), linked into the scene."""
        added = self.bpy.data.objects.new(name, data)
        self.collection.objects.link(added)
        return added

    def add_mesh(self, name: str, arrays: Any, instance_id: int) -> Any:
        """Return a new object of MeshArrays; ``instance_id`` is what the instance map will show."""
        added = self.add_object(name, mesh_from_arrays(self.bpy, name, arrays))
        added.pass_index = instance_id
        return added
