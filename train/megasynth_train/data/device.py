"""From decoded files to the network's input and target, on the device: crop, resize, colour jitter, masks, gauge.

Nothing here waits for the device: windows and indices are known on the host, which reads no result.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from megasynth_train.data.batch import RawBatch
from megasynth_train.data.colour import apply_jitter
from megasynth_train.data.windows import nearest_pixels, window_intrinsics
from megasynth_train.training.normalisation import Target, normalise
from megasynth_train.training.settings import DataSettings

_VALID_DEPTH = 1e-8


@torch.no_grad()
def prepare(raw: RawBatch, device: torch.device | str, settings: DataSettings) -> Target:
    """Return the images and what the losses compare with, on ``device``.

    Images are scaled to ``raw.image_size_hw`` by antialiased bicubic interpolation and jittered. Depth takes the
    nearest source pixel on the same grid: interpolation would invent surfaces between foreground and background.
    Pixels without depth, or with depth above ``settings.depth_quantile`` of their frame's, are masked. Intrinsics
    follow the windows exactly. Depth and poses are normalised (``normalise``).
    """
    intrinsics = window_intrinsics(raw.intrinsics.cpu().numpy(), raw.windows, raw.image_size_hw)
    raw = raw.to(device)
    images = apply_jitter(resize_images(raw.images_u8, raw.windows, raw.image_size_hw), raw.jitter)
    depth = resize_depth(near_depth(raw.depth_z, settings.depth_quantile), raw.windows, raw.image_size_hw)
    masks = depth > _VALID_DEPTH
    intrinsics_there = torch.from_numpy(intrinsics).to(device, torch.float32, non_blocking=True)
    result = normalise(depth, masks, intrinsics_there, raw.camera_from_world, settings.pixel_centre)
    return Target(images=images, masks=masks, intrinsics=intrinsics_there, **vars(result))


def resize_images(images_u8: tuple[Tensor, ...], windows: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
    """Return [B, S, 3, H, W] float32 in [0, 1]: the ``windows`` [B, S, 4] of B tensors [S, H0, W0, 3], scaled.

    A window of the target's size is taken as it is. The bicubic kernel overshoots at edges, hence the clamp.
    """
    count, views = windows.shape[:2]
    result = torch.empty((count, views, 3, *size_hw), device=images_u8[0].device)
    for images, of_scene, target in zip(images_u8, windows, result, strict=True):
        for window in np.unique(of_scene, axis=0):
            same = np.flatnonzero((of_scene == window).all(axis=1)).tolist()
            y0, x0, height, width = window.tolist()
            picked = images if len(same) == views else torch.stack([images[i] for i in same])
            part = picked[:, y0 : y0 + height, x0 : x0 + width].permute(0, 3, 1, 2).to(torch.float32) / 255
            if (height, width) != size_hw:
                part = functional.interpolate(part, size_hw, mode="bicubic", antialias=True).clamp_(0, 1)
            for i, image in zip(same, part, strict=True):
                target[i] = image
    return result


def resize_depth(depth_z: tuple[Tensor, ...], windows: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
    """Return [B, S, H, W]: in each pixel the depth of the source pixel in which its centre lies."""
    device = depth_z[0].device
    there = torch.from_numpy(windows).to(device, non_blocking=True)
    rows = nearest_pixels(there[..., 0], there[..., 2], size_hw[0])
    columns = nearest_pixels(there[..., 1], there[..., 3], size_hw[1])
    view = torch.arange(windows.shape[1], device=device)[:, None, None]
    return torch.stack([depth[view, rows[b, :, :, None], columns[b, :, None, :]] for b, depth in enumerate(depth_z)])


def near_depth(depth_z: tuple[Tensor, ...], quantile: float) -> tuple[Tensor, ...]:
    """Return [S, H, W] depth with 0 where it exceeds the ``quantile`` (nearest rank) of its frame's valid depth.

    The released code counts the background's zeros, too, and so cuts more of an object the smaller it is.
    """
    if quantile >= 1:
        return depth_z
    near = []
    for depth in depth_z:
        valid = depth > _VALID_DEPTH
        ordered = torch.where(valid, depth, torch.inf).flatten(1).sort(dim=1).values
        last = (valid.sum(dim=(1, 2)) - 1).clamp_min(0)
        threshold = ordered.gather(1, (last * quantile).round().long()[:, None])  # [S, 1]
        near.append(torch.where(depth <= threshold[..., None], depth, 0.0))
    return tuple(near)
