"""The losses: released values and gradients, a slow double-precision oracle with every edge rule, properties."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from losses_oracle import Answer, oracle_camera, oracle_depth
from safetensors.torch import load_file
from torch import Tensor

from megasynth_attr.core.errors import ConfigError
from megasynth_train.data.geometry import encode_pose, rigid, rotation_from_quaternion
from megasynth_train.training.losses import (
    Losses,
    camera_losses,
    count,
    depth_losses,
    filtered_mean,
    gradient_loss,
    losses,
    masked_quantile,
)
from megasynth_train.training.normalisation import Target
from megasynth_train.training.settings import LossSettings

FIXTURE = Path(__file__).parents[2] / "fixtures" / "losses.safetensors"
slow_examples = hypothesis_settings(max_examples=40, deadline=None, derandomize=True)


def released() -> tuple[dict[str, Tensor], Answer, Target]:
    fixture = load_file(FIXTURE)
    for name in ("camera.pred_pose_enc_list", "depth.pred", "depth.conf"):
        fixture[name].requires_grad_()
    answer = Answer(
        tuple(fixture["camera.pred_pose_enc_list"].unbind()), fixture["depth.pred"][..., 0], fixture["depth.conf"]
    )
    target = Target(
        images=torch.zeros(3, 3, 3, 28, 42),
        depth=fixture["batch.depths"],
        masks=fixture["batch.point_masks"],
        camera_from_world=fixture["batch.extrinsics"],
        intrinsics=fixture["batch.intrinsics"],
        scale=torch.ones(3),
    )
    return fixture, answer, target


def close(actual: Tensor | float, expected: Tensor | float, rtol: float = 1e-6) -> None:
    actual = torch.as_tensor(actual)
    torch.testing.assert_close(actual, torch.as_tensor(expected).to(actual.dtype), rtol=rtol, atol=1e-9)


def random_case(
    seed: int, scenes: int = 2, views: int = 2, valid: float = 0.8, hw: tuple[int, int] = (24, 30)
) -> tuple[Answer, Target]:
    """Return predictions with outliers, two refinements and random targets, all as leaves that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shape = (scenes, views, *hw)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    masks = uniform(*shape) < valid
    truth = (uniform(*shape) * 3 + 0.2) * masks
    depth = truth + torch.randn(shape, generator=generator) * 0.3 + (uniform(*shape) > 0.97) * 150 * uniform(*shape)
    confidence = 1 + uniform(*shape) * 4
    poses = rigid(
        rotation_from_quaternion(torch.randn(scenes, views, 4, generator=generator)),
        torch.randn(scenes, views, 3, generator=generator),
    )
    intrinsics = torch.tensor([[40.0, 0, hw[1] / 2], [0, 35.0, hw[0] / 2], [0, 0, 1]]).expand(scenes, views, 3, 3)
    encodings = tuple(torch.randn(scenes, views, 9, generator=generator) * 2 for _ in range(2))
    for leaf in (*encodings, depth, confidence):
        leaf.requires_grad_()
    target = Target(torch.zeros(scenes, views, 3, *hw), truth, masks, poses, intrinsics, torch.ones(scenes))
    return Answer(encodings, depth, confidence), target


def test_values_and_gradients_equal_the_released_code() -> None:
    fixture, answer, target = released()
    result = losses(answer, target, LossSettings())
    for name, expected in {
        "objective": "total.objective",
        "camera": "camera.loss_camera",
        "translation": "camera.loss_T",
        "rotation": "camera.loss_R",
        "fov": "camera.loss_FL",
        "depth_confidence": "depth.loss_conf_depth",
        "depth_regression": "depth.loss_reg_depth",
        "depth_gradient": "depth.loss_grad_depth",
    }.items():
        close(dict(result.items())[name], fixture[expected])
    result.objective.backward()
    for leaf, gradient in {
        "camera.pred_pose_enc_list": "total.dobj_dpose_enc_list",
        "depth.pred": "total.dobj_ddepth",
        "depth.conf": "total.dobj_dconf",
    }.items():
        torch.testing.assert_close(fixture[leaf].grad, fixture[gradient], rtol=1e-6, atol=1e-7)


def test_parts_equal_the_released_code() -> None:
    fixture, answer, target = released()
    plain = losses(answer, target, LossSettings(quantile=1.0))
    close(plain.depth_confidence.detach(), fixture["depth_noquantile.loss_conf_depth"])
    close(plain.depth_regression.detach(), fixture["depth_noquantile.loss_reg_depth"])
    residual = (target.depth - fixture["depth.pred"][..., 0]).detach().abs()
    assert torch.equal(residual[target.masks], fixture["depth.reg_vector"])
    threshold = masked_quantile(residual, target.masks, 0.98)
    assert threshold == fixture["depth.reg_quantile_thresh"]
    assert (residual[target.masks] < threshold).sum() == fixture["depth.reg_kept_count"]
    everywhere = torch.ones(1001, dtype=torch.bool)
    for q, nearest in zip((0.0, 0.1, 0.5, 0.98, 1.0), fixture["quantile.nearest"], strict=True):
        assert masked_quantile(fixture["quantile.x"], everywhere, q) == nearest


