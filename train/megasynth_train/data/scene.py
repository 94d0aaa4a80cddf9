"""One scene on disk, of any layout, as training, evaluation and prediction use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from megasynth_attr.core.pages.words import listed
from megasynth_train.data.cache import FrameCache
from megasynth_train.data.frames import FrameArrays, StoredFrame
from megasynth_train.data.images import ImageFiles, image_files
from megasynth_train.data.layouts import ours
from megasynth_train.data.layouts.choose import LAYOUTS, layout_at
from megasynth_train.data.layouts.names import OURS
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
    has_depth: bool = True
    depth_unit: float = 0.0  # scene units per number in a depth file; 0: no choice

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
    unit = next((view.depth.unit for view in scene.views if view.depth), 0.0)
    return TrainingScene(
        name=name,
        folder=folder,
        layout=layout,
        identity=name,
        digest=digest,
        view_count=len(scene.views),
        image_size_hw=scene.views[0].image_size_hw,
        reading=reading,
        skipped=scene.skipped,
        has_depth=unit > 0,
        depth_unit=unit,
    )


def left_out(scenes: Iterable[TrainingScene]) -> list[str]:
    """Return one sentence for each kind of thing that scenes leave out, with the first scene that does."""
    kinds: dict[str, list[str]] = {}
    for scene in scenes:
        for reason in scene.skipped:
            kinds.setdefault(reason, []).append(scene.name)
    return [f"{reason} ({listed(names, 1)})" for reason, names in kinds.items()]


def scene_pictures(folder: Path, *, stride: int = 1, max_views: int = 0) -> ImageFiles:
    """Return the pictures of a scene in another layout, in its order, or else what ``image_files`` does; raises as
    that, and DatasetError for a scene that cannot be read.
    """
    layout = layout_at(folder)
    if layout is None:
        return image_files(folder, stride=stride, max_views=max_views)
    scene = layout.read(folder, Reading(needs_depth=False))
    used = [view.picture for view in scene.views][::stride]
    note = "".join(f"; {reason} left out" for reason in scene.skipped)
    note = f"pictures of a scene in {layout.title} layout{note}"
    return ImageFiles(tuple(used[: max_views or None]), note, turn=False)


@lru_cache(maxsize=_KEPT)
def _read(layout: str, folder: Path, reading: Reading, digest: str) -> SceneViews:
    """Return a scene's views. ``digest`` only tells scenes apart whose files changed since the last look."""
    return LAYOUTS[layout].read(folder, reading)
