"""The network's gauge: world = first camera, mean distance of the visible points = 1.

Predictions are not aligned before the loss, so this is what the network must output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from megasynth_train.data.geometry import invert_pose, pixel_rays, rigid

_COUNT_OFFSET = 1e-3  # the released divisor: a scene without valid pixels gets scale 0, clamped, instead of 0/0
_SCALE_LIMITS = (1e-6, 1e6)


@dataclass(frozen=True)
class Normalised:
    """Depth [B, S, H, W] (0 where invalid) and the translation of camera_from_world [B, S, 4, 4], both divided by
    ``scale`` [B]; float32, ``scale`` in scene units."""

    depth: Tensor
    camera_from_world: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Target:
    """What the losses compare with: B scenes of S views of H x W pixels in the network's gauge, on one device.

    ``images`` [B, S, 3, H, W] float32 in [0, 1]; ``depth`` [B, S, H, W] float32, z, 0 where invalid; ``masks``
    [B, S, H, W] bool, where depth is known; ``camera_from_world`` [B, S, 4, 4] float32, OpenCV; ``intrinsics``
    [B, S, 3, 3] float32, pixels; ``scale`` [B] float32: scene units per unit of the gauge.
    """

    images: Tensor
    depth: Tensor
    masks: Tensor
    camera_from_world: Tensor
    intrinsics: Tensor
    scale: Tensor

    @property
    def image_size_hw(self) -> tuple[int, int]:
        """Return (H, W) in pixels."""
        return self.images.shape[-2], self.images.shape[-1]


def normalise(
    depth_z: Tensor, masks: Tensor, intrinsics: Tensor, camera_from_world: Tensor, pixel_centre: float = 0.5
) -> Normalised:
    """Return depth and poses with the world at the first camera and the valid points' mean distance from it 1.

    ``depth_z`` [B, S, H, W] and ``masks`` (bool, same shape), ``intrinsics`` [B, S, 3, 3] in pixels,
    ``camera_from_world`` [B, S, 4, 4] or [B, S, 3, 4], best as float64. scale = sum |X| / (number of valid pixels +
    1e-3), held within [1e-6, 1e6]. Infinite or NaN results become 0, as in the released code.

    No point map is made: in the first camera's frame a point is X = R^T (x - t) with x its camera coordinates, and
    rotations keep lengths, so |X| = |x - t|. Poses are composed in float64, so that a world origin far from the
    scene costs no accuracy; pixels are float32. Nothing waits for the device.
    """
    poses = camera_from_world.to(torch.float64)
    relative = rigid(poses[..., :3, :3], poses[..., :3, 3]) @ invert_pose(poses[:, :1])  # [B, S, 4, 4]
    invalid = ~masks
    depth_z = depth_z.to(torch.float32).masked_fill(invalid, 0.0)
    offset = relative[..., :3, 3].to(torch.float32)[..., None, None]  # [B, S, 3, 1, 1]
    size_hw = (depth_z.shape[-2], depth_z.shape[-1])
    ray_x, ray_y = pixel_rays(intrinsics.to(torch.float32), size_hw, pixel_centre)  # [B, S, W], [B, S, H]
    squared = (ray_x.unsqueeze(-2) * depth_z - offset[:, :, 0]).square()
    squared += (ray_y.unsqueeze(-1) * depth_z - offset[:, :, 1]).square()
    squared += (depth_z - offset[:, :, 2]).square()  # [B, S, H, W]
    distances = squared.sqrt().masked_fill(invalid, 0.0).sum(dim=(1, 2, 3))  # [B]
    scale = (distances / (masks.sum(dim=(1, 2, 3)) + _COUNT_OFFSET)).clamp(*_SCALE_LIMITS)
    translation = relative[..., :3, 3] / scale[:, None, None]
    return Normalised(
        depth=_finite(depth_z / scale[:, None, None, None]),
        camera_from_world=_finite(rigid(relative[..., :3, :3], translation).to(torch.float32)),
        scale=scale,
    )


def _finite(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
