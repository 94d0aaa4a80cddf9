"""The precision policy of vggt/precision.py, observed under bf16 autocast on the CPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from vggt_reference import reference_images, reference_model

from megasynth_attr.core.errors import ConfigError
from megasynth_train.vggt.block import Block
from megasynth_train.vggt.checkpoint import weights_hash
from megasynth_train.vggt.model import VGGT, freeze_encoder
from megasynth_train.vggt.precision import autocast, resolve_precision, store_frozen_in_bf16

BF16, FP32 = torch.bfloat16, torch.float32


class AttentionTypes(TorchFunctionMode):
    """Records the types attention is called with, before autocast could change them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, ...]] = []

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            self.seen.append(tuple(tensor.dtype for tensor in args[:3]))
        return function(*args, **(kwargs or {}))


def observed(model: VGGT) -> dict[str, set[torch.dtype]]:
    """Return the output types of all layers, by part and kind, of one forward pass under bf16 autocast."""
    found: dict[str, set[torch.dtype]] = defaultdict(set)

    def watch(name: str, module: nn.Module) -> None:
        part = "heads" if "_head." in name else "aggregator"
        kind = "block" if isinstance(module, Block) else type(module).__name__
        module.register_forward_hook(lambda m, given, out: found[f"{part} {kind}"].add(out.dtype))

    for name, module in model.named_modules():
        if isinstance(module, Block | nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.LayerNorm):
            watch(name, module)
    with autocast("cpu", "bf16"):
        prediction = model(reference_images("interp"))
    outputs = (*prediction.pose_encodings, prediction.depth, prediction.depth_confidence)
    assert {tensor.dtype for tensor in outputs} == {FP32}
    return found


def test_types_of_every_layer() -> None:
    assert observed(reference_model()) == {
        "aggregator Linear": {BF16},
        "aggregator Conv2d": {BF16},
        "aggregator LayerNorm": {FP32},  # also of queries and keys
        "aggregator block": {FP32},  # the residual stream
        "heads Linear": {FP32},
        "heads Conv2d": {FP32},
        "heads ConvTranspose2d": {FP32},
        "heads LayerNorm": {FP32},
        "heads block": {FP32},
    }


def test_attention_runs_in_bf16_but_for_the_camera_trunk() -> None:
    model = reference_model()
    with AttentionTypes() as types, autocast("cpu", "bf16"):
        model(reference_images("native"))
    config = model.config
    blocks, trunk = config.encoder_depth + 2 * config.depth, config.camera_depth * config.camera_iterations
    assert types.seen == [(BF16,) * 3] * blocks + [(FP32,) * 3] * trunk


def test_bf16_stays_close_to_fp32() -> None:
    model, images = reference_model(), reference_images("native")
    exact = model(images)
    with autocast("cpu", "bf16"):
        rounded = model(images)
    assert not torch.equal(rounded.depth, exact.depth)
    assert ((rounded.depth / exact.depth).log().abs().mean()) < 0.02


@pytest.mark.parametrize("train", ["encoder frozen", "all frozen"])
def test_frozen_weights_stored_in_bf16_give_the_same_bits(train: str) -> None:
    model = reference_model()
    freeze_encoder(model)
    if train == "all frozen":
        model.requires_grad_(False)
    images = reference_images("interp")

    def outputs() -> tuple[Tensor, ...]:
        with autocast("cpu", "bf16"):
            prediction = model(images)
        return (*prediction.pose_encodings, prediction.depth, prediction.depth_confidence)

    expected, before = outputs(), weights_hash(model)
    store_frozen_in_bf16(model.aggregator)
    assert all(torch.equal(new, old) for new, old in zip(outputs(), expected, strict=True))
    assert weights_hash(model) != before
    shrunk = [name for name, weight in model.named_parameters() if weight.dtype == BF16]
    assert shrunk
    for name in shrunk:
        assert name.startswith("aggregator.patch_embed." if train == "encoder frozen" else "aggregator.")
        assert not any(word in name for word in ("norm", "gamma", "token", "pos_embed"))


def test_resolving() -> None:
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("auto", torch.device("cuda", 0)) == "bf16"
    assert resolve_precision("fp32", "cuda") == "fp32"
    with pytest.raises(ConfigError, match="fp16"):
        resolve_precision("fp16", "cpu")
    with autocast("cpu", "fp32"):
        assert not torch.is_autocast_enabled("cpu")
    with autocast("cpu", "bf16"):
        assert torch.is_autocast_enabled("cpu")
