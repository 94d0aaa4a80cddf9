"""What is evaluated: scenes, their views, images as the network takes them and the truth at its own resolution.

The network's image is a whole-pixel window of the source, as in training without augmentation (data/windows.py): as
wide as possible, at most as high as wide, scaled to the network's size. The **truth is not resampled**: metrics are
computed at the window's source pixels, so models with different input sizes are measured against the same points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.ranges import Uniform
from megasynth_train.data.device import resize_images
from megasynth_train.data.frames import FrameArrays
from megasynth_train.data.scene import BadScene, TrainingScene
from megasynth_train.data.sizes import check_width
from megasynth_train.data.sources import TrainingData, open_sources
from megasynth_train.data.windows import crop_window, window_intrinsics
from megasynth_train.evaluate.options import EvaluateSettings
from megasynth_train.evaluate.protocols import PROTOCOLS
from megasynth_train.training.settings import DataSettings
from megasynth_train.vggt.config import VGGTConfig


@dataclass(frozen=True)
class View:
    """One true view, cut to the window the network sees; source pixels, the first one's centre at (0.5, 0.5)."""

    rgb: np.ndarray  # h×w×3 uint8
    depth_z: np.ndarray  # h×w float32, scene units, 0 where unknown
    intrinsics: np.ndarray  # 3×3
    camera_from_world: np.ndarray  # 4×4

    @property
    def valid(self) -> np.ndarray:
        """Return where the depth is known, h×w."""
        return self.depth_z > 0


@dataclass(frozen=True)
class SceneInput:
    """A scene ready for the network: ``images`` float32 [S, 3, H, W] in [0, 1], and S true views."""

    name: str
    view_ids: tuple[int, ...]
    images: Tensor
    truth: tuple[View, ...]


@dataclass(frozen=True)
class Selection:
    """The scenes to evaluate, those that cannot be opened, the fingerprint of the sources, and notes for the user."""

    scenes: tuple[TrainingScene, ...]
    unreadable: tuple[BadScene, ...]
    fingerprint: str  # of all the sources' scenes, selected or not
    notes: tuple[str, ...]


def select_scenes(settings: EvaluateSettings) -> Selection:
    """Return the scenes of ``settings``; ConfigError if none is left or two share a name."""
    share = 0.0 if settings.split == "all" else settings.validation_share
    data: TrainingData = open_sources(
        DataSettings(
            sources=settings.data,
            format=settings.format,
            depth_unit=settings.depth_unit,
            scaled_rotation=settings.scaled_rotation,
            scenes=settings.scenes,
            validation_share=share,
            views=Uniform(1, 1),  # any scene with a view can be evaluated
            images_per_step=1,
            on_bad_file="skip",
        )
    )
    scenes = data.validation if settings.split == "validation" else data.train
    if not scenes:
        raise ConfigError(
            f"split={settings.split} contains no scene with validation_share={share:g}; use split=all or another share"
        )
    scenes, notes = scenes[: settings.max_scenes or None], data.notes
    if protocol := PROTOCOLS.get(settings.protocol):
        scenes, of_protocol = protocol.choose(scenes)
        notes += of_protocol
    for first, second in pairwise(scenes):  # sorted by name
        if first.name == second.name:
            raise ConfigError(
                f"{first.folder} and {second.folder} have the same name {first.name}, so their results could not "
                "be told apart; evaluate their datasets one at a time"
            )
    return Selection(scenes, data.unreadable, data.fingerprint, notes)


def choose_views(count: int, settings: EvaluateSettings) -> tuple[int, ...]:
    """Return which of ``count`` views are evaluated; the first is the reference. Nothing is random.

    They are evenly spaced by default: ⌊i · count / views⌋, which leaves out the last views of a closed path, similar to
    the first. Raises DatasetError if a view of ``view_ids`` does not exist.
    """
    if settings.view_ids:
        if missing := [view for view in settings.view_ids if view >= count]:
            raise DatasetError(f"view {missing[0]} of view_ids= does not exist; the scene has {count} views")
        return settings.view_ids
    if settings.stride:
        return tuple(range(0, count, settings.stride))[: settings.views]
    wanted = min(settings.views, count)
    return tuple(i * count // wanted for i in range(wanted))


def read_scene(scene: TrainingScene, settings: EvaluateSettings, config: VGGTConfig) -> SceneInput:
    """Return a scene's images and truth; DatasetError naming what cannot be used."""
    view_ids = choose_views(scene.view_count, settings)
    frames = scene.read_views(view_ids)
    sizes = {frame.depth_z.shape for frame in frames}
    if len(sizes) > 1:
        raise DatasetError(f"{scene.folder} has images of different sizes ({sorted(sizes)}); they must be equal")
    height, width = frames[0].depth_z.shape
    target_hw = network_size((height, width), settings.width_px or config.image_size_px, config.patch_size_px)
    middles = [(frame.intrinsics[0, 2], frame.intrinsics[1, 2]) for frame in frames]
    windows = np.array([crop_window((height, width), middle, target_hw) for middle in middles], dtype=np.int64)  # S×4
    pictures = torch.from_numpy(np.stack([frame.rgb for frame in frames]))
    images = resize_images((pictures,), windows[None], target_hw)[0]
    return SceneInput(scene.name, view_ids, images, tuple(map(_cut, frames, windows)))


def network_size(source_hw: Sequence[int], width_px: int, patch_px: int) -> tuple[int, int]:
    """Return (height, width) in px of the network's input: the source's shape in whole patches, at most square."""
    check_width("width_px", width_px, patch_px)
    rows = round(width_px * source_hw[0] / source_hw[1] / patch_px)
    return min(max(rows, 1) * patch_px, width_px), width_px


def _cut(frame: FrameArrays, window: np.ndarray) -> View:
    y0, x0, height, width = window.tolist()
    inside = slice(y0, y0 + height), slice(x0, x0 + width)
    intrinsics = window_intrinsics(frame.intrinsics, window, (height, width))
    return View(frame.rgb[inside], frame.depth_z[inside], intrinsics, frame.camera_from_world)
