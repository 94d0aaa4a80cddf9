"""What a view shows of a scene, read once for every format: sampled points, cameras, small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from megasynth_attr.core.pages.clouds import Cloud
from megasynth_attr.core.pages.figures import evenly
from megasynth_attr.dataset.reader import SceneData
from megasynth_attr.dataset.space import joined, view_points


@dataclass(frozen=True)
class ShownScene:
    """One scene: F of its views, in order. Lengths in scene units, pixels as in cameras.json."""

    name: str
    hashes: dict[str, str]  # factor → SHA-256 of its data
    frames: tuple[int, ...]
    all_frames: int
    width_px: int
    height_px: int
    intrinsics: np.ndarray  # 3×3
    camera_from_world: np.ndarray  # F×4×4, OpenCV
    cloud: Cloud
    pictures: tuple[Image.Image, ...]  # RGBA, straight alpha; smaller than the frames

    @property
    def fov_x_deg(self) -> float:
        return float(np.degrees(2 * np.arctan(0.5 * self.width_px / self.intrinsics[0, 0])))


def read_scenes(
    scenes: Sequence[SceneData], points: int, frames: int, picture_px: int, progress: bool = True
) -> list[ShownScene]:
    """Return what is shown of ``scenes``: at most ``frames`` views each, with at most ``points`` points in all.

    The longer side of a picture has at most ``picture_px`` pixels. DatasetError for a file that is missing or damaged.
    """
    chosen = [evenly(len(scene.views), min(frames, points)) for scene in scenes]
    with tqdm(total=sum(map(len, chosen)), desc="view", unit="frame", disable=not progress) as bar:
        return [_read(*one, points, picture_px, bar) for one in zip(scenes, chosen, strict=True)]


def _read(scene: SceneData, frames: Sequence[int], points: int, picture_px: int, bar: Any) -> ShownScene:
    clouds, pictures = [], []
    for view in (scene.views[i] for i in frames):
        picture = view.picture
        rgb = np.asarray(picture)[..., :3]
        share = points // len(frames)
        clouds.append(view_points(view.depth_z, rgb, view.intrinsics, view.camera_from_world, share))
        pictures.append(_smaller(picture, picture_px))
        bar.update()
    return ShownScene(
        name=scene.name,
        hashes=scene.scene.hashes(),
        frames=tuple(frames),
        all_frames=len(scene.views),
        width_px=scene.cameras["width_px"],
        height_px=scene.cameras["height_px"],
        intrinsics=scene.intrinsics,
        camera_from_world=scene.camera_from_world[list(frames)],
        cloud=joined(clouds),
        pictures=tuple(pictures),
    )


def _smaller(picture: Image.Image, longest_px: int) -> Image.Image:
    scale = min(1, longest_px / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
