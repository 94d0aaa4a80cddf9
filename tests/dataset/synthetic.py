"""A small dataset of ray-cast frames, written through the package's own writer; no Blender."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import raycast
from scipy.spatial.transform import Rotation

from megasynth_attr.core.codec import rounded
from megasynth_attr.dataset.writer import SceneWriter, finalise, open_for_writing
from megasynth_attr.scene.config import Config, resolve
from megasynth_attr.scene.frame import Frame, camera_from_world
from megasynth_attr.scene.spec import (
    Box,
    Camera,
    Geometry,
    Lighting,
    Primitive,
    Scene,
    SlotMaterial,
    Texture,
)

WIDTH, HEIGHT, FRAMES, SCENES, FOV_DEG = 70, 56, 6, 3, 55.0
WORLD = raycast.World()
WORDS = (
    "preset=texture",
    f"render.width_px={WIDTH}",
    f"render.height_px={HEIGHT}",
    f"frames={FRAMES}",
    f"scene_count={SCENES}",
    "dataset_count=1",
)
ALL_LAYERS = ("write.normal=true", "write.instance=true", "write.position=true")
MATERIALS = [
    {"name": name, "category": "stone", "license": "CC0", "source": "test", "identity": name * 8}
    for name in ("basalt", "gneiss", "granite", "never_used")
]


def config(*words: str) -> Config:
    """Return the settings of the synthetic dataset, with ``words`` on top."""
    return resolve([*WORDS, *words]).members[0]


def scene(settings: Config, scene_index: int, poses: list[np.ndarray] | None = None) -> Scene:
    """Return a scene whose texture alone depends on ``scene_index``."""
    matrices = np.array(raycast.orbit(settings.content.frames) if poses is None else poses)
    names = ("basalt", "gneiss", "granite")
    material = names[scene_index % len(names)]
    primitive = Primitive("ellipsoid", 0, (1.0,) * 3, (0.0, 0.0, 0.0, 1.0), (0.0,) * 3, ((),), False, "material", 0)
    return Scene(
        attribute=settings.attribute,
        dataset_index=0,
        scene_index=scene_index,
        root_seed=settings.content.seed,
        noise_seed=7,
        factors={
            "geometry": Geometry(
                layout="objects",
                extent=(12.0, 12.0, 12.0),
                boxes=(Box("large", (6.0, 6.0, 6.0), (4.0, 4.0, 4.0)),),
                primitives=(primitive,) * (2 + len(WORLD.spheres)),
                window=None,
                tessellation=8,
                scale=0.1,
                centre=(6.0, 6.0, 6.0),
                dropped_boxes=0,
                attempts=1,
            ),
            "texture": Texture((SlotMaterial(material, None, None),), {material: material * 8}, None, 0.0, None),
            "camera": Camera(
                family="orbit",
                fov_x_deg=FOV_DEG,
                positions=rounded(matrices[:, :3, 3]),
                world_from_camera_xyzw=rounded(Rotation.from_matrix(matrices[:, :3, :3]).as_quat()),
            ),
            "lighting": Lighting((0.6, 0.6, 0.6), 1.0, (), (), (), None),
        },
    )


def frames(settings: Config, spec: Scene, world: raycast.World = WORLD) -> Iterator[Frame]:
    """Yield the ray-cast frames of ``spec``; colours depend on the scene index, depth does not."""
    width, height = settings.render.width_px, settings.render.height_px
    focal_px = (width / 2) / np.tan(np.radians(spec.factors["camera"].fov_x_deg) / 2)
    for matrix in camera_from_world(spec.factors["camera"]):
        arrays = raycast.render(world, focal_px, width, height, np.linalg.inv(matrix), spec.scene_index)
        yield Frame(**arrays)


def write_scene(settings: Config, folder: Path, spec: Scene, world: raycast.World = WORLD) -> Path:
    """Write one scene and return its folder."""
    render = settings.render
    record = {"blender": "none: ray-cast test data", "quality": "exact"}
    with SceneWriter(folder, spec, render.width_px, render.height_px, settings.write, record) as writer:
        for index, frame in enumerate(frames(settings, spec, world)):
            writer.write_frame(index, frame)
        return writer.commit()


def write_dataset(settings: Config, out: Path, world: raycast.World = WORLD) -> Path:
    """Write all scenes, finalise, and return the dataset's folder."""
    folder = open_for_writing(settings, out, 0)
    for index in range(settings.content.scene_count):
        write_scene(settings, folder, scene(settings, index), world)
    finalise(folder, MATERIALS)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below ``folder`` by relative name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
