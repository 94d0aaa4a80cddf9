"""One scene on disk, of any layout, as training and evaluation use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from megasynth_train.data.cache import FrameCache
from megasynth_train.data.frames import FrameArrays, StoredFrame
from megasynth_train.data.layouts import ours
from megasynth_train.data.layouts.choose import LAYOUTS, OURS
from megasynth_train.data.layouts.view import Reading, SceneViews

_KEPT = 32  # scenes whose cameras a process remembers


@dataclass(frozen=True)
class TrainingScene:
    """One scene on disk, of any layout. Small: files are opened when views are read."""

    name: str  # <dataset or category>/<scene>
    folder: Path  # or archive
    layout: str  # OURS or the name of another layout
    identity: str  # hashed for the split: the hash of scene.json, or the name in other layouts
    digest: str  # SHA-256 of scene.json or of the cameras
    view_count: int
    image_size_hw: tuple[int, int]
    reading: Reading = Reading()
    skipped: tuple[str, ...] = ()  # what was left out of it, and why

    def read_views(self, views: Sequence[int]) -> list[FrameArrays]:
        """Return these views in this order; DatasetError naming the file that is missing or damaged."""
        return list(self.each_view(views))

    def each_view(self, views: Sequence[int], cache: FrameCache | None = None) -> Iterator[FrameArrays]:
        """Yield what ``read_views`` returns, one by one, taken from ``cache`` where that has it."""
        stored = self.stored_views()
        for frame in (stored[view] for view in views):
            rgb, depth_z = frame.decode() if cache is None else cache.read(frame)
            yield FrameArrays(rgb, depth_z, frame.intrinsics, frame.camera_from_world)

    def stored_views(self) -> Sequence[StoredFrame]:
        """Return all views, not decoded: pictures, cameras, and what reads them."""
        if self.layout == OURS:
            return ours.read_views(self.folder)
        return _read(self.layout, self.folder, self.reading, self.digest).views


@dataclass(frozen=True)
class BadScene:
    """A scene that could not be read; the reason names the file."""

    scene: str
    reason: str


def our_scene(name: str, folder: Path) -> TrainingScene:
    """Return a scene of the generator; DatasetError naming what is missing or wrong with its cameras."""
    digest, views, size = ours.read_scene(folder)
    return TrainingScene(name, folder, OURS, digest, digest, views, size)


def outside_scene(layout: str, folder: Path, reading: Reading) -> TrainingScene:
    """Return a scene folder of another layout; DatasetError naming what is wrong with it."""
    scene = LAYOUTS[layout].read(folder, reading)
    digest = LAYOUTS[layout].digest(folder, scene)
    name = f"{folder.parent.name}/{folder.name}"
    size = scene.views[0].image_size_hw
    return TrainingScene(name, folder, layout, name, digest, len(scene.views), size, reading, scene.skipped)


@lru_cache(maxsize=_KEPT)
def _read(layout: str, folder: Path, reading: Reading, digest: str) -> SceneViews:
    """Return a scene's views. ``digest`` only tells scenes apart whose files changed since the last look."""
    return LAYOUTS[layout].read(folder, reading)
