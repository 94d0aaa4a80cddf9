"""One scene on disk, of either layout, as training uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import sha256_of
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.reader import SceneData
from megasynth_train.data import paper_layout
from megasynth_train.data.frames import FrameArrays, check_camera, check_depth, over_background

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
        return (_read_ours if self.layout == OURS else paper_layout.read_frames)(self.folder, views)


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


def _read_ours(folder: Path, views: Sequence[int]) -> list[FrameArrays]:
    frames = SceneData(folder).views
    return [
        FrameArrays(
            over_background(frames[view].image, frames[view].file("rgb")),
            check_depth(frames[view].depth_z, frames[view].file("depth")),
            frames[view].intrinsics,
            frames[view].camera_from_world,
        )
        for view in views
    ]
