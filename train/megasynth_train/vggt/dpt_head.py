"""The dense prediction head of depth and of points."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from megasynth_train.vggt.block import compute_again
from megasynth_train.vggt.config import EVERYTHING, HEAD_FRAMES, VGGTConfig
from megasynth_train.vggt.tables import TableCache, bilinear_matrix, map_parts, whole_map

_MAP_STRENGTH = 0.1
_MAP_BASE = 100.0


class ResidualUnit(nn.Module):
    """conv2(relu(conv1(a))) + a with a = relu(x). The skip carries the *rectified* input: the weights expect it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, channels, h, w] of ``x`` of that shape, which is overwritten."""
        rectified = F.relu(x, inplace=True)
        return self.conv2(F.relu(self.conv1(rectified), inplace=True)) + rectified


class Fusion(nn.Module):
    """One upsampling step: add the finer features, refine, enlarge."""

    def __init__(self, channels: int, *, has_finer: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        if has_finer:
            self.resConfUnit1 = ResidualUnit(channels)
        self.resConfUnit2 = ResidualUnit(channels)

    def forward(self, x: Tensor, size: tuple[int, int], finer: Tensor | None = None) -> Tensor:
        """Return [N, channels, *size]. ``x`` [N, channels, h, w] and ``finer``, of that shape, are overwritten."""
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        # The published order is enlarge, then 1x1 convolution; both are linear and the weights of the interpolation
        # sum to one, so this order gives the same result with a quarter of the work.
        return _resize(self.out_conv(self.resConfUnit2(x)), size)


class Scratch(nn.Module):
    """The convolutions after the projections; a module of its own only because the published names say ``scratch.``."""

    def __init__(self, config: VGGTConfig, outputs: int) -> None:
        super().__init__()
        features = config.dpt_features
        for number, channels in enumerate(config.dpt_channels, start=1):
            self.add_module(f"layer{number}_rn", nn.Conv2d(channels, features, 3, padding=1, bias=False))
        for number in range(1, 5):
            self.add_module(f"refinenet{number}", Fusion(features, has_finer=number < 4))
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, config.dpt_hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(config.dpt_hidden, outputs, 1),
        )

    def fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """Return [N, features, 2h, 2w] of the four ``levels``, fine to coarse, of which the first is [N, ·, h, w]."""
        finest = (2 * levels[0].shape[-2], 2 * levels[0].shape[-1])
        sizes = [finest, *((level.shape[-2], level.shape[-1]) for level in levels[:3])]
        features = [self.get_submodule(f"layer{number}_rn")(level) for number, level in enumerate(levels, start=1)]
        x = self.get_submodule("refinenet4")(features[3], sizes[3])
        for number in (3, 2, 1):
            x = self.get_submodule(f"refinenet{number}")(x, sizes[number - 1], features[number - 1])
        return x


class DPTHead(nn.Module):
    """Raw values of every pixel from the four taps.

    ``precision``: "fp32", or "bf16" for everything but the norm and the last convolution. ``kept``, one of KEPT: where
    that is not everything, a few frames at a time are computed again for the backward pass.
    """

    def __init__(self, config: VGGTConfig, outputs: int) -> None:
        super().__init__()
        one, two, _, four = config.dpt_channels
        self.precision, self.kept = "fp32", EVERYTHING
        self.special_count = config.special_count
        self.patch_size_px = config.patch_size_px
        self.norm = nn.LayerNorm(2 * config.width, eps=1e-5)
        self.projects = nn.ModuleList(nn.Conv2d(2 * config.width, channels, 1) for channels in config.dpt_channels)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(one, one, kernel_size=4, stride=4),
                nn.ConvTranspose2d(two, two, kernel_size=2, stride=2),
                nn.Identity(),
                nn.Conv2d(four, four, kernel_size=3, stride=2, padding=1),
            )
        )
        self.scratch = Scratch(config, outputs)
        self._tables = TableCache()

    def forward(self, taps: Sequence[Tensor], image_size_hw: tuple[int, int]) -> Tensor:
        """Return [B, S, outputs, H, W] of four ``taps`` [B, S, special + patches, 2C]."""
        scenes, frames = taps[0].shape[:2]
        patches = [tap[:, :, self.special_count :].flatten(0, 1) for tap in taps]
        with self._arithmetic(patches[0].device):
            if torch.is_grad_enabled() and self.kept == EVERYTHING:
                pixels = self.pixels(patches, image_size_hw)
            else:  # frames do not see each other here, so pieces give the same numbers
                count = -(-len(patches[0]) // HEAD_FRAMES)
                pieces = zip(*(tokens.chunk(count) for tokens in patches), strict=True)
                of_piece = partial(compute_again, self.pixels) if torch.is_grad_enabled() else self.pixels
                pixels = torch.cat([of_piece(piece, image_size_hw) for piece in pieces])
        return pixels.unflatten(0, (scenes, frames))

    def _arithmetic(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def pixels(self, patches: Sequence[Tensor], image_size_hw: tuple[int, int]) -> Tensor:
        """Return [N, outputs, H, W] of the patch tokens [N, patches, 2C] of each tap."""
        height, width = image_size_hw
        rows, columns = height // self.patch_size_px, width // self.patch_size_px
        levels = []
        for tokens, project, resize in zip(patches, self.projects, self.resize_layers, strict=True):
            # A view: tokens are channels-last images already, and stay so through the whole head.
            image = self.norm(tokens).unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
            levels.append(resize(self._with_map(project(image), width / height)))
        x = self.scratch.output_conv1(self.scratch.fuse(levels))
        *inner, last = self.scratch.output_conv2
        x = self._with_map(_resize(x, image_size_hw), width / height)
        for layer in inner:
            x = layer(x)
        if self.precision == "fp32":
            return last(x)
        with torch.autocast(x.device.type, enabled=False):
            return last(x.float())

    def _with_map(self, x: Tensor, aspect: float) -> Tensor:
        """Return ``x`` [N, channels, h, w] with the position map added in place."""
        channels, height, width = x.shape[1:]
        return x.add_(whole_map(*self._tables.get(_faint_parts, width, height, aspect, channels, _MAP_BASE, x.device)))


def depth_and_confidence(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return depth exp(a) and confidence 1 + exp(b), each [..., H, W], of ``raw`` [..., 2, H, W] = (a, b)."""
    log_depth, log_excess = raw.unbind(-3)
    return log_depth.exp(), 1 + log_excess.exp()


