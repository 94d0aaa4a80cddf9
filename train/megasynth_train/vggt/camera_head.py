"""The camera head: iterative refinement of one pose per frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from megasynth_train.vggt.block import Block, Mlp
from megasynth_train.vggt.config import VGGTConfig

POSE_SIZE = 9  # translation 3, quaternion xyzw 4, field of view 2 (vertical first)
_LINEAR = 7  # the first seven are linear, fields of view pass a ReLU


class CameraHead(nn.Module):
    """Pose encodings from the camera tokens of a scene."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        width = 2 * config.width
        self.iterations = config.camera_iterations
        self.token_norm = nn.LayerNorm(width, eps=1e-5)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_SIZE))
        self.embed_pose = nn.Linear(POSE_SIZE, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.trunk = nn.ModuleList(
            Block(width, config.camera_heads, config.mlp_ratio) for _ in range(config.camera_depth)
        )
        self.trunk_norm = nn.LayerNorm(width, eps=1e-5)
        self.pose_branch = Mlp(width, width // 2, POSE_SIZE)

    def forward(self, last_tap: Tensor) -> tuple[Tensor, ...]:
        """Return one pose encoding [B, S, 9] per iteration, the last one final, of ``last_tap`` [B, S, P, 2C].

        Translation (normalised units), quaternion (xyzw, not normalised), field of view (radians, vertical first, ≥ 0).
        """
        camera = self.token_norm(last_tap[:, :, 0])
        plain = F.layer_norm(camera, camera.shape[-1:], eps=1e-6)
        # contiguous, as later poses are: compiled code then serves all iterations
        start = self.empty_pose_tokens.expand(*camera.shape[:2], -1).contiguous()
        pose: Tensor | None = None
        encodings = []
        for _ in range(self.iterations):
            # before its activation, and detached: each iteration learns only its own delta
            previous = start if pose is None else pose.detach()
            delta = self.refine(camera, plain, previous)
            pose = delta if pose is None else previous + delta
            encodings.append(torch.cat((pose[..., :_LINEAR], pose[..., _LINEAR:].relu()), dim=-1))
        return tuple(encodings)

    def refine(self, camera: Tensor, plain: Tensor, pose: Tensor) -> Tensor:
        """Return what to add to ``pose`` [B, S, 9], of the camera tokens and these without scale, each [B, S, 2C]."""
        shift, scale, gate = self.poseLN_modulation(self.embed_pose(pose)).chunk(3, dim=-1)
        tokens = camera + gate * (plain * (1 + scale) + shift)
        for block in self.trunk:
            tokens = block(tokens)
        delta: Tensor = self.pose_branch(self.trunk_norm(tokens))
        return delta
