"""Crop, zoom and resize as one step: a window of the source image, scaled to the network's input.

The released code crops at random around the principal point, resizes (with a random zoom) so that the target fits
inside, and cuts the target out of the middle. All three keep the principal point in the centre, so together they are
one window of the source image around it, scaled to the target. Here that window is made of whole pixels and scaled
once. Differences from the released code:

* the window always lies inside the image: where the image is too small for it, it shrinks instead of being padded
  with zeros;
* the two axes are scaled by their own exact factors and the intrinsics follow exactly (pixel centres at + 0.5), where
  the released code scales them by one rounded factor;
* colour and depth are sampled on the same grid; the released resizers differ by up to half a pixel;
* no constant margin of 4 pixels, which the released code needs because it rounds three times.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def crop_window(
    image_size_hw: tuple[int, int],
    principal_point_xy: tuple[float, float],
    target_size_hw: tuple[int, int],
    crop_hw: tuple[float, float] = (1.0, 1.0),
    zoom_px: float = 0.0,
) -> tuple[int, int, int, int]:
    """Return (first row, first column, height, width) of the window that becomes the target.

    Of the windows of the target's shape around the principal point, it is the largest inside the image and inside the
    share ``crop_hw`` of it (capped at 1) that leaves a margin of ``zoom_px`` target pixels. Its sizes are rounded to
    whole pixels of the parity that centres it best: its middle is at most a quarter of a pixel from a principal point
    inside the image, unless the window is smaller than two pixels.
    """
    box = [
        min(size * min(share, 1.0), 2 * min(centre, size - centre))
        for size, share, centre in zip(image_size_hw, crop_hw, reversed(principal_point_xy), strict=True)
    ]
    scale = min(length / (target + zoom_px) for length, target in zip(box, target_size_hw, strict=True))
    (y0, height), (x0, width) = (
        _whole_pixels(target * scale, centre, size)
        for target, centre, size in zip(target_size_hw, reversed(principal_point_xy), image_size_hw, strict=True)
    )
    return y0, x0, height, width


def _whole_pixels(length: float, centre: float, size: int) -> tuple[int, int]:
    """Return (start, length) of the whole-pixel interval inside [0, size] nearest to ``length`` around ``centre``."""
    parity = round(2 * centre) % 2  # an even length is centred on a pixel's edge, an odd one on its middle
    largest = 2 * min(centre, size - centre) + 0.5  # a quarter of a pixel off centre is allowed at either end
    whole = 2 * round((length - parity) / 2) + parity
    while whole > largest:
        whole -= 2
    whole = min(max(whole, 1), size)
    return min(max(round(centre - whole / 2), 0), size - whole), whole


def window_intrinsics(intrinsics: np.ndarray, windows: np.ndarray, target_size_hw: tuple[int, int]) -> np.ndarray:
    """Return the intrinsics [..., 3, 3] of windows [..., 4] (first row, first column, height, width) at target size."""
    y0, x0, height, width = np.moveaxis(windows.astype(np.float64), -1, 0)
    scale_y, scale_x = target_size_hw[0] / height, target_size_hw[1] / width
    result = np.zeros(intrinsics.shape)
    result[..., 0, 0] = intrinsics[..., 0, 0] * scale_x
    result[..., 1, 1] = intrinsics[..., 1, 1] * scale_y
    result[..., 0, 2] = (intrinsics[..., 0, 2] - x0) * scale_x
    result[..., 1, 2] = (intrinsics[..., 1, 2] - y0) * scale_y
    result[..., 2, 2] = 1
    return result


def nearest_pixels(start: Tensor, length: Tensor, target_px: int) -> Tensor:
    """Return [..., target_px] source indices: the pixel in which each target pixel's centre lies, in exact integers.

    ``start``, ``length`` [...] int64: the window along one axis. The centre of target pixel u is source coordinate
    start + (u + 1/2) length / target_px. Computed where ``start`` is: the indices are too large to send to a GPU
    without waiting for it.
    """
    odd = 2 * torch.arange(target_px, device=start.device) + 1
    return start[..., None] + odd * length[..., None] // (2 * target_px)
