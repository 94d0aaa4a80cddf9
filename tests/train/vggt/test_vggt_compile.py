"""torch.compile per block: the same numbers under the same names."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from megasynth_train.vggt.block import Block
from megasynth_train.vggt.config import ATTENTION, KEPT, named_config
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import compile_model, freeze_encoder
from megasynth_train.vggt.tables import grid_rotation


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.slow
def test_parts_are_compiled_once_for_all_numbers_of_scenes_and_views() -> None:
    """With the tracer alone (no machine code): no graph is broken, and new shapes make no new ones."""
    config = named_config("vggt-tiny", encoder_depth=1, camera_depth=1, point_head=False)
    plain, compiled = random_model(config, seed=3), random_model(config, seed=3)
    compiled.kept = ATTENTION
    assert compile_model(compiled, backend="eager") == 1 + 2 * config.depth + 2  # blocks, camera head, depth head
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for model in (plain, compiled):
        freeze_encoder(model)
    variants = []
    for scenes, frames in ((4, 4), (2, 8), (5, 4), (1, 17)):
        images = torch.rand(scenes, frames, 3, 28, 28, generator=torch.Generator().manual_seed(frames))
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
    # encoder, frame and global blocks, an iteration of the camera head whose first pose may learn or not, depth head
    assert variants[:3] == [6] * 3
    assert variants[3] <= 12, "one scene is a case of its own"


@pytest.mark.slow
def test_less_is_kept_inside_compiled_blocks() -> None:
    """Gradients stay. Of a block that keeps nothing only the input is left for them, else attention's results too."""
    tokens = torch.randn(2, 2, 50, 64, generator=torch.Generator().manual_seed(0))
    kept_bytes, gradients = [], []
    for kept in KEPT:
        torch._dynamo.reset()
        torch.manual_seed(0)
        block = Block(64, 4, 4.0, qk_norm=True)
        weights = {weight.untyped_storage().data_ptr() for weight in block.parameters()}
        block.kept = kept
        compile_model(block, backend="aot_eager_decomp_partition")
        sizes: dict[int, int] = {}

        def count(tensor: Tensor, weights: set[int] = weights, sizes: dict[int, int] = sizes) -> Tensor:
            if (storage := tensor.untyped_storage()).data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            out = block(tokens, across=True)
        out.square().mean().backward()
        kept_bytes.append(sum(sizes.values()))
        gradients.append(block.attn.qkv.weight.grad)
    log_sum_exp = 4 * 4 * 2 * 2 * 50  # float32, 4 heads
    everything, attention, nothing = kept_bytes
    assert attention == 2 * tokens.nbytes + log_sum_exp
    assert tokens.nbytes <= nothing < 1.2 * tokens.nbytes, "the compiler may keep a few numbers per token"
    assert everything > 10 * tokens.nbytes
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_machine_code_of_a_block_gives_the_same_numbers_and_is_kept() -> None:
    rotation = grid_rotation(2, 3, 5, 16, 100.0, torch.device("cpu"))
    tokens = torch.randn(2, 3, 11, 32, generator=torch.Generator().manual_seed(0))

    def run(*, compiled: bool) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        block = Block(32, 2, 2.0, qk_norm=True)
        block.kept = ATTENTION
        assert not compiled or compile_model(block) == 1
        out = block(tokens, rotation=rotation, across=True)
        out.square().mean().backward()
        return out.detach(), block.attn.qkv.weight.grad

    expected = run(compiled=False)
    for _ in range(2):
        torch._dynamo.reset()
        counters.clear()
        for found, plain in zip(run(compiled=True), expected, strict=True):
            torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)
        assert counters["stats"]["unique_graphs"] == 1
    assert counters["inductor"]["fxgraph_cache_hit"] == 2, "forward and backward"
