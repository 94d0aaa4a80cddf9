"""The data of one step on its way from a loader process to the device: decoded files and the drawn numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megasynth_attr.core.errors import DatasetError
from megasynth_train.data.cache import FrameCache
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

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process is sent: pixels in one piece of shared memory.

        torch would send every tensor in a piece of its own, and the receiver asks the sender for each of them.
        """
        pixels = [*self.depth_z, *self.images_u8]  # the larger type first: each part begins at a multiple of its size
        sizes = [tensor.nbytes for tensor in pixels]
        shared = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(sum(sizes)))
        for part, tensor in zip(shared.split(sizes), pixels, strict=True):
            part.view(tensor.dtype).view(tensor.shape).copy_(tensor)
        return vars(self) | {
            "images_u8": [tensor.shape for tensor in self.images_u8],
            "depth_z": [tensor.shape for tensor in self.depth_z],
            "intrinsics": self.intrinsics.numpy(),
            "camera_from_world": self.camera_from_world.numpy(),
            "shared": shared,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        shared = state.pop("shared")
        for key, dtype in (("depth_z", torch.float32), ("images_u8", torch.uint8)):
            shapes = state[key]
            sizes = [shape.numel() * dtype.itemsize for shape in shapes]
            *parts, shared = shared.split([*sizes, shared.numel() - sum(sizes)])
            state[key] = tuple(part.view(dtype).view(shape) for part, shape in zip(parts, shapes, strict=True))
        for key in ("intrinsics", "camera_from_world"):
            state[key] = torch.from_numpy(state[key])
        vars(self).update(state)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> RawBatch:
        return replace(
            self,
            images_u8=tuple(map(move, self.images_u8)),
            depth_z=tuple(map(move, self.depth_z)),
            intrinsics=move(self.intrinsics),
            camera_from_world=move(self.camera_from_world),
        )


def load_step(sampling: Sampling, step: int, cache: FrameCache | None = None) -> RawBatch:
    """Return the batch of a step, read from disk or ``cache``.

    A scene that cannot be read raises its DatasetError, or with ``on_bad_file=skip`` is replaced as
    ``Sampling.replacement`` draws; DatasetError if no scene is left to draw.
    """
    plan, scenes = sampling.plan(step), sampling.scenes
    read: list[_SceneViews] = []
    chosen, views = list(plan.scenes), list(plan.views)
    unreadable: dict[int, BadScene] = {}
    for slot in range(len(chosen)):
        while True:
            scene = scenes[chosen[slot]]
            try:
                read.append(_SceneViews(scene.each_view(views[slot], cache), len(views[slot])))
                if not read[-1].depth_z.any():
                    del read[-1]
                    raise DatasetError(f"{scene.folder}: none of the views {list(views[slot])} has a valid depth")
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
        images_u8=tuple(torch.from_numpy(of_scene.images_u8) for of_scene in read),
        depth_z=tuple(torch.from_numpy(of_scene.depth_z) for of_scene in read),
        intrinsics=torch.from_numpy(np.stack([of_scene.intrinsics for of_scene in read])),
        camera_from_world=torch.from_numpy(np.stack([of_scene.camera_from_world for of_scene in read])),
        windows=_windows(plan, read),
        jitter=plan.jitter,
        names=tuple(scenes[i].name for i in chosen),
        views=tuple(views),
        skipped=tuple(unreadable.values()),
        reads=len(chosen) + len(unreadable),
    )


class _SceneViews:
    """The views of one scene: [S, …], as in ``RawBatch``. Frames are taken one by one, as fresh memory is slow."""

    images_u8: np.ndarray
    depth_z: np.ndarray

    def __init__(self, frames: Iterable[FrameArrays], count: int) -> None:
        intrinsics, camera_from_world = [], []
        for i, frame in enumerate(frames):
            if i == 0:
                self.images_u8 = np.empty((count, *frame.rgb.shape), np.uint8)
                self.depth_z = np.empty((count, *frame.depth_z.shape), np.float32)
            self.images_u8[i], self.depth_z[i] = frame.rgb, frame.depth_z
            intrinsics.append(frame.intrinsics)
            camera_from_world.append(frame.camera_from_world)
        self.intrinsics, self.camera_from_world = np.stack(intrinsics), np.stack(camera_from_world)


def _windows(plan: StepPlan, read: Sequence[_SceneViews]) -> np.ndarray:
    """Return [B, S, 4]: the planned crop and zoom of every frame around its own principal point."""
    windows = [
        crop_window(
            (of_scene.depth_z.shape[1], of_scene.depth_z.shape[2]),
            (intrinsics[0, 2], intrinsics[1, 2]),
            plan.image_size_hw,
            tuple(plan.crops[b, s]),
            plan.zooms[b, s],
        )
        for b, of_scene in enumerate(read)
        for s, intrinsics in enumerate(of_scene.intrinsics)
    ]
    return np.array(windows, dtype=np.int64).reshape(*plan.zooms.shape, 4)
