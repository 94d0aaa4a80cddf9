"""The leaner way to train under bf16 autocast gives the same predictions and gradients to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adapter_models import adapted_model, images, objective, small_model, train
from torch import Tensor

from megasynth_train.adapters import Adapted, load_adapter, save_adapter
from megasynth_train.adapters.lean import make_lean
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
