"""Cameras as matrices and as the nine numbers the network predicts, and points from depth.

Camera frame (OpenCV): x right, y down, z forward. ``camera_from_world`` = [R|t] takes world to camera coordinates.
Pixel frame: u right, v down, origin at the corner of the image, so the image's middle is (W/2, H/2) and, in our own
data, the first pixel's centre is (0.5, 0.5) (``pixel_centre=0.5``). The released VGGT code puts that centre at (0, 0)
while keeping cx = W/2; ``pixel_centre=0.0`` reproduces it.

The pose encoding: translation (3), quaternion x, y, z, w (4), vertical and horizontal field of view in
radians (2, **vertical first**). The principal point is not encoded; decoding puts it in the middle of the image.

Nothing here waits for the device: the host reads no value. Products are written out, because a float32 matrix product
may run in TF32 on a GPU, which keeps three digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_FOV_RAD = 1e-3  # 0.06°: narrower than any lens, and its focal length (about 5e5 px) is harmless in fp32


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras: ``camera_from_world`` [..., 4, 4] and ``intrinsics`` [..., 3, 3] in pixels, zero skew."""

    camera_from_world: Tensor
    intrinsics: Tensor


def encode_pose(camera_from_world: Tensor, intrinsics: Tensor, image_size_hw: tuple[int, int]) -> Tensor:
    """Return the pose encoding [..., 9] of cameras given as [..., 4, 4] or [..., 3, 4] and [..., 3, 3] (pixels).

    The quaternion has length 1 and w >= 0. Its sign is arbitrary at w = 0, a half turn.
    """
    height_px, width_px = image_size_hw
    quaternion = quaternion_from_rotation(camera_from_world[..., :3, :3])
    fov_h_rad = 2.0 * torch.atan(0.5 * height_px / intrinsics[..., 1, 1])
    fov_w_rad = 2.0 * torch.atan(0.5 * width_px / intrinsics[..., 0, 0])
    fov_rad = torch.stack([fov_h_rad, fov_w_rad], dim=-1)
    return torch.cat([camera_from_world[..., :3, 3], quaternion, fov_rad], dim=-1)


def decode_pose(encoding: Tensor, image_size_hw: tuple[int, int]) -> Cameras:
    """Return the cameras of a pose encoding [..., 9] for images of ``image_size_hw`` pixels.

    Every finite encoding gives finite cameras: the quaternion may have any length (length 0 gives the identity), and
    fields of view are held within [MIN_FOV_RAD, π - MIN_FOV_RAD], because the network's last ReLU may give 0, which
    would be an infinite focal length.
    """
    height_px, width_px = image_size_hw
    fov_rad = encoding[..., 7:9].clamp(MIN_FOV_RAD, math.pi - MIN_FOV_RAD)
    tan_half_y, tan_half_x = torch.tan(0.5 * fov_rad).unbind(-1)
    focal_y_px, focal_x_px = 0.5 * height_px / tan_half_y, 0.5 * width_px / tan_half_x
    zero, one = torch.zeros_like(focal_x_px), torch.ones_like(focal_x_px)
    rows = [focal_x_px, zero, one * 0.5 * width_px, zero, focal_y_px, one * 0.5 * height_px, zero, zero, one]
    intrinsics = torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    return Cameras(rigid(rotation_from_quaternion(encoding[..., 3:7]), encoding[..., :3]), intrinsics)


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """Return [[R, t], [0, 1]] of shape [..., 4, 4] from R [..., 3, 3] and t [..., 3]."""
    upper = torch.cat([rotation, translation.unsqueeze(-1)], dim=-1)  # [..., 3, 4]
    last = torch.zeros_like(upper[..., :1, :])
    last[..., 3] = 1.0
    return torch.cat([upper, last], dim=-2)


def invert_pose(pose: Tensor) -> Tensor:
    """Return the inverse [..., 4, 4] of rigid transforms [..., 4, 4] or [..., 3, 4]; R is taken to be a rotation.

    Closed form: a general matrix inverse on a GPU waits for an error code.
    """
    backwards = pose[..., :3, :3].transpose(-1, -2)  # R^T
    return rigid(backwards, -(backwards * pose[..., None, :3, 3]).sum(-1))


