"""A plugin that fills the world instead of a bounded space, which the geometry must not show either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from megasynth_attr.core.fields import scope, setting, variants
from megasynth_attr.scene.factor import Factor


@dataclass(frozen=True)
class WorldHazeSettings:
    scope: str = scope()
    variants: int = variants()
    density: float = setting(0.0, "extinction per scene unit")


@dataclass(frozen=True)
class WorldHaze:
    density: float


def build(stage: Any, data: WorldHaze) -> None:
    tree = stage.blender_scene.world.node_tree
    scatter = tree.nodes.new("ShaderNodeVolumeScatter")
    scatter.inputs["Density"].default_value = data.density
    output = next(node for node in tree.nodes if node.bl_idname == "ShaderNodeOutputWorld")
    tree.links.new(scatter.outputs["Volume"], output.inputs["Volume"])


FACTOR = Factor(
    name="world_haze",
    order=90,
    settings=WorldHazeSettings,
    data=WorldHaze,
    sample=lambda rng, settings, draw: WorldHaze(settings.density),
    describe=lambda data, records: np.array([data.density]),
    distance=lambda a, b: float(np.abs(a - b).mean()),
    changes_depth=False,
    build=build,
)
