"""Materials: each map wired to its input; equal slots share a material, equal files an image."""

from __future__ import annotations

import warnings
from typing import Any

from megasynth_attr.blender import compat
from megasynth_attr.blender.blender_scene import NORMAL_AOV, BlenderScene
from megasynth_attr.blender.images import check_own_image, load_image
from megasynth_attr.blender.meshes import UV_LAYER
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.scene.spec import Primitive, SlotMaterial, Texture

GLASS_IOR = 1.45
UNPAINTED = 0.5  # linear grey of a scan without any colour
DIELECTRIC_IOR = 1.5  # 4 % reflection at normal incidence


def build(stage: BlenderScene, texture: Texture) -> None:
    """Give every primitive of the stage its material."""
    geometry = stage.factor("geometry")
    primitives = geometry.primitives if geometry.scan is None else geometry.primitives * len(stage.primitives)
    for mesh_object, primitive in zip(stage.primitives, primitives, strict=True):
        if primitive.surface == "own":
            _complete_own(stage, mesh_object)
        else:
            mesh_object.data.materials.clear()
            mesh_object.data.materials.append(_material(stage, texture, primitive))


def _material(stage: BlenderScene, texture: Texture, primitive: Primitive) -> Any:
    """Return the material of a primitive, made on first use."""
    slot = texture.slots[primitive.slot % len(texture.slots)] if primitive.surface == "material" else None
    key = ("material", slot or primitive.surface)
    if key not in stage.shared:
        if slot is not None:
            stage.shared[key] = _textured(stage, slot, texture.bump_distance)
        elif primitive.surface == "glass":
            stage.shared[key] = _glass(stage)
        elif primitive.surface == "picture":
            stage.shared[key] = _picture(stage, texture)
        else:
            raise DatasetError(f"a primitive's surface is {primitive.surface!r}; it must be material, glass or picture")
    return stage.shared[key]


def _new_material(stage: BlenderScene, name: str) -> tuple[Any, Any, Any]:
    """Return (material, empty node tree, its output node's surface input); the tree only writes the normal layer."""
    material = stage.bpy.data.materials.new(name)
    tree = compat.use_nodes(material)
    _record_normal(stage, tree)
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    return material, tree, output.inputs["Surface"]


def _record_normal(stage: BlenderScene, tree: Any) -> None:
    """Add the nodes that write the mesh's normal to its layer, if the dataset has one: normal maps do not count."""
    if stage.write.normal:
        geometry = tree.nodes.new("ShaderNodeNewGeometry")
        recorder = compat.aov_node(tree, NORMAL_AOV)
        tree.links.new(geometry.outputs["Normal"], recorder.inputs["Color"])


def _complete_own(stage: BlenderScene, body: Any) -> None:
    """Make the materials that a scan's file brought write normals; where it brought none, show its vertex colours.

    RenderError for a texture that Blender cannot decode: Cycles would paint it magenta.
    """
    materials = body.data.materials
    if not materials:
        materials.append(None)
    for index, material in enumerate(materials):
        if material is None:
            materials[index] = _vertex_coloured(stage, body)
        elif ("own", material.name) not in stage.shared:
            stage.shared["own", material.name] = material
            _record_normal(stage, material.node_tree)
            for node in material.node_tree.nodes:
                check_own_image(stage, getattr(node, "image", None))


def _vertex_coloured(stage: BlenderScene, body: Any) -> Any:
    """Return a matte material that shows the mesh's vertex colours; a grey one, not matte, if it has none."""
    colours = body.data.color_attributes
    material, tree, surface = _new_material(stage, "vertex colours")
    shader = tree.nodes.new("ShaderNodeBsdfDiffuse" if len(colours) else "ShaderNodeBsdfPrincipled")
    tree.links.new(shader.outputs[0], surface)
    if len(colours):
        node = tree.nodes.new("ShaderNodeVertexColor")
        node.layer_name = colours[0].name
        tree.links.new(node.outputs["Color"], shader.inputs["Color"])
        return material
    shader.inputs["Base Color"].default_value = (*[UNPAINTED] * 3, 1.0)
    name = stage.factor("geometry").scan.name
    warnings.warn(f"{stage.scene.name}: the mesh {name} has no material and no colours, so it is grey", stacklevel=2)
    return material


