"""Which modules are adapted, the parameter counts of the published model, and patterns that fit nothing."""

from __future__ import annotations

import re
import time

import pytest
import torch
from adapter_models import adapted_model, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from megasynth_attr.core.errors import ConfigError
from megasynth_train.adapters import trainable_counts
from megasynth_train.adapters.targets import exact_pattern, find_targets
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.model import VGGT

VGGT_1B = named_config("vggt-1b", point_head=False)
HEADS = 3_753_280  # rank 16 on 20 linears and 30 convolutions


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (AdapterSettings(mode="full"), 853_568_756),
        (AdapterSettings(mode="lora", rank=16), 16_336_192),
        (AdapterSettings(mode="lora", rank=64), 65_344_768),
        (AdapterSettings(mode="lora", rank=256), 261_379_072),
        (AdapterSettings(mode="heads", rank=16), HEADS),
        (AdapterSettings(mode="pissa", rank=32), HEADS + 2 * 12_582_912),
        (AdapterSettings(mode="lora_xs", rank=32), HEADS + 192 * 32 * 32),
        (AdapterSettings(mode="lora", rank=32, head_rank=16), HEADS + 2 * 12_582_912),
        # one magnitude per output: 48 blocks of 3072 + 1024 + 4096 + 1024, and the outputs of the heads' 50 modules
        (AdapterSettings(mode="dora", rank=16), 16_336_192 + 48 * 9_216 + 92_587),
        # rank 24 and its 24 singular values per linear at the start, 16 on average at the end
        (AdapterSettings(mode="adalora", rank=16), HEADS + 12_582_912 * 24 // 16 + 192 * 24),
    ],
    ids=lambda value: f"{value.mode}-{value.rank}" if isinstance(value, AdapterSettings) else str(value),
)
def test_trained_parameters_of_vggt_1b(chosen: AdapterSettings, expected: int) -> None:
    start = time.process_time()
    rows = trainable_counts(VGGT_1B, chosen)
    assert sum(row.parameters for row in rows) == expected
    assert time.process_time() - start < 20  # nothing is allocated or initialised


def test_the_parts_of_lora_16_on_vggt_1b() -> None:
    parts: dict[str, int] = {}
    for row in trainable_counts(VGGT_1B, AdapterSettings(rank=16)):
        parts[row.part] = parts.get(row.part, 0) + row.parameters
    assert parts == {
        "aggregator, frame": 6_291_456,
        "aggregator, global": 6_291_456,
        "camera head": 2_326_816,
        "depth head": 1_426_464,
    }


def test_the_242_modules_of_vggt_1b() -> None:
    with torch.device("meta"):
        model = VGGT(named_config("vggt-1b"))  # with a point head, which is left out
    targets = find_targets(model)
    assert (len(targets.aggregator), len(targets.heads)) == (192, 50)
    kinds = [type(model.get_submodule(name)) for name in targets.heads]
    assert (kinds.count(nn.Linear), kinds.count(nn.Conv2d)) == (20, 30)
    assert all(re.fullmatch(exact_pattern(targets.all), name) for name in targets.all)
    assert sum(bool(re.fullmatch(exact_pattern(targets.all), name)) for name, _ in model.named_modules()) == 242


@settings(max_examples=50)
@given(st.lists(st.from_regex(r"[a-c](\.([0-9]{1,2}|[a-c]|x\+y)){0,4}", fullmatch=True), min_size=2, unique=True))
def test_the_exact_pattern_matches_exactly_the_names(names: list[str]) -> None:
    chosen, others = names[: len(names) // 2], names[len(names) // 2 :]
    pattern = re.compile(exact_pattern(chosen))
    assert all(pattern.fullmatch(name) for name in chosen)
    assert not any(pattern.fullmatch(name) for name in others)


def test_a_pattern_narrows_the_targets() -> None:
    adapted = adapted_model("lora", targets=r"aggregator\.global_blocks\.\d+\.attn\.(qkv|proj)|camera_head\.embed_pose")
    modules = {name.partition(".lora_")[0] for name in adapted.trainable}
    expected = {f"aggregator.global_blocks.{i}.attn.{kind}" for i in range(4) for kind in ("qkv", "proj")}
    assert modules == expected | {"camera_head.embed_pose"}
    assert set(adapted.groups) == {"aggregator", "camera"}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"aggregator\.blocks\..*", "matches no module"),
        (r".*\.qkv|camera_head\.embed_poze", "'camera_head.*embed_poze' matches no module"),
        (r"(camera_head|depth_head)\.none|.*fc1", "'.camera_head.depth_head.*none' matches no module"),
        (r"[|]]|.*fc1", "matches no module"),
        (r"aggregator\.patch_embed\..*", "outside the encoder"),
        (r"depth_head\.resize_layers\.0", "not a linear layer or convolution"),
        (r"qkv", "must match whole names"),
        (r"(aggregator", "not a regular expression"),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_targets(small_model(), pattern)


def test_the_encoder_is_never_a_target() -> None:
    assert not any("patch_embed" in name for name in find_targets(small_model(), r".*").all)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"mode": "heads", "targets": r"aggregator\..*"}, "no module of the heads"),
        ({"mode": "pissa", "targets": r"camera_head\..*"}, "use mode=lora"),
        ({"mode": "lora_xs", "rank": 25}, "singular vectors"),
        ({"mode": "pissa", "rank": 25}, "has only 24"),
        ({"mode": "full", "targets": ".*"}, "leave it empty"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        adapted_model(**chosen)
