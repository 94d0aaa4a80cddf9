"""VGGT: images of a scene in, cameras, depth and points out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from megasynth_attr.core.errors import ConfigError
from megasynth_train.vggt.aggregator import Aggregator
from megasynth_train.vggt.block import Block
from megasynth_train.vggt.camera_head import CameraHead
from megasynth_train.vggt.config import VGGTConfig
from megasynth_train.vggt.dpt_head import DPTHead, depth_and_confidence, points_and_confidence

_COMPILED_VARIANTS = 64


@dataclass(frozen=True)
class Prediction:
    """What the heads predict for B scenes of S frames; float32, in the units of the normalised scene.

    The world frame is that of the first camera. Absent heads leave None (``pose_encodings``: empty).
    """

    pose_encodings: tuple[Tensor, ...]  # [B, S, 9] per refinement, the last one final; see geometry.decode_pose
    depth: Tensor | None  # [B, S, H, W], z-depth > 0
    depth_confidence: Tensor | None  # [B, S, H, W], > 1
    points: Tensor | None = None  # [B, S, H, W, 3], world
    points_confidence: Tensor | None = None  # [B, S, H, W], > 1


class VGGT(nn.Module):
    """The model; its state dict has the published names and shapes, without the track head."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config) if config.camera_head else None
        self.depth_head = DPTHead(config, outputs=2) if config.depth_head else None
        self.point_head = DPTHead(config, outputs=4) if config.point_head else None

    @property
    def kept(self) -> str:
        """Return what blocks of encoder and aggregator keep for the backward pass, one of KEPT; may be set. The dense
        heads keep everything with everything, else nothing."""
        block: Block = self.aggregator.frame_blocks[0]  # type: ignore[assignment]
        return block.kept

    @kept.setter
    def kept(self, value: str) -> None:
        for module in (*self.aggregator.modules(), self.depth_head, self.point_head):
            if isinstance(module, Block | DPTHead):
                module.kept = value

    def forward(self, images: Tensor) -> Prediction:
        """Return the prediction for ``images``, float [B, S, 3, H, W] (or [S, 3, H, W]: one scene), RGB in [0, 1].

        H and W are multiples of the patch size; ConfigError otherwise. Autocast may be on: heads run in float32 anyway.
        """
        if images.ndim == 4:
            images = images.unsqueeze(0)
        self._check(images)
        taps = self.aggregator(images)
        size_hw = (images.shape[-2], images.shape[-1])
        poses: tuple[Tensor, ...] = ()
        depth = depth_confidence = points = points_confidence = None
        with _without_autocast(images.device):
            taps = tuple(tap.float() for tap in taps)
            if self.camera_head is not None:
                poses = self.camera_head(taps[-1])
            if self.depth_head is not None:
                depth, depth_confidence = depth_and_confidence(self.depth_head(taps, size_hw))
            if self.point_head is not None:
                points, points_confidence = points_and_confidence(self.point_head(taps, size_hw))
        return Prediction(poses, depth, depth_confidence, points, points_confidence)

    def _check(self, images: Tensor) -> None:
        """Raise ConfigError for images the model cannot take; looks at shapes and types only."""
        patch = self.config.patch_size_px
        if images.ndim != 5 or images.shape[2] != 3 or not images.is_floating_point():
            raise ConfigError(
                f"images are {images.dtype} {tuple(images.shape)}; the model takes floats [scenes, frames, 3, H, W]"
            )
        if min(images.shape) == 0 or images.shape[-2] % patch or images.shape[-1] % patch:
            raise ConfigError(
                f"images are {tuple(images.shape)}; there must be at least one, and height and width must be multiples "
                f"of {patch} px"
            )


def freeze_encoder(model: VGGT) -> None:
    """Freeze the image encoder; its forward pass then runs without keeping anything for gradients."""
    model.aggregator.patch_embed.requires_grad_(False)


def compile_model(model: nn.Module, *, backend: str = "inductor") -> int:
    """Compile in place, with ``torch.compile``, every block, an iteration of the camera head and the dense heads.

    Returns how many parts there are. Names in the state dict stay. Adapt the model first: an adapter inside a part is
    compiled with it. Code is made once for every kind of part, for any number of scenes and views; the size of the
    images is that of the first ones until it changes.
    """
    # All blocks share one forward, and PyTorch stops compiling a function after 8 variants (encoder, frame and global
    # blocks, each with and without gradients, one scene or more), silently but for a warning.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_VARIANTS)
    parts = list(model.modules())
    trunk = {block for head in parts if isinstance(head, CameraHead) for block in head.trunk}
    count = 0
    for part in parts:
        if isinstance(part, Block) and part not in trunk:
            part.forward = _compiled(part.forward, 2, backend)  # type: ignore[method-assign]
        elif isinstance(part, CameraHead):
            part.refine = _compiled(part.refine, 1, backend)  # type: ignore[method-assign]
        elif isinstance(part, DPTHead):
            part.pixels = _compiled(part.pixels, 2, backend)  # type: ignore[method-assign]
        else:
            continue
        count += 1
    return count


def _compiled(function: Callable[..., Tensor], fixed: int, backend: str) -> Callable[..., Tensor]:
    """Return ``function``, compiled for any sizes of its positional tensors but those of their last ``fixed`` axes.

    Known from the start: PyTorch would compile for the first sizes alone, and again once another number is met.
    """
    compiled: Callable[..., Tensor] = torch.compile(function, backend=backend)

    def call(*inputs: Any, **others: Any) -> Tensor:
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                torch._dynamo.maybe_mark_dynamic(leaf, list(range(leaf.ndim - fixed)))
        return compiled(*inputs, **others)

    return call


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    if not torch.amp.is_autocast_available(device.type):  # the meta device
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
