"""Products with frozen weights in float8, against float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from megasynth_train.vggt.fp8 import FP8, Fp8Linear, quantise, replace_frozen_linears

STEP = 2.0**-4  # largest relative error of one e4m3 number: three bits after the first


def pair(seed: int = 0, sizes: tuple[int, int] = (64, 96)) -> tuple[nn.Linear, Fp8Linear]:
    torch.manual_seed(seed)
    linear = nn.Linear(*sizes).requires_grad_(False)
    return linear, Fp8Linear(linear)


def test_every_row_is_rounded_by_at_most_half_a_step_of_its_own_scale() -> None:
    rows = torch.randn(40, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(-6, 6, 40).unsqueeze(1)
    rows[7] = 0
    rounded, scale = quantise(rows)
    assert rounded.dtype == FP8
    assert rounded.float().abs().amax(1)[torch.arange(40) != 7].eq(torch.finfo(FP8).max).all()
    error = (rounded.float() * scale - rows).abs()
    smallest = scale * 2.0**-9  # below the normal range numbers are this far apart
    assert (error <= torch.maximum(rows.abs() * STEP, smallest)).all()
    assert error[7].eq(0).all()


def test_result_and_gradient_stay_within_the_rounding_of_the_factors() -> None:
    linear, eight = pair()
    x = torch.randn(3, 50, 64, requires_grad=True)
    grad = torch.randn(3, 50, 96)
    exact, found = linear(x), eight(x)
    assert found.dtype == torch.bfloat16
    (exact_grad,) = torch.autograd.grad(exact, x, grad)
    (found_grad,) = torch.autograd.grad(found, x, grad.bfloat16())
    for mine, true in ((found, exact), (found_grad, exact_grad)):
        error = (mine.float() - true).norm() / true.norm()
        assert 1e-3 < error < STEP


def test_it_compiles_in_one_graph_and_keeps_no_input() -> None:
    _, eight = pair()
    torch._dynamo.reset()
    compiled = torch.compile(eight, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 64, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = eight(x)
    assert torch.equal(compiled(x), y)
    assert not any(t.shape == x.shape for t in kept)


def test_only_frozen_linears_of_fitting_size_are_replaced() -> None:
    module = nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 20), nn.Sequential(nn.Linear(20, 32)), nn.LayerNorm(32))
    module.requires_grad_(False)
    module[0].bias.requires_grad_(True)
    assert replace_frozen_linears(module) == 0  # one is trained, two have 20 channels
    module[0].requires_grad_(False)
    bias = module[0].bias
    assert replace_frozen_linears(module) == 1
    assert isinstance(module[0], Fp8Linear) and module[0].bias is bias
    assert module[0](torch.ones(2, 32)).shape == (2, 48)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_card_gives_the_cpus_result() -> None:
    if torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("needs compute capability 9.0")
    _, eight = pair(sizes=(256, 128))
    x = torch.randn(64, 256)
    there = eight.cuda()(x.cuda()).cpu()
    torch.testing.assert_close(there, eight.cpu()(x), rtol=2e-2, atol=2e-2)
