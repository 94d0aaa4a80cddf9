"""Our model against numbers of the reference implementation, at the tolerances of the fixtures' README."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from vggt_reference import FIXTURES, fixture, reference_images, reference_model

from megasynth_train.training.losses import losses
from megasynth_train.training.normalisation import Target
from megasynth_train.training.settings import LossSettings
from megasynth_train.vggt.config import KEPT
from megasynth_train.vggt.dpt_head import depth_and_confidence, points_and_confidence
from megasynth_train.vggt.tables import map_coordinates, map_parts, rotate, rotation_of, whole_map

CASES = ("native", "interp")


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_tokens(case: str) -> None:
    expected, model, images = fixture("tiny_model_io"), reference_model(), reference_images(case)
    tokens = model.aggregator.embed(images).flatten(0, 1)
    close(tokens, expected[f"{case}.tokens_in"], 1e-5)
    close(tokens[:, 5:], expected[f"{case}.dino_patch_tokens"], 1e-5)
    taps = model.aggregator(images)
    assert len(taps) == 4
    for index, tap in enumerate(taps):
        close(tap, expected[f"{case}.agg_tokens.{index}"], 1e-5)


@pytest.mark.parametrize("grad", [True, False], ids=["whole", "in-pieces"])
@pytest.mark.parametrize("case", CASES)
def test_predictions(case: str, grad: bool) -> None:
    expected, model = fixture("tiny_model_io"), reference_model()
    with torch.set_grad_enabled(grad):
        prediction = model(reference_images(case))
    close(torch.stack(prediction.pose_encodings), expected[f"{case}.pose_enc_list"], 2e-5)
    close(prediction.depth, expected[f"{case}.depth"].squeeze(-1), 1e-5)
    close(prediction.depth_confidence, expected[f"{case}.depth_conf"], 5e-5)
    assert prediction.points is None and prediction.points_confidence is None


def test_resampled_positions() -> None:
    encoder = reference_model().aggregator.patch_embed
    close(encoder.positions(4, 6), fixture("tiny_model_io")["interp.pos_embed_resampled"], 1e-6)
    assert encoder.positions(5, 5) is encoder.pos_embed


def test_rotary_positions() -> None:
    io = fixture("tiny_model_io")
    for scene in range(2):
        rotation = rotation_of(io["rope.pos"][scene], head_dim=16, base=100.0)
        heads = io["rope.q"][scene : scene + 1].transpose(1, 2)
        close(rotate(heads, rotation).transpose(1, 2), io["rope.q_rot"][scene : scene + 1], 1e-6)


def test_position_map() -> None:
    io = fixture("tiny_model_io")
    x, y = map_coordinates(7, 4, 1.5, torch.device("cpu"))
    close(x.float(), io["dpt_pos.uv_w7_h4_aspect1.5"][0, :, 0], 1e-6)
    close(y.float(), io["dpt_pos.uv_w7_h4_aspect1.5"][:, 0, 1], 1e-6)
    x_part, y_part = map_parts(7, 4, 1.5, 16, 100.0, torch.device("cpu"))
    close(whole_map(x_part, y_part).permute(1, 2, 0), io["dpt_pos.embed_c16"], 1e-6)


def test_activations() -> None:
    io = fixture("tiny_model_io")
    points, confidence = points_and_confidence(io["act.x"])
    close(points, io["act.inv_log_pts"], 1e-6)
    close(confidence, io["act.expp1_conf"], 1e-6)
    depth, confidence = depth_and_confidence(io["act.x"][:, :2])
    close(depth, io["act.exp_depth_from_ch0"].squeeze(-1), 1e-6)
    close(confidence, io["act.expp1_conf_from_ch1"], 1e-6)


@pytest.mark.parametrize("kept", KEPT)
def test_training_step(kept: str) -> None:
    """Losses and the gradient norm of every parameter, 1e-4 relative; the same with activations recomputed."""
    step, model = fixture("train_step"), reference_model()
    model.kept = kept
    extrinsics = step["norm.extrinsics"]
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(*extrinsics.shape[:2], 1, 4)
    target = Target(
        images=step["images_u8"].float() / 255,
        depth=step["norm.depths"].float(),
        masks=step["point_masks"],
        camera_from_world=torch.cat((extrinsics, bottom), dim=2),
        intrinsics=step["intrinsics"],
        scale=torch.ones(2),
    )
    found = losses(model(target.images), target, LossSettings())
    found.objective.backward()
    names = {
        "objective": found.objective,
        "loss_camera": found.camera,
        "loss_T": found.translation,
        "loss_R": found.rotation,
        "loss_FL": found.fov,
        "loss_conf_depth": found.depth_confidence,
        "loss_reg_depth": found.depth_regression,
        "loss_grad_depth": found.depth_gradient,
    }
    for name, value in names.items():
        torch.testing.assert_close(value.detach(), step[f"loss.{name}"], rtol=1e-4, atol=0)
    weights = dict(model.named_parameters())
    with safe_open(FIXTURES / "train_step.safetensors", "pt") as file:
        order = json.loads(file.metadata()["param_names_sorted"])
    assert sorted(weights) == order
    norms = torch.tensor([-1.0 if weights[name].grad is None else weights[name].grad.norm().item() for name in order])
    torch.testing.assert_close(norms, step["grad_norms_sorted_by_name"], rtol=1e-4, atol=1e-9)
    for key in [key for key in step if key.startswith("grad.")]:
        gradient = weights[key.removeprefix("grad.")].grad
        assert (gradient - step[key]).norm() <= 1e-4 * step[key].norm()