def points_and_confidence(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return points sign(a) expm1(|a|) [..., H, W, 3] and confidence 1 + exp(b) of ``raw`` [..., 4, H, W] = (a, b)."""
    points = raw[..., :3, :, :].movedim(-3, -1)
    return points.sign() * points.abs().expm1(), 1 + raw[..., 3, :, :].exp()


def _faint_parts(*arguments: Any) -> tuple[Tensor, Tensor]:
    x_part, y_part = map_parts(*arguments)
    return x_part * _MAP_STRENGTH, y_part * _MAP_STRENGTH


def _resize(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return ``x`` [N, channels, h, w] at ``size_hw``: bilinear, the centres of the corner pixels in their places.

    On CUDA by a product with one small matrix per axis. The backward pass of ``interpolate`` adds with atomics there,
    four times as slow in float32 and worse in bfloat16.
    """
    if not x.is_cuda:
        return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=True)
    return resize_by_products(x, size_hw)


def resize_by_products(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return what ``_resize`` does, up to rounding; channels-last in memory."""
    count, channels, height, width = x.shape
    rows, columns = (
        bilinear_matrix(to, of, x.dtype, x.device) for to, of in zip(size_hw, (height, width), strict=True)
    )
    lines = x.permute(0, 2, 3, 1).reshape(count * height, width, channels)
    wide = torch.bmm(columns.expand(len(lines), -1, -1), lines)
    wide = wide.reshape(count, height, size_hw[1] * channels)
    tall = torch.bmm(rows.expand(count, -1, -1), wide)
    return tall.reshape(count, *size_hw, channels).permute(0, 3, 1, 2)
