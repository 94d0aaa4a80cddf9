"""The leaner way to train under bf16 autocast: the same to the last bit; on a GPU plain LoRA up to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adapter_models import adapted_model, images, objective, small_model, train
from torch import Tensor

from megasynth_train.adapters import Adapted, lean, load_adapter, save_adapter
from megasynth_train.adapters.lean import lora_product, make_lean
from megasynth_train.vggt.precision import autocast


def one_pass(adapted: Adapted) -> tuple[Tensor, dict[str, Tensor | None], int]:
    """Return objective, gradients, and the bytes kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    adapted.model.zero_grad(set_to_none=True)
    with autocast("cpu", "bf16"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = objective(adapted.model(images()))
    result.backward()
    return (
        result.detach(),
        {n: None if p.grad is None else p.grad.clone() for n, p in adapted.trainable.items()},
        sum(kept.values()),
    )


@pytest.mark.parametrize("mode", ["lora", "rslora", "pissa", "adalora", "lora_xs", "subspace", "heads"])
def test_the_result_is_the_same_and_less_is_kept(mode: str) -> None:
    adapted = adapted_model(mode)
    train(adapted, 2)  # so that no factor is zero any more
    before, gradients, kept_before = one_pass(adapted)
    assert make_lean(adapted)
    after, lean_gradients, kept_after = one_pass(adapted)
    assert torch.equal(before, after)
    for name, gradient in gradients.items():
        if gradient is None:
            assert lean_gradients[name] is None
        else:
            assert torch.equal(gradient, lean_gradients[name]), name
    assert any(p.dtype == torch.bfloat16 for p in adapted.model.parameters())
    assert all(p.dtype == torch.float32 for p in adapted.trainable.values())
    # heads: nothing is kept in the aggregator; lora_xs, subspace: frozen factors are kept instead of the input
    assert kept_after < kept_before or (mode in ("heads", "lora_xs", "subspace") and kept_after == kept_before)


@pytest.mark.parametrize("mode", ["full", "dora"])
def test_modes_that_need_float32_weights_keep_them(mode: str) -> None:
    adapted = adapted_model(mode)
    assert not make_lean(adapted)
    assert all(p.dtype == torch.float32 for p in adapted.model.parameters())


@pytest.mark.parametrize("mode", ["lora", "pissa", "lora_xs", "subspace"])
def test_what_is_saved_fits_the_float32_base(mode: str, tmp_path: Path) -> None:
    adapted, fat = adapted_model(mode), adapted_model(mode)
    make_lean(adapted)
    save_adapter(adapted, tmp_path / "lean", {})
    save_adapter(fat, tmp_path / "fat", {})
    weights = "adapter_model.safetensors"
    assert (tmp_path / "lean" / weights).read_bytes() == (tmp_path / "fat" / weights).read_bytes()
    with torch.no_grad():
        expected = fat.model(images())
        loaded = load_adapter(small_model(), tmp_path / "lean").model(images())
    assert torch.equal(loaded.depth, expected.depth)


@pytest.mark.parametrize("with_bias", [True, False])
def test_plain_lora_in_one_operator_is_what_its_formula_says(with_bias: bool) -> None:
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(torch.bfloat16)

    x, weight, down, up, grad = random(2, 17, 24), random(40, 24), random(16, 24), random(40, 16), random(2, 17, 40)
    bias = random(40) if with_bias else None
    leaves = [of.float().requires_grad_() for of in (x, down, up)]
    out = lora_product(leaves[0], weight, bias, leaves[1], leaves[2])
    found = [out.detach(), *torch.autograd.grad(out, leaves, grad)]
    exact = [of.double().requires_grad_() for of in (x, down, up)]
    out = exact[0] @ (weight.double() + exact[2] @ exact[1]).t() + (0 if bias is None else bias.double())
    for ours, theirs in zip(found, [out.detach(), *torch.autograd.grad(out, exact, grad.double())], strict=True):
        assert (ours.double() - theirs).norm() < 2**-7 * theirs.norm()  # three roundings to bfloat16
    without = lora_product(x, weight, bias, leaves[1], leaves[2])  # the first block's input needs no gradient
    assert torch.equal(torch.autograd.grad(without, leaves[1], grad)[0], found[2])


def test_the_operators_of_plain_lora_keep_what_compiled_code_relies_on() -> None:
    x, weight, bias, down, up = (
        torch.randn(shape).to(torch.bfloat16).requires_grad_(trained)
        for shape, trained in (((6, 8), True), ((4, 8), False), ((4,), False), ((2, 8), True), ((4, 2), True))
    )
    torch.library.opcheck(torch.ops.megasynth.lora.default, (x, weight, bias, down, up), atol=0.1, rtol=0.1)
    inside, grad = torch.randn(6, 2).to(torch.bfloat16), torch.randn(6, 4).to(torch.bfloat16)
    for want_x in (True, False):
        arguments = (grad, x.detach(), weight, down.detach(), up.detach(), inside, want_x)
        torch.library.opcheck(torch.ops.megasynth.lora_backward.default, arguments)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_plain_lora_takes_the_operator_and_other_adapters_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(lean, "lora_product", lambda *all_: calls.append(1) or lora_product(*all_))
    for mode, expected in (("lora", True), ("subspace", False), ("heads", False)):
        adapted = adapted_model(mode)
        make_lean(adapted)
        adapted.model.cuda()
        calls.clear()
        with autocast("cuda", "bf16"):
            adapted.model(images().cuda())
        assert bool(calls) == expected
