"""Scenes of the generator, in folders or archives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.exr import decode_exr, decode_intact_exr
from megasynth_attr.core.files import StoredFile, sha256_of
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.reader import SceneData, View
from megasynth_attr.dataset.scene_files import size_and_time
from megasynth_train.data.frames import check_camera, check_depth, over_background


def read_scene(folder: Path) -> tuple[str, int, tuple[int, int]]:
    """Return a scene's digest, number of views and (height, width); DatasetError naming what is missing or wrong."""
    data = SceneData(folder)
    file = data.file(paths.SCENE_FILE)
    if not file.is_file():
        raise DatasetError(f"{file} is missing; {RENDER_ANEW}")
    size = data.cameras["height_px"], data.cameras["width_px"]
    for i, pose in enumerate(data.camera_from_world):
        check_camera(data.intrinsics, pose, size, f"{folder / paths.CAMERAS_FILE}, view {i}")
    return sha256_of(file), len(data.camera_from_world), size


def read_views(folder: Path) -> list[OurView]:
    """Return all views of a scene; nothing but its cameras is read."""
    scene = SceneData(folder)
    return [OurView(scene, view) for view in scene.views]


@dataclass(frozen=True)
class OurView:
    """One view of a scene of the generator; a ``StoredFrame``."""

    scene: SceneData
    view: View

    @property
    def picture(self) -> StoredFile:
        return self.view.file("rgb")

    @property
    def image_size_hw(self) -> tuple[int, int]:
        return self.view.height_px, self.view.width_px

    @property
    def intrinsics(self) -> np.ndarray:
        return self.view.intrinsics

    @property
    def camera_from_world(self) -> np.ndarray:
        return self.view.camera_from_world

    def decode(self) -> tuple[np.ndarray, np.ndarray]:
        rgb, depth_z = over_background(self.view.picture), self.view.depth_by(self._decode_exr)
        return rgb, check_depth(depth_z, self.scene.path / self._names[1])

    def stamp(self) -> str:
        """Return what checksums.json says of both files, with their sizes and times; neither is read."""
        try:
            files = [(self.scene.checksums[name].sha256, *size_and_time(self.scene.file(name))) for name in self._names]
        except (OSError, DatasetError, KeyError):  # reading will name what is wrong
            return ""
        return f"ours|{files}"

    def is_intact(self) -> bool:
        try:
            return not any(self.scene.change(name) for name in self._names)
        except (OSError, DatasetError):  # it has just gone
            return False

    @property
    def _names(self) -> list[str]:
        return [paths.layer_file(layer, self.view.index) for layer in ("rgb", "depth")]

    def _decode_exr(self, content: bytes) -> dict[str, np.ndarray]:
        try:
            written = self.scene.checksums[self._names[1]].sha256
        except (DatasetError, KeyError):  # nothing else needs that file
            written = ""
        return (decode_intact_exr if hashlib.sha256(content).hexdigest() == written else decode_exr)(content)
