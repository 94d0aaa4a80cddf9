"""The transformer block that encoder, aggregator and camera trunk share."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from megasynth_train.vggt.attention import ATTENTION_OPERATORS, attend
from megasynth_train.vggt.config import ATTENTION, EVERYTHING
from megasynth_train.vggt.fused import normalise_and_rotate
from megasynth_train.vggt.tables import Rotation


class LayerScale(nn.Module):
    """x × gamma, one gamma per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [..., width] scaled; float32 for bfloat16 ``x``, because gamma is."""
        return x * self.gamma


class Mlp(nn.Module):
    """fc2(gelu(fc1(x))) with the exact GELU."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] of ``x`` [..., width]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention with one fused qkv projection.

    ``qk_norm``: queries and keys are normalised and rotated, so ``forward`` needs a rotation. ``kernel`` is one that
    ``resolve_attention`` returned.
    """

    def __init__(self, width: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.kernel = "sdpa"
        self.qkv = nn.Linear(width, 3 * width)
        if qk_norm:
            self.q_norm = nn.LayerNorm(width // heads, eps=1e-5)
            self.k_norm = nn.LayerNorm(width // heads, eps=1e-5)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Rotation | None = None, across: bool = False) -> Tensor:
        """Return [..., tokens, width] of ``x`` of that shape, whose tokens attend to those of their image.

        ``across``: to all that share their first index, a scene's. Then the axes of scenes and images stay apart up to
        the kernel: where compiled code knows neither size it would divide by both to find an element.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # each [..., tokens, heads, head_dim]
        if rotation is not None:
            q, k = normalise_and_rotate(q, self.q_norm, rotation), normalise_and_rotate(k, self.k_norm, rotation)
        # The backward pass keeps v, and a view keeps the whole qkv (8 GiB at 32 × 518² px). Compiled code keeps that
        # anyway, for the norms, and needs no copy.
        q, k, v = q.to(v.dtype), k.to(v.dtype), v if torch.compiler.is_compiling() else v.contiguous()
        q, k, v = (of.flatten(1, -3) if across else of.flatten(0, -4) for of in (q, k, v))
        return self.proj(attend(q, k, v, self.kernel).reshape(x.shape))


class Block(nn.Module):
    """x + ls1(attention(norm1(x))), then x + ls2(mlp(norm2(x))).

    ``kept``, one of KEPT: what stays for the backward pass; the rest is computed again there, in compiled code too.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, *, eps: float = 1e-5, qk_norm: bool = False) -> None:
        super().__init__()
        self.kept = EVERYTHING
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio), width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor, rotation: Rotation | None = None, across: bool = False) -> Tensor:
        """Return [..., tokens, width] of ``x`` of that shape; float32 in, float32 out, under autocast too.

        Tokens attend to those of their image, or with ``across`` to all that share their first index, their scene.
        """
        if self.kept == EVERYTHING or not torch.is_grad_enabled():
            return self._transform(x, rotation, across)
        if self.kept == ATTENTION:
            return compute_again(self._transform, x, rotation, across, context_fn=_ATTENTION_STAYS)
        return compute_again(self._transform, x, rotation, across)

    def _transform(self, x: Tensor, rotation: Rotation | None, across: bool) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rotation, across))
        return x + self.ls2(self.mlp(self.norm2(x)))


def _stays(context: object, operator: Any, *_: object, **__: object) -> CheckpointPolicy:
    """Say what to do with an operator's result: attention's output and log-sum-exp stay."""
    kept = operator.name() in ATTENTION_OPERATORS
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


compute_again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)  # nothing is drawn at random
_ATTENTION_STAYS = partial(create_selective_checkpoint_contexts, _stays)
