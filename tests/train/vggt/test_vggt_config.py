"""Sizes that fit, and those that do not."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megasynth_attr.core.errors import ConfigError
from megasynth_train.vggt.config import SIZES, VGGTConfig, config_from_record, named_config
from megasynth_train.vggt.initialise import random_model


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 7}, "multiple of 4"),
        ({"encoder_heads": 7}, "encoder_heads"),
        ({"camera_heads": 7}, "camera_heads"),
        ({"image_size_px": 130}, "patch_size_px"),
        ({"depth": 3}, "beyond depth"),
        ({"taps": (0, 1, 2)}, "four increasing"),
        ({"taps": (0, 2, 1, 3)}, "four increasing"),
        ({"taps": (-1, 1, 2, 3)}, "four increasing"),
        ({"dpt_channels": (32, 64, 96, 98)}, "multiples of 4"),
        ({"dpt_features": 36}, "multiple of 8"),
        ({"mlp_ratio": 1.003}, "not whole"),
        ({"width": 0}, "greater than 0"),
        ({"camera_iterations": 0}, "greater than 0"),
        ({"register_count": -1}, "negative"),
        ({"widht": 96}, "unknown size 'widht'"),
    ],
)
def test_misfits(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        named_config("vggt-tiny", **changes)


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="vggt-1b, vggt-small, vggt-tiny"):
        named_config("vggt-2b")


@pytest.mark.parametrize("name", SIZES)
def test_record_round_trip(name: str) -> None:
    assert config_from_record(asdict(SIZES[name])) == SIZES[name]
    with pytest.raises(ConfigError, match="unknown size 'wings'"):
        config_from_record(asdict(SIZES[name]) | {"wings": 2})


@settings(max_examples=12, deadline=None)
@given(
    heads=st.integers(1, 3),
    head_dim=st.sampled_from([4, 8]),
    encoder_heads=st.sampled_from([1, 2]),
    registers=st.integers(0, 3),
    encoder_registers=st.integers(0, 2),
    iterations=st.integers(1, 3),
    patch=st.sampled_from([2, 7]),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    mlp_ratio=st.sampled_from([0.5, 2.0]),
)
def test_any_size_runs(
    heads: int,
    head_dim: int,
    encoder_heads: int,
    registers: int,
    encoder_registers: int,
    iterations: int,
    patch: int,
    grid: tuple[int, int],
    mlp_ratio: float,
) -> None:
    config = VGGTConfig(
        width=heads * head_dim,
        patch_size_px=patch,
        image_size_px=3 * patch,
        register_count=registers,
        encoder_depth=1,
        encoder_heads=encoder_heads,
        encoder_register_count=encoder_registers,
        depth=5,
        heads=heads,
        mlp_ratio=mlp_ratio,
        taps=(0, 1, 2, 3),
        camera_depth=1,
        camera_heads=2,
        camera_iterations=iterations,
        dpt_channels=(4, 8, 4, 12),
        dpt_features=8,
        dpt_hidden=3,
    )
    model = random_model(config, seed=1)
    size = (grid[0] * patch, grid[1] * patch)
    prediction = model(torch.rand(2, 3, 3, *size))
    assert prediction.depth.shape == (2, 3, *size) and prediction.points.shape == (2, 3, *size, 3)
    assert len(prediction.pose_encodings) == iterations
    assert all(torch.isfinite(tensor).all() for tensor in (prediction.depth, prediction.points))