@given(
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]),
    st.sampled_from([(24, 30), (9, 7)]),
    st.sampled_from([0.5, 0.98, 1.0]),
)
@slow_examples
def test_depth_losses_equal_the_oracle(seed: int, valid: float, hw: tuple[int, int], quantile: float) -> None:
    answer, target = random_case(seed, valid=valid, hw=hw)
    settings = LossSettings(quantile=quantile)
    result = depth_losses(
        answer.depth, answer.depth_confidence, target.depth, target.masks, settings, count(target.masks, settings)
    )
    for actual, expected in zip(result, oracle_depth(answer, target, settings), strict=True):
        close(actual.detach().double(), expected, 1e-5)


@given(
    st.integers(0, 10_000),
    st.sampled_from([0.05, 0.14, 0.9]),
    st.sampled_from(["first_frame", "any_frame"]),
    st.sampled_from(["raw", "sign_invariant"]),
)
@slow_examples
def test_camera_losses_equal_the_oracle(seed: int, valid: float, camera_valid: str, quaternion: str) -> None:
    answer, target = random_case(seed, scenes=3, valid=valid)
    with torch.no_grad():
        answer.pose_encodings[0][0, 0, 0] = 250.0
        answer.pose_encodings[0][1, 0, 1] = float("nan")
        answer.pose_encodings[1][2, 1, 8] = float("-inf")
    settings = LossSettings(camera_valid=camera_valid, quaternion=quaternion, gamma=0.6)
    result = camera_losses(answer.pose_encodings, target, settings, count(target.masks, settings))
    for actual, expected in zip(result, oracle_camera(answer, target, settings), strict=True):
        close(actual.detach().double(), expected, 1e-5)


