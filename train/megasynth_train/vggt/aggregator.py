"""Alternating attention inside frames and over a whole scene."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from megasynth_train.vggt.block import Block
from megasynth_train.vggt.config import VGGTConfig
from megasynth_train.vggt.encoder import Encoder
from megasynth_train.vggt.tables import Rotation, TableCache, grid_rotation

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Aggregator(nn.Module):
    """Encoder, special tokens and the pairs of frame and global blocks."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = Encoder(config)
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(
                Block(config.width, config.heads, config.mlp_ratio, qk_norm=True) for _ in range(config.depth)
            )
            for _ in range(2)
        )
        # Axis 1: the variant of the first frame of a scene, the variant of the others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, config.width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.register_count, config.width))
        # Also holds the images' mean and standard deviation: as buffers they would be lost when a model is made on the
        # meta device and then filled, since they are in no state dict.
        self._tables = TableCache()

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens [B, S, special + patches, width] that enter the first block, of ``images`` [B,S,3,H,W]."""
        scenes, frames = images.shape[:2]
        mean, std = self._tables.get(_mean_and_std, images.device)
        images = (images - mean) / std
        # A frozen encoder keeps no activations, whoever froze it; gradients of images still pass.
        learns = images.requires_grad or any(weight.requires_grad for weight in self.patch_embed.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            patches = self.patch_embed(images.flatten(0, 1))
        special = (_of_every_frame(token, scenes, frames) for token in (self.camera_token, self.register_token))
        return torch.cat((*special, patches), dim=1).unflatten(0, (scenes, frames))

    def rotation(self, images: Tensor) -> Rotation:
        """Return the rotary positions of one frame's tokens."""
        config = self.config
        rows, columns = (size // config.patch_size_px for size in images.shape[-2:])
        sizes = (rows, columns, config.special_count, config.width // config.heads)
        return self._tables.get(grid_rotation, *sizes, config.rope_base, images.device)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one tensor [B, S, special + patches, 2 × width] per tap, of ``images`` [B, S, 3, H, W] in [0, 1].

        Its first half are the tokens after the tap's frame block, its second half those after the global block.
        """
        rotation, tokens, taps = self.rotation(images), self.embed(images), []
        for index in range(self.config.last_tap + 1):
            # Behind a view, a block's gradients are summed before the tap's is added: the order, so the bits, of runs
            # that 0.1.0 began.
            in_frames = self.frame_blocks[index](tokens.view_as(tokens), rotation=rotation)
            tokens = self.global_blocks[index](in_frames.view_as(in_frames), rotation=rotation, across=True)
            if index in self.config.taps:
                taps.append(torch.cat((in_frames, tokens), dim=-1))
        return tuple(taps)


def _of_every_frame(token: Tensor, scenes: int, frames: int) -> Tensor:
    """Return [B × S, count, width] of ``token`` [1, 2, count, width], whose first variant is for first frames."""
    per_frame = torch.cat((token[:, :1], token[:, 1:].expand(-1, frames - 1, -1, -1)), dim=1)
    return per_frame.expand(scenes, -1, -1, -1).flatten(0, 1)


def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation that normalise the encoder's images, each [3, 1, 1]."""
    return torch.tensor(_MEAN, device=device).view(3, 1, 1), torch.tensor(_STD, device=device).view(3, 1, 1)