def quaternion_from_rotation(rotation: Tensor) -> Tensor:
    """Return unit quaternions [..., 4] (x, y, z, w; w >= 0) of rotations [..., 3, 3].

    Each of the four components can be read off the diagonal, the other three then follow by division. All four ways
    are computed and the one that divides by the largest component is taken, which is at least 1/2.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rotation.flatten(-2).unbind(-1)
    four_squares = torch.stack(  # 4x², 4y², 4z², 4w²
        [1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22, 1 + m00 + m11 + m22], dim=-1
    )
    xx, yy, zz, ww = four_squares.unbind(-1)
    xy, xz, yz = m10 + m01, m02 + m20, m21 + m12  # 4xy, 4xz, 4yz
    xw, yw, zw = m21 - m12, m02 - m20, m10 - m01  # 4xw, 4yw, 4zw
    products = torch.stack([xx, xy, xz, xw, xy, yy, yz, yw, xz, yz, zz, zw, xw, yw, zw, ww], dim=-1).unflatten(
        -1, (4, 4)
    )  # [..., c, 4]: the quaternion times four times its component c
    largest, component = four_squares.max(dim=-1, keepdim=True)  # [..., 1]
    chosen = products.gather(-2, component.unsqueeze(-1).expand(*component.shape, 4)).squeeze(-2)
    quaternion = chosen / (2.0 * torch.sqrt(largest))
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def rotation_from_quaternion(quaternion: Tensor) -> Tensor:
    """Return rotations [..., 3, 3] of quaternions [..., 4] (x, y, z, w) of any length; length 0 gives the identity."""
    tiny = torch.finfo(quaternion.dtype).tiny
    quaternion = quaternion / quaternion.abs().amax(-1, keepdim=True).clamp_min(tiny)  # squares stay representable
    x, y, z, w = quaternion.unbind(-1)
    s = 2.0 / quaternion.square().sum(-1).clamp_min(tiny)
    rows = [
        *(1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        *(s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        *(s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def unproject(
    depth_z: Tensor, intrinsics: Tensor, camera_from_world: Tensor | None = None, *, pixel_centre: float = 0.5
) -> Tensor:
    """Return the points [..., H, W, 3] at depth ``depth_z`` [..., H, W] along the optical axis.

    They are in camera coordinates, or in world coordinates if ``camera_from_world`` ([..., 4, 4] or [..., 3, 4]) is
    given, in the unit of ``depth_z``. ``intrinsics`` [..., 3, 3] in pixels; skew is ignored. ``pixel_centre``: where
    the middle of the first pixel lies. Pixels without depth (0) give the camera's centre: use the mask.
    """
    ray_x, ray_y = pixel_rays(intrinsics, (depth_z.shape[-2], depth_z.shape[-1]), pixel_centre)
    points = torch.stack([ray_x.unsqueeze(-2) * depth_z, ray_y.unsqueeze(-1) * depth_z, depth_z], dim=-1)
    if camera_from_world is None:
        return points
    x, y, z = (points - camera_from_world[..., None, None, :3, 3]).unbind(-1)
    r = camera_from_world[..., None, None, :3, :3]
    world = [x * r[..., 0, i] + y * r[..., 1, i] + z * r[..., 2, i] for i in range(3)]  # R^T (x - t)
    return torch.stack(world, dim=-1)


def pixel_rays(intrinsics: Tensor, image_size_hw: tuple[int, int], pixel_centre: float) -> tuple[Tensor, Tensor]:
    """Return x/z [..., W] of every column and y/z [..., H] of every row of cameras without skew."""
    height_px, width_px = image_size_hw
    columns = torch.arange(width_px, device=intrinsics.device, dtype=intrinsics.dtype) + pixel_centre
    rows = torch.arange(height_px, device=intrinsics.device, dtype=intrinsics.dtype) + pixel_centre
    ray_x = (columns - intrinsics[..., 0, 2, None]) / intrinsics[..., 0, 0, None]
    ray_y = (rows - intrinsics[..., 1, 2, None]) / intrinsics[..., 1, 1, None]
    return ray_x, ray_y
