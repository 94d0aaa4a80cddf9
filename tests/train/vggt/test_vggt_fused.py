"""Norm and rotation in one pass against the two apart, values and every gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from megasynth_train.vggt.fused import normalise_and_rotate
from megasynth_train.vggt.tables import grid_rotation


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_rotation_in_one_pass(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    heads = torch.randn((2, 3, 11, 2, 16), generator=draw).to(dtype).requires_grad_()
    norm = nn.LayerNorm(16, eps=1e-5)
    for weight in norm.parameters():
        nn.init.normal_(weight, 1.0, 0.5, generator=draw)
    grad = torch.randn(heads.shape, generator=draw)
    rotation = grid_rotation(2, 3, 5, 16, 100.0, torch.device("cpu"))
    results = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda of=compiling: of)
        out = normalise_and_rotate(heads, norm, rotation)
        leaves = [heads, *norm.parameters()]
        results.append([out.detach(), *torch.autograd.grad(out, leaves, grad)])
    assert results[0][1].dtype == dtype
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-2 if found.dtype == torch.bfloat16 else 1e-4, atol=1e-5)