def _textured(stage: BlenderScene, slot: SlotMaterial, bump_distance: float) -> Any:
    """Return a Principled material from the slot's maps; its own roughness or metallic value replaces the map."""
    material, tree, surface = _new_material(stage, slot.material)
    shader = tree.nodes.new("ShaderNodeBsdfPrincipled")
    shader.distribution = "GGX"
    shader.inputs["IOR"].default_value = DIELECTRIC_IOR
    compat.specular_socket(shader).default_value = 0.5
    tree.links.new(shader.outputs[0], surface)
    tree.links.new(_map(stage, tree, slot.material, "basecolor"), shader.inputs["Base Color"])
    for name, override in (("roughness", slot.roughness), ("metallic", slot.metallic)):
        socket = shader.inputs[name.capitalize()]
        if override is None:
            tree.links.new(_map(stage, tree, slot.material, name), socket)
        else:
            socket.default_value = override
    tree.links.new(_normal(stage, tree, slot.material, bump_distance), shader.inputs["Normal"])
    return material


def _normal(stage: BlenderScene, tree: Any, name: str, bump_distance: float) -> Any:
    """Return the output that carries the normal map, and the height map's relief on top where it is switched on."""
    node = tree.nodes.new("ShaderNodeNormalMap")
    node.space, node.uv_map = "TANGENT", UV_LAYER
    tree.links.new(_map(stage, tree, name, "normal"), node.inputs["Color"])
    if bump_distance == 0:
        return node.outputs["Normal"]
    bump = tree.nodes.new("ShaderNodeBump")
    bump.inputs["Strength"].default_value = 1.0
    bump.inputs["Distance"].default_value = bump_distance
    tree.links.new(_map(stage, tree, name, "height"), bump.inputs["Height"])
    tree.links.new(node.outputs["Normal"], bump.inputs["Normal"])
    return bump.outputs["Normal"]


def _map(stage: BlenderScene, tree: Any, material: str, name: str) -> Any:
    """Return the colour output of a material's map; only base colour is colour, the rest are numbers."""
    files = stage.assets.materials.get(material)
    if files is None:
        raise DatasetError(f"the material {material} of scene {stage.scene.name} was not given; check texture.bank")
    if name not in files:
        raise DatasetError(f"the material {material} has no {name} map, only {', '.join(sorted(files))}")
    image = load_image(stage, files[name], f"the {name} map of {material}", is_colour=name == "basecolor")
    return _texture_node(tree, image, "REPEAT").outputs["Color"]


def _texture_node(tree: Any, image: Any, extension: str) -> Any:
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image, node.extension, node.interpolation = image, extension, "Linear"
    return node


def _picture(stage: BlenderScene, texture: Texture) -> Any:
    """Return a matte print of the scene's picture: its colours under light, without a reflection."""
    if texture.picture is None:
        raise DatasetError(f"scene {stage.scene.name} has a surface for a picture but names none")
    name = texture.picture.name
    path = stage.assets.pictures.get(name)
    if path is None:
        raise DatasetError(f"the picture {name} of scene {stage.scene.name} was not given; check texture.pictures")
    image = load_image(stage, path, f"the picture {name}", is_colour=True, sha256=texture.picture.sha256)
    material, tree, surface = _new_material(stage, "picture")
    shader = tree.nodes.new("ShaderNodeBsdfDiffuse")
    tree.links.new(_texture_node(tree, image, "EXTEND").outputs["Color"], shader.inputs["Color"])
    tree.links.new(shader.outputs[0], surface)
    return material


def _glass(stage: BlenderScene) -> Any:
    """Return clear glass. Light falls through it unbent: refracted, all light behind a pane would be a caustic."""
    material, tree, surface = _new_material(stage, "glass")
    glass = tree.nodes.new("ShaderNodeBsdfGlass")
    glass.distribution = "GGX"
    glass.inputs["Roughness"].default_value = 0.0
    glass.inputs["IOR"].default_value = GLASS_IOR
    clear = tree.nodes.new("ShaderNodeBsdfTransparent")
    path, either, mix = (
        tree.nodes.new(kind) for kind in ("ShaderNodeLightPath", "ShaderNodeMath", "ShaderNodeMixShader")
    )
    either.operation = "MAXIMUM"
    tree.links.new(path.outputs["Is Shadow Ray"], either.inputs[0])
    tree.links.new(path.outputs["Is Diffuse Ray"], either.inputs[1])
    tree.links.new(either.outputs[0], mix.inputs[0])
    tree.links.new(glass.outputs[0], mix.inputs[1])
    tree.links.new(clear.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], surface)
    return material
