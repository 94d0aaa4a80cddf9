"""torch.compile per block: the same numbers under the same names."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from megasynth_train.vggt.block import Block
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import compile_model, freeze_encoder
from megasynth_train.vggt.tables import grid_rotation


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.slow
def test_every_block_is_traced_whole_in_changing_shapes() -> None:
    """With the tracer alone (no machine code): nothing breaks the graph, and the number of variants stays bounded."""
    config = named_config("vggt-tiny", encoder_depth=2, camera_depth=1, point_head=False)
    plain, compiled = random_model(config, seed=3), random_model(config, seed=3)
    assert compile_model(compiled, backend="eager") == 2 + 2 * config.depth + 2  # blocks, camera head, depth head
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for model in (plain, compiled):
        freeze_encoder(model)
    variants = []
    for scenes, frames, height in ((1, 2, 28), (2, 3, 42), (1, 4, 28), (3, 2, 14), (4, 3, 28)):
        images = torch.rand(scenes, frames, 3, height, 28, generator=torch.Generator().manual_seed(frames))
        results = []
        for model in (plain, compiled):
            model.zero_grad()
            prediction = model(images)
            (prediction.depth.mean() + prediction.pose_encodings[-1].mean()).backward()
            results.append((prediction.depth, prediction.pose_encodings[-1], model.aggregator.camera_token.grad))
        for found, expected in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        variants.append(counters["stats"]["unique_graphs"])
    assert not counters["graph_break"]
    assert variants[-1] == variants[-2] <= 18, variants


@pytest.mark.slow
def test_less_is_kept_where_the_budget_says_so() -> None:
    """Gradients stay; what a compiled block keeps for them shrinks with ``keep``."""
    tokens = torch.randn(4, 50, 64, generator=torch.Generator().manual_seed(0))
    kept, gradients = [], []
    for keep in (1.0, 0.4, 0.0):
        torch._dynamo.reset()
        torch.manual_seed(0)
        block = Block(64, 4, 4.0, qk_norm=True)
        compile_model(block, backend="aot_eager_decomp_partition", keep=keep)
        sizes: list[int] = []

        def count(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            out = block(tokens)
        out.square().mean().backward()
        kept.append(sum(sizes))
        gradients.append(block.attn.qkv.weight.grad)
    assert kept[0] > kept[1] > kept[2], kept
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_machine_code_of_a_block_gives_the_same_numbers() -> None:
    block = Block(32, 2, 2.0, qk_norm=True)
    rotation = grid_rotation(2, 3, 5, 16, 100.0, torch.device("cpu"))
    tokens = torch.randn(2, 11, 32, generator=torch.Generator().manual_seed(0))

    def run() -> tuple[Tensor, Tensor]:
        block.zero_grad()
        out = block(tokens, rotation)
        out.square().mean().backward()
        return out.detach(), block.attn.qkv.weight.grad

    expected = run()
    assert compile_model(block) == 1
    for found, plain in zip(run(), expected, strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)
    assert counters["stats"]["unique_graphs"] == 1
