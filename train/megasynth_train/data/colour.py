"""Colour jitter on the device: brightness, contrast, saturation and hue in random order, then greyscale for some.

The operations are those of Pillow's ``ImageEnhance`` and of torchvision's ``ColorJitter`` and ``RandomGrayscale``, on
floats in [0, 1]. The factors are drawn with the rest of a step's plan, so they depend on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from megasynth_train.training.settings import DataSettings

NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # brightness, contrast, saturation: factors; hue: shift in turns
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


@dataclass(frozen=True)
class Jitter:
    """The draws for B scenes of S views: ``factors`` [B, S, 4] in the order of ``NEUTRAL``; ``order`` [B, S, 4], the
    sequence in which these four are applied; ``grey`` [B, S] bool.
    """

    factors: np.ndarray
    order: np.ndarray
    grey: np.ndarray


def neutral_jitter(scenes: int, views: int) -> Jitter:
    """Return the jitter that changes nothing."""
    factors = np.tile(np.array(NEUTRAL), (scenes, views, 1))
    return Jitter(factors, np.tile(np.arange(4), (scenes, views, 1)), np.zeros((scenes, views), dtype=bool))


def draw_jitter(generator: np.random.Generator, scenes: int, views: int, settings: DataSettings) -> Jitter:
    """Return a draw: with probability ``shared_jitter`` one for all views of a scene, else one per view."""
    shape = (scenes, views)
    reach = np.array([settings.brightness, settings.contrast, settings.saturation, settings.hue])
    factors = np.array(NEUTRAL) + generator.uniform(-1, 1, (*shape, 4)) * reach
    factors[generator.random(shape) >= settings.jitter_share] = NEUTRAL
    order = generator.permuted(np.tile(np.arange(4), (*shape, 1)), axis=-1)
    grey = generator.random(shape) < settings.grey_share
    shared = generator.random(scenes) < settings.shared_jitter
    for values in (factors, order, grey):
        values[shared] = values[shared][:, :1]
    return Jitter(factors, order, grey)


def apply_jitter(images: Tensor, jitter: Jitter) -> Tensor:
    """Return jittered images; ``images`` [B, S, 3, H, W] float in [0, 1] is overwritten. Nothing waits for the device.

    Images with the same operation at the same place in their order are processed together: at most 16 batches.
    """
    flat = images.flatten(0, 1)
    factors, order = jitter.factors.reshape(-1, 4), jitter.order.reshape(-1, 4)
    for place in range(4):
        for kind, operation in enumerate(_OPERATIONS):
            chosen = np.flatnonzero((order[:, place] == kind) & (factors[:, kind] != NEUTRAL[kind]))
            _change(flat, chosen, operation, factors[chosen, kind])
    _change(flat, np.flatnonzero(jitter.grey.reshape(-1)), saturation, np.zeros(np.count_nonzero(jitter.grey)))
    return flat.view_as(images)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Return [N, 3, H, W] times ``factor`` [N, 1, 1, 1], clamped to [0, 1]."""
    return (images * factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Return images moved away from (factor > 1) or towards the mean luma of each, clamped to [0, 1]."""
    return _blend(images, luma(images).mean(dim=(-2, -1), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Return images moved away from (factor > 1) or towards the luma of each pixel, clamped to [0, 1]."""
    return _blend(images, luma(images), factor)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Return images whose HSV hue is turned by ``turns`` [N, 1, 1, 1] in full turns.

    With chroma c = max - min and value v = max, each channel is v - c * ramp(hue), where ramp depends on the hue's
    distance from that channel's own: grey pixels (c = 0) stay as they are.
    """
    value, strongest = images.max(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    divisor = torch.where(chroma > 0, chroma, 1.0)
    sixths = torch.where(strongest == 0, (green - blue) / divisor, (blue - red) / divisor + 2)
    sixths = torch.where(strongest == 2, (red - green) / divisor + 4, sixths) + 6 * turns
    offset = torch.arange(5, 0, -2, device=images.device).view(
        1, 3, 1, 1
    )  # made on the device: copying a list would wait
    k = torch.remainder(offset + sixths, 6)
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


def luma(images: Tensor) -> Tensor:
    """Return [N, 1, H, W], the weighted sum of the channels of [N, 3, H, W]."""
    red, green, blue = images.split(1, dim=1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


_OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp_(0, 1)


def _change(
    images: Tensor, chosen: np.ndarray, operation: Callable[[Tensor, Tensor], Tensor], factors: np.ndarray
) -> None:
    """Overwrite the ``chosen`` images by ``operation``. With indices, because a mask would wait for its size."""
    if chosen.size == 0:
        return
    index = torch.from_numpy(chosen).to(images.device, non_blocking=True)
    factor = torch.from_numpy(factors).to(images.device, images.dtype, non_blocking=True).view(-1, 1, 1, 1)
    images.index_copy_(0, index, operation(images.index_select(0, index), factor))
