"""The image encoder: a DINOv2 ViT with registers."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from megasynth_train.vggt.block import Block
from megasynth_train.vggt.config import VGGTConfig

_EPS = 1e-6  # of every LayerNorm in the encoder; the rest of the model has 1e-5


class PatchProjection(nn.Module):
    """Non-overlapping patches to tokens: one convolution, so that the weights keep their published name."""

    def __init__(self, width: int, patch_size_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size_px, stride=patch_size_px)

    def forward(self, images: Tensor) -> Tensor:
        """Return [N, patches, width], row-major, of ``images`` [N, 3, H, W]."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    """Patch tokens of single images."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        width, side = config.width, config.image_size_px // config.patch_size_px
        self.patch_size_px = config.patch_size_px
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.encoder_register_count, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width), requires_grad=False)  # published, never used
        self.patch_embed = PatchProjection(width, config.patch_size_px)
        self.blocks = nn.ModuleList(
            Block(width, config.encoder_heads, config.mlp_ratio, eps=_EPS) for _ in range(config.encoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embedding [1, 1 + rows × columns, width]: as stored, or resampled to another grid."""
        stored = self.pos_embed
        side = round((stored.shape[1] - 1) ** 0.5)
        if rows == columns == side:
            return stored
        grid = stored[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False)
        return torch.cat((stored[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2).to(stored.dtype)), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised patch tokens [N, patches, width] of normalised ``images`` [N, 3, H, W]."""
        rows, columns = (size // self.patch_size_px for size in images.shape[-2:])
        positions = self.positions(rows, columns)
        patches = self.patch_embed(images) + positions[:, 1:]
        cls = (self.cls_token + positions[:, :1]).expand(len(patches), -1, -1)
        registers = self.register_tokens.expand(len(patches), -1, -1)  # without a position
        tokens = torch.cat((cls, registers, patches), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, -patches.shape[1] :])