@given(st.integers(1, 1200), st.integers(0, 800), st.floats(0, 0.999), st.integers(0, 10_000))
@example(1, 0, 0.5, 0)
@example(3, 0, 0.25, 0)  # 0.25 x 2 = 0.5 rounds to the even 0
@example(4, 0, 0.5, 0)  # 0.5 x 3 = 1.5 rounds to the even 2
@hypothesis_settings(deadline=None)
def test_quantile_is_the_nearest_rank_whatever_the_mask(valid: int, invalid: int, quantile: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(valid + invalid, generator=generator)
    values, masks = torch.randn(valid + invalid, generator=generator), order < valid
    expected = values[masks].sort().values[round(quantile * (valid - 1))]
    assert masked_quantile(values, masks, quantile) == expected


@pytest.mark.parametrize(
    ("count", "mean"),
    [
        (1000, (999 + 5000) / 1000),  # 1000 values: neither capped nor filtered
        (1001, (1000 + 100) / 1001),  # capped; below the 0.98 quantile 1 nothing remains: all are kept
        (1040, (1039 + 100) / 1040),
    ],
)
def test_filter_needs_and_leaves_more_than_a_thousand(count: int, mean: float) -> None:
    values = torch.ones(count)
    values[7] = 5000.0
    close(filtered_mean(values, torch.ones(count, dtype=torch.bool), 0.98), mean)


@pytest.mark.parametrize(("count", "kept"), [(1021, 1021), (1022, 1001)])
def test_filter_threshold_is_excluded(count: int, kept: int) -> None:
    """Of 1021 distinct values round(0.98 x 1020) = 1000 lie below the threshold, too few; of 1022 it is 1001."""
    values = torch.arange(count, dtype=torch.float32) / count
    close(filtered_mean(values, torch.ones(count, dtype=torch.bool), 0.98), values[:kept].mean())


def test_filter_cap_excludes_values_at_the_limit() -> None:
    values = torch.cat([torch.ones(1500), torch.full((1500,), 120.0)])
    close(filtered_mean(values, torch.ones(3000, dtype=torch.bool), 0.98), 1.0)


@pytest.mark.parametrize(("pixels", "depth_counts", "camera_counts"), [(99, 0, 0), (100, 1, 0), (101, 1, 1)])
def test_a_hundred_valid_pixels_make_the_difference(pixels: int, depth_counts: int, camera_counts: int) -> None:
    answer, target = random_case(5, scenes=1, views=1)
    masks = torch.zeros_like(target.masks)
    masks.view(-1)[:pixels] = True
    result = losses(answer, replace(target, masks=masks), LossSettings())
    assert (result.depth_regression > 0) == bool(depth_counts) == bool(result.depth_gradient > 0)
    assert bool(result.camera > 0) == bool(camera_counts)
    result.objective.backward()
    for leaf in (*answer.pose_encodings, answer.depth, answer.depth_confidence):
        assert leaf is not None and leaf.grad is not None and torch.isfinite(leaf.grad).all()


def test_no_valid_pixel_at_all_is_zero_and_stays_in_the_graph() -> None:
    answer, target = random_case(6, valid=0.0)
    result = losses(answer, target, LossSettings())
    assert all(value == 0 for _, value in result.items())
    result.objective.backward()
    for leaf in (*answer.pose_encodings, answer.depth, answer.depth_confidence):
        assert leaf is not None and leaf.grad is not None and (leaf.grad == 0).all()


def test_camera_validity_options_differ_where_the_first_frame_is_empty() -> None:
    answer, target = random_case(7, scenes=2, views=3)
    target.masks[:, 0] = False
    assert losses(answer, target, LossSettings()).camera == 0
    assert losses(answer, target, LossSettings(camera_valid="any_frame")).camera > 0


def perfect(seed: int, stages: int = 4) -> tuple[Answer, Target]:
    _, target = random_case(seed)
    truth = encode_pose(target.camera_from_world, target.intrinsics, target.image_size_hw)
    return Answer((truth,) * stages, target.depth, torch.ones_like(target.depth)), target


@given(st.integers(0, 1000), st.sampled_from(["raw", "sign_invariant"]))
@hypothesis_settings(max_examples=15, deadline=None)
def test_a_perfect_prediction_costs_nothing(seed: int, quaternion: str) -> None:
    answer, target = perfect(seed)
    for name, value in losses(answer, target, LossSettings(quaternion=quaternion)).items():
        assert value.abs() < 1e-5, name


def test_confidence_is_rewarded_on_perfect_depth() -> None:
    answer, target = perfect(3)
    confident = replace(answer, depth_confidence=torch.full_like(target.depth, math.e))
    close(losses(confident, target, LossSettings(quantile=1.0)).depth_confidence, -0.2)


@given(st.integers(0, 1000), st.floats(0.1, 10), st.sampled_from([-1.0, 1.0]))
@hypothesis_settings(max_examples=15, deadline=None)
def test_sign_and_length_of_the_quaternion_count_only_when_raw(seed: int, length: float, sign: float) -> None:
    answer, target = random_case(seed)
    scale = torch.ones(9)
    scale[3:7] = sign * length
    changed = replace(answer, pose_encodings=tuple(encoding * scale for encoding in answer.pose_encodings))
    invariant = LossSettings(quaternion="sign_invariant")
    before, after = losses(answer, target, invariant), losses(changed, target, invariant)
    close(after.rotation.detach(), before.rotation.detach(), 1e-4)
    close(after.translation.detach(), before.translation.detach())
    if sign < 0:
        raw = LossSettings()
        assert losses(answer, target, raw).rotation != losses(changed, target, raw).rotation


def test_zero_quaternion_has_finite_gradients() -> None:
    answer, target = random_case(8)
    answer = replace(answer, pose_encodings=(torch.zeros(2, 2, 9, requires_grad=True),))
    losses(answer, target, LossSettings(quaternion="sign_invariant")).objective.backward()
    assert torch.isfinite(answer.pose_encodings[0].grad).all()  # type: ignore[arg-type]


def test_values_outside_the_mask_have_no_influence_not_even_undefined_ones() -> None:
    answer, target = random_case(9)
    before = losses(answer, target, LossSettings())
    for value in (float("nan"), float("inf"), 1e9):
        depth = torch.where(target.masks, answer.depth, value).detach().requires_grad_()  # type: ignore[call-overload]
        confidence = torch.where(target.masks, answer.depth_confidence, value).detach().requires_grad_()  # type: ignore[call-overload]
        after = losses(Answer(answer.pose_encodings, depth, confidence), target, LossSettings())
        for (name, one), (_, other) in zip(before.items(), after.items(), strict=True):
            assert one == other, name
        after.objective.backward()
        assert (depth.grad[~target.masks] == 0).all() and (confidence.grad[~target.masks] == 0).all()
        assert torch.isfinite(depth.grad).all() and torch.isfinite(confidence.grad).all()


def test_undefined_depth_at_a_valid_pixel_is_not_hidden() -> None:
    answer, target = random_case(10, valid=1.0)
    with torch.no_grad():
        answer.depth[0, 0, 3, 3] = float("nan")  # type: ignore[index]
    result = losses(answer, target, LossSettings())
    for value in (result.objective, result.depth_regression, result.depth_confidence, result.depth_gradient):
        assert torch.isnan(value)


def test_undefined_pose_counts_as_zero_with_a_zero_gradient() -> None:
    answer, target = random_case(11)
    with torch.no_grad():
        answer.pose_encodings[0][0, 0] = float("nan")
    losses(answer, target, LossSettings(depth=0.0)).objective.backward()
    assert (answer.pose_encodings[0].grad[0, 0] == 0).all()  # type: ignore[index]
    assert (answer.pose_encodings[0].grad[1, 1] != 0).all()  # type: ignore[index]


def test_true_depth_is_capped_too() -> None:
    truth, masks = torch.full((1, 1, 12, 12), 150.0), torch.ones(1, 1, 12, 12, dtype=torch.bool)
    settings, sure = LossSettings(), torch.ones_like(truth)
    _, regression, _ = depth_losses(torch.full_like(truth, 90.0), sure, truth, masks, settings, count(masks, settings))
    close(regression, 10.0)


def test_gradient_loss_of_a_ramp() -> None:
    """e = 3 x column: every horizontal step is 3 times the stride, every vertical one 0."""
    e = torch.arange(16.0).expand(1, 2, 8, 16) * 3
    valid = torch.ones_like(e, dtype=torch.bool)
    expected = sum(3 * s * (16 // s - 1) / (16 // s) for s in (1, 2, 4, 8)) / 4
    close(gradient_loss(e, valid, count(valid, LossSettings()).grid_pixels), expected)


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(12)
    values = torch.rand(1500, generator=generator, dtype=torch.float64, requires_grad=True)
    masks = torch.rand(1500, generator=generator) > 0.2
    direction = torch.randn(1500, generator=generator, dtype=torch.float64)
    filtered_mean(values, masks, 0.98).backward()
    step = 1e-7 * direction
    with torch.no_grad():
        numeric = (filtered_mean(values + step, masks, 0.98) - filtered_mean(values - step, masks, 0.98)) / 2e-7
    close(values.grad @ direction, numeric, 1e-6)  # type: ignore[operator]


@pytest.mark.parametrize("part", ["camera", "depth"])
def test_a_missing_head_needs_weight_zero(part: str) -> None:
    answer, target = random_case(13)
    lacking = replace(answer, pose_encodings=()) if part == "camera" else replace(answer, depth=None)
    with pytest.raises(ConfigError, match=f"loss.{part}=0"):
        losses(lacking, target, LossSettings())
    result: Losses = losses(lacking, target, replace(LossSettings(), **{part: 0.0}))
    full = losses(answer, target, replace(LossSettings(), **{part: 0.0}))
    assert result.objective == full.objective > 0


def test_weights_enter_the_objective() -> None:
    answer, target = random_case(14)
    result = losses(answer, target, LossSettings(camera=2.0, depth=3.0))
    depth = result.depth_confidence + result.depth_regression + result.depth_gradient
    close(result.objective, 2 * (result.translation + result.rotation + 0.5 * result.fov) + 3 * depth)


@pytest.mark.parametrize("quaternion", ["raw", "sign_invariant"])
def test_nothing_is_read_back_from_the_device(quaternion: str) -> None:
    """On the meta device there are no values: whatever asks for one, forward or backward, raises."""
    answer, target = random_case(15)
    leaves = [
        leaf.detach().to("meta").requires_grad_()
        for leaf in (*answer.pose_encodings, answer.depth, answer.depth_confidence)
        if leaf is not None
    ]
    absent = Target(*(getattr(target, name).to("meta") for name in Target.__dataclass_fields__))
    settings = LossSettings(quaternion=quaternion, camera_valid="any_frame")
    losses(Answer(tuple(leaves[:2]), *leaves[2:]), absent, settings).objective.backward()
    assert all(leaf.grad is not None and leaf.grad.shape == leaf.shape for leaf in leaves)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_without_synchronisation() -> None:
    fixture, answer, target = released()
    expected = losses(answer, target, LossSettings()).objective.detach()
    depth, confidence = answer.depth, answer.depth_confidence
    assert depth is not None and confidence is not None
    on_device = Answer(
        tuple(p.detach().cuda().requires_grad_() for p in answer.pose_encodings),
        depth.detach().cuda().requires_grad_(),
        confidence.detach().cuda().requires_grad_(),
    )
    there = Target(*(getattr(target, name).cuda() for name in Target.__dataclass_fields__))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = losses(on_device, there, LossSettings())
        result.objective.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    close(result.objective.detach().cpu(), expected)
    torch.testing.assert_close(on_device.depth.grad.cpu(), fixture["total.dobj_ddepth"][..., 0])  # type: ignore[union-attr]
