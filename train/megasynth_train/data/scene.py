"""One scene on disk, of either layout, as training uses it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.exr import decode_exr, decode_intact_exr
from megasynth_attr.core.files import sha256_of
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.reader import SceneData, View
from megasynth_attr.dataset.scene_files import size_and_time
from megasynth_train.data import paper_layout
from megasynth_train.data.cache import FrameCache
from megasynth_train.data.frames import FrameArrays, StoredFrame, check_camera, check_depth, over_background

OURS, PAPER = "megasynth-attr", "paper"


@dataclass(frozen=True)
class TrainingScene:
    """One scene on disk, of either layout. Small: files are opened when views are read."""

    name: str  # <dataset or category>/<scene>
    folder: Path  # or archive
    layout: str  # OURS or PAPER
    identity: str  # hashed for the split: the hash of scene.json, or the name in the paper's layout
    digest: str  # SHA-256 of scene.json or opencv_cameras.json
    view_count: int
    image_size_hw: tuple[int, int]

    def read_views(self, views: Sequence[int]) -> list[FrameArrays]:
        """Return these views in this order; DatasetError naming the file that is missing or damaged."""
        return list(self.each_view(views))

    def each_view(self, views: Sequence[int], cache: FrameCache | None = None) -> Iterator[FrameArrays]:
        """Yield what ``read_views`` returns, one by one, taken from ``cache`` where that has it."""
        for frame in self._stored(views):
            rgb, depth_z = frame.decode() if cache is None else cache.read(frame)
            yield FrameArrays(rgb, depth_z, frame.intrinsics, frame.camera_from_world)

    def _stored(self, views: Sequence[int]) -> list[StoredFrame]:
        if self.layout == PAPER:
            frames = paper_layout.read_cameras(self.folder)
            return [frames[view] for view in views]
        scene = SceneData(self.folder)
        own = scene.views
        return [_OurFrame(scene, own[view]) for view in views]


@dataclass(frozen=True)
class BadScene:
    """A scene that could not be read; the reason names the file."""

    scene: str
    reason: str


def our_scene(name: str, folder: Path) -> TrainingScene:
    """Return a scene of the generator; DatasetError naming what is missing or wrong with its cameras."""
    data = SceneData(folder)
    file = data.file(paths.SCENE_FILE)
    if not file.is_file():
        raise DatasetError(f"{file} is missing; {RENDER_ANEW}")
    size = data.cameras["height_px"], data.cameras["width_px"]
    for i, pose in enumerate(data.camera_from_world):
        check_camera(data.intrinsics, pose, size, f"{folder / paths.CAMERAS_FILE}, view {i}")
    digest = sha256_of(file)
    return TrainingScene(name, folder, OURS, digest, digest, len(data.camera_from_world), size)


def paper_scene(name: str, folder: Path) -> TrainingScene:
    """Return a scene folder in the paper's layout; DatasetError naming what is wrong with its cameras."""
    frames = paper_layout.read_cameras(folder)
    digest = sha256_of(folder / paper_layout.CAMERAS_FILE)
    return TrainingScene(name, folder, PAPER, name, digest, len(frames), frames[0].image_size_hw)


@dataclass(frozen=True)
class _OurFrame:
    """One view of a scene of the generator; a ``StoredFrame``."""

    scene: SceneData
    view: View

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
