"""torch.compile per block: the same numbers under the same names."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import compile_blocks


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_give_the_same_numbers() -> None:
    config = named_config("vggt-tiny", depth=4, camera_head=False, point_head=False)
    plain, compiled = random_model(config, seed=3), random_model(config, seed=3)
    pair = torch.nn.ModuleList((compiled.aggregator.frame_blocks[0], compiled.aggregator.global_blocks[0]))
    assert compile_blocks(pair) == 2
    assert list(compiled.state_dict()) == list(plain.state_dict())
    torch._dynamo.reset()
    counters.clear()
    for frames in (2, 3):
        images = torch.rand(1, frames, 3, 28, 28, generator=torch.Generator().manual_seed(frames))
        found, expected = compiled(images), plain(images)
        torch.testing.assert_close(found.depth, expected.depth, rtol=0, atol=1e-5)
        for model, prediction in ((compiled, found), (plain, expected)):
            model.zero_grad()
            prediction.depth.mean().backward()
        name = "aggregator.global_blocks.0.attn.qkv.weight"
        torch.testing.assert_close(
            compiled.get_parameter(name).grad, plain.get_parameter(name).grad, rtol=1e-3, atol=1e-6
        )
    assert not counters["graph_break"]
