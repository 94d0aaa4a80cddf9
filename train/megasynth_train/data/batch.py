"""The data of one step on its way from a loader process to the device: decoded files and the drawn numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from megasynth_attr.core.errors import DatasetError
from megasynth_train.data.colour import Jitter
from megasynth_train.data.frames import FrameArrays
from megasynth_train.data.plan import Sampling, StepPlan
from megasynth_train.data.scene import BadScene
from megasynth_train.data.windows import crop_window


@dataclass(frozen=True)
class RawBatch:
    """B scenes of S views, not yet cropped, resized or normalised.

    One tensor per scene, because scenes may differ in size: ``images_u8`` [S, H, W, 3] uint8, ``depth_z`` [S, H, W]
    float32. ``intrinsics`` [B, S, 3, 3] and ``camera_from_world`` [B, S, 4, 4] float64, of the source images.
    ``windows`` [B, S, 4] int64 (first row, first column, height, width) are scaled to the network's input of
    ``image_size_hw`` pixels. ``skipped``: scenes that could not be read and were replaced; ``reads``: scenes tried.
    """

    step: int
    image_size_hw: tuple[int, int]
    images_u8: tuple[Tensor, ...]
    depth_z: tuple[Tensor, ...]
    intrinsics: Tensor
    camera_from_world: Tensor
    windows: np.ndarray
    jitter: Jitter
    names: tuple[str, ...]
    views: tuple[tuple[int, ...], ...]
    skipped: tuple[BadScene, ...]
    reads: int

    def pin_memory(self) -> RawBatch:
        """Return the same batch in page-locked memory; called by torch's loader."""
        return self._moved(Tensor.pin_memory)

    def to(self, device: torch.device | str) -> RawBatch:
        """Return the same batch with its tensors on ``device``; does not wait if the memory is page-locked."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def _moved(self, move: Callable[[Tensor], Tensor]) -> RawBatch:
        return replace(
            self,
            images_u8=tuple(map(move, self.images_u8)),
            depth_z=tuple(map(move, self.depth_z)),
            intrinsics=move(self.intrinsics),
            camera_from_world=move(self.camera_from_world),
        )


def load_step(sampling: Sampling, step: int) -> RawBatch:
    """Return the batch of a step, read from disk.

    A scene that cannot be read raises its DatasetError, or with ``on_bad_file=skip`` is replaced as
    ``Sampling.replacement`` draws; DatasetError if no scene is left to draw.
    """
    plan, scenes = sampling.plan(step), sampling.scenes
    frames: list[list[FrameArrays]] = []
    chosen, views = list(plan.scenes), list(plan.views)
    unreadable: dict[int, BadScene] = {}
    for slot in range(len(chosen)):
        while True:
            scene = scenes[chosen[slot]]
            try:
                frames.append(scene.read_views(views[slot]))
                break
            except DatasetError as error:
                if sampling.settings.on_bad_file != "skip":
                    raise
                unreadable[chosen[slot]] = BadScene(scene.name, str(error))
                other = sampling.replacement(plan, slot, unreadable)
                if other is None:
                    raise DatasetError(f"none of the {len(scenes)} scenes could be read; the last: {error}") from None
                chosen[slot], views[slot] = other
    return RawBatch(
        step=plan.step,
        image_size_hw=plan.image_size_hw,
        images_u8=tuple(torch.from_numpy(np.stack([f.rgb for f in of_scene])) for of_scene in frames),
        depth_z=tuple(torch.from_numpy(np.stack([f.depth_z for f in of_scene])) for of_scene in frames),
        intrinsics=torch.from_numpy(np.stack([[f.intrinsics for f in of_scene] for of_scene in frames])),
        camera_from_world=torch.from_numpy(np.stack([[f.camera_from_world for f in of_scene] for of_scene in frames])),
        windows=_windows(plan, frames),
        jitter=plan.jitter,
        names=tuple(scenes[i].name for i in chosen),
        views=tuple(views),
        skipped=tuple(unreadable.values()),
        reads=len(chosen) + len(unreadable),
    )


def _windows(plan: StepPlan, frames: Sequence[Sequence[FrameArrays]]) -> np.ndarray:
    """Return [B, S, 4]: the planned crop and zoom of every frame around its own principal point."""
    windows = [
        crop_window(
            (frame.depth_z.shape[0], frame.depth_z.shape[1]),
            (frame.intrinsics[0, 2], frame.intrinsics[1, 2]),
            plan.image_size_hw,
            tuple(plan.crops[b, s]),
            plan.zooms[b, s],
        )
        for b, of_scene in enumerate(frames)
        for s, frame in enumerate(of_scene)
    ]
    return np.array(windows, dtype=np.int64).reshape(*plan.zooms.shape, 4)
