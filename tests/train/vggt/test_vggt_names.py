"""Names, shapes and counts of vggt-1b, on the meta device, against the published model's manifest."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from vggt_reference import FIXTURES

from megasynth_train.vggt.config import SIZES, named_config
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import VGGT

PARTS = {
    "dino_encoder": 304_372_736,
    "aggregator_frame": 302_364_672,
    "aggregator_global": 302_364_672,
    "aggregator_tokens": 10_240,
    "camera_head": 216_174_610,
    "depth_head": 32_654_562,
    "point_head": 32_654_628,
}


def manifest() -> list[list[str]]:
    lines = (FIXTURES / "vggt_state_dict_manifest.tsv").read_text().splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


@pytest.fixture(scope="module")
def published() -> VGGT:
    with torch.device("meta"):
        return VGGT(named_config("vggt-1b"))


def test_manifest(published: VGGT) -> None:
    rows = [row for row in manifest() if row[2] == "1" and row[4] != "track_head"]
    expected = {row[0]: tuple(int(side) for side in row[5].split("x")) for row in rows}
    assert {name: tuple(tensor.shape) for name, tensor in published.state_dict().items()} == expected
    frozen = {row[0] for row in rows if row[3] == "0"}
    assert {name for name, weight in published.named_parameters() if not weight.requires_grad} == frozen


def test_parameter_counts(published: VGGT) -> None:
    part_of = {row[0]: row[4] for row in manifest()}
    counts: Counter[str] = Counter()
    for name, weight in published.named_parameters():
        counts[part_of[name]] += weight.numel()
    assert counts == PARTS
    assert sum(weight.numel() for weight in published.aggregator.frame_blocks[0].parameters()) == 12_598_528


@pytest.mark.parametrize(("off", "total"), [(("point_head",), 1_157_941_492), (("point_head", "camera_head"), None)])
def test_heads_can_be_switched_off(off: tuple[str, ...], total: int | None) -> None:
    with torch.device("meta"):
        model = VGGT(named_config("vggt-1b", **{head: False for head in off}))
    count = sum(weight.numel() for weight in model.parameters())
    assert count == (total or sum(PARTS.values()) - sum(PARTS[head] for head in off))
    assert not any(name.startswith(off) for name in model.state_dict())


def test_a_forward_pass_of_the_published_size_runs_on_the_meta_device(published: VGGT) -> None:
    """No number is ever read back: reading one raises on the meta device."""
    with torch.no_grad():
        prediction = published(torch.empty(1, 2, 3, 518, 518, device="meta"))
    assert [tuple(pose.shape) for pose in prediction.pose_encodings] == [(1, 2, 9)] * 4
    assert prediction.depth.shape == prediction.points_confidence.shape == (1, 2, 518, 518)
    assert prediction.points.shape == (1, 2, 518, 518, 3)


def test_named_sizes() -> None:
    assert set(SIZES) == {"vggt-1b", "vggt-small", "vggt-tiny"}
    tiny = random_model(named_config("vggt-tiny"), seed=0)
    assert 2e6 < sum(weight.numel() for weight in tiny.parameters()) < 4e6
    assert tiny.config.image_size_px == 126
    with torch.device("meta"):
        small = VGGT(named_config("vggt-small"))
    assert 50e6 < sum(weight.numel() for weight in small.parameters()) < 80e6
