"""A small experiment written by the real writer from ray-cast frames: ``texture_00`` and ``camera_00``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from megasynth_attr.core.codec import rounded
from megasynth_attr.dataset.writer import SceneWriter, finalise, open_for_writing
from megasynth_attr.scene.config import Config
from megasynth_attr.scene.factor import registered
from megasynth_attr.scene.frame import Frame, camera_from_world, intrinsics
from megasynth_attr.scene.settings import ContentSettings, IsolationSettings, RenderSettings, RunSettings, WriteSettings
from megasynth_attr.scene.spec import Box, Camera, Geometry, Lighting, Primitive, Scene, SlotMaterial, Sun, Texture

sys.path.append(str(Path(__file__).parents[1] / "dataset"))
import raycast

FOV_X_DEG = 52.0


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    scenes: int = 4
    frames: int = 6
    width_px: int = 56
    height_px: int = 42


def make_config(attribute: str, size: Size, write: WriteSettings) -> Config:
    """Return a configuration in which the factor ``attribute`` alone is drawn for every scene."""
    factors = {
        name: dataclasses.replace(factor.settings(), scope="scene" if name == attribute else "dataset")
        for name, factor in registered().items()
        if not factor.optional
    }
    return Config(
        content=ContentSettings(
            preset=attribute, attribute=attribute, dataset_count=1, scene_count=size.scenes, frames=size.frames
        ),
        render=RenderSettings(width_px=size.width_px, height_px=size.height_px),
        write=write,
        isolation=IsolationSettings(),
        run=RunSettings(),
        factors=factors,
        plugin_hashes={},
    )


def make_scene(attribute: str, index: int, size: Size) -> Scene:
    """Return scene ``index``: equal to all others except in the factor ``attribute``."""
    number = {name: index if name == attribute else 0 for name in ("texture", "camera", "lighting")}
    poses = np.stack(
        raycast.orbit(size.frames, distance=2.6 + 0.15 * number["camera"], elevation=0.5 - 0.12 * number["camera"])
    )
    camera = Camera(
        "orbit",
        FOV_X_DEG,
        rounded(poses[:, :3, 3]),
        rounded(Rotation.from_matrix(poses[:, :3, :3]).as_quat()),
    )
    azimuth = 0.9 * number["lighting"] - 0.9
    sun = Sun(rounded([np.cos(azimuth) * 0.6, np.sin(azimuth) * 0.6, 0.53]), 2.0, (1.0, 1.0, 1.0), 1.0, "world")
    names = [f"ceramic_{number['texture']:02d}", "wood_03"]
    boxes = (Box("large", (6.0, 6.0, 6.0), (4.0, 4.0, 4.0)),)
    flat: tuple[tuple[float, ...], ...] = ((),)
    still = (0.0, 0.0, 0.0, 1.0)
    primitives = tuple(  # as many as the ray caster has things, for the instance ids; it looks at nothing else
        Primitive("ellipsoid", 0, (1.0, 1.0, 1.0), still, (0.0, 0.0, 0.0), flat, False, "material", i) for i in range(4)
    )
    factors: dict[str, Any] = {
        "geometry": Geometry("objects", (12.0, 12.0, 12.0), boxes, primitives, None, 8, 0.1, (6.0, 6.0, 6.0), 0, 1),
        "texture": Texture(
            tuple(SlotMaterial(n, None, None) for n in names), {n: f"{n:0<8}" for n in names}, None, 0.0, None
        ),
        "camera": camera,
        "lighting": Lighting((0.6, 0.6, 0.6), 1.0, (sun,), (), (), None),
    }
    return Scene(attribute, 0, index, 0, 7, factors)


def ray_cast_frame(scene: Scene, index: int, size: Size) -> Frame:
    """Return one view of ``scene``; its first material decides the colours, its sun the shading."""
    matrices = camera_from_world(scene.factors["camera"])
    focal = intrinsics(FOV_X_DEG, size.width_px, size.height_px)[0, 0]
    material = int(scene.factors["texture"].slots[0].material.rpartition("_")[2])
    sun = scene.factors["lighting"].suns[0].to_light
    pose = np.linalg.inv(matrices[index])
    arrays = raycast.render(raycast.World(), focal, size.width_px, size.height_px, pose, material, sun)
    return Frame(arrays["rgba"], arrays["depth_z"], arrays["normal"], arrays["instance"], arrays["position"])


def write_dataset(
    out: Path,
    attribute: str,
    size: Size,
    *,
    write: WriteSettings,
    scenes: Sequence[int] | None = None,
    isolation: Mapping[str, float | None] | None = None,
    finalised: bool = True,
) -> Path:
    """Write the dataset ``<attribute>_00`` with the given scenes (default: all); return its folder."""
    folder = open_for_writing(make_config(attribute, size, write), out, 0)
    for index in range(size.scenes) if scenes is None else scenes:
        scene = make_scene(attribute, index, size)
        record = {"blender": "5.0.1", "device": "cpu", "quality": "draft", "render": {}, "write": {}}
        with SceneWriter(folder, scene, size.width_px, size.height_px, write, record) as writer:
            for frame in range(size.frames):
                writer.write_frame(frame, ray_cast_frame(scene, frame, size))
            writer.commit()
    if finalised:
        finalise(folder, materials(size), isolation_record(isolation) if isolation else None)
    return folder


def materials(size: Size) -> list[dict[str, str]]:
    """Return records of all materials the scenes use."""
    ceramic = [
        {
            "name": f"ceramic_{i:02d}",
            "category": "ceramic",
            "license": "CC0-1.0",
            "source": "procedural",
            "identity": f"ceramic_{i:02d}",
        }
        for i in range(size.scenes)
    ]
    wood = {"name": "wood_03", "category": "wood", "license": "CC BY 4.0", "source": "a <scan>", "identity": "wood_030"}
    return [*ceramic, wood]


def isolation_record(relative: Mapping[str, float | None]) -> dict[str, Any]:
    """Return what the verify stage stores in dataset.json."""
    return {
        "reference": "everything",
        "scenes": 12,
        "spread": {name: 2 * (value or 0.0) for name, value in relative.items()},
        "reference_spread": dict.fromkeys(relative, 2.0),
        "relative": dict(relative),
    }
