"""Properties of the model that no stored number shows: symmetry, tables, freezing, recomputation, distribution."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from vggt_reference import CONFIG, reference_images, reference_model

from megasynth_attr.core.errors import ConfigError
from megasynth_train.vggt.block import Block
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.dpt_head import DPTHead
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import VGGT, Prediction, compile_model, freeze_encoder


def close(actual: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def objective(prediction: Prediction) -> Tensor:
    """Return some scalar every output enters."""
    poses = sum(pose.square().mean() for pose in prediction.pose_encodings)
    return poses + prediction.depth.mean() + prediction.depth_confidence.log().mean()


def gradients(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    objective(model(images)).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_scenes_do_not_see_each_other() -> None:
    model, images = reference_model(), reference_images("native")
    together = model(images)
    for scene in range(2):
        alone = model(images[scene])  # four dimensions: one scene
        close(alone.depth[0], together.depth[scene])
        close(alone.pose_encodings[-1][0], together.pose_encodings[-1][scene])


def test_only_the_first_frame_is_special() -> None:
    """Swapping other frames swaps their predictions; swapping the first changes them."""
    model, images = reference_model(), reference_images("native")
    base, swapped, other_first = model(images), model(images[:, [0, 2, 1]]), model(images[:, [1, 0, 2]])
    close(swapped.depth[:, [0, 2, 1]], base.depth)
    close(swapped.pose_encodings[-1][:, [0, 2, 1]], base.pose_encodings[-1])
    assert (other_first.pose_encodings[-1][:, [1, 0, 2]] - base.pose_encodings[-1]).abs().max() > 1e-2


def test_one_frame_and_many() -> None:
    model = reference_model()
    assert model(torch.rand(2, 1, 3, 70, 70)).depth.shape == (2, 1, 70, 70)
    images = torch.rand(2, 9, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    kept = images.clone()
    with torch.no_grad():
        pieces = model(images)  # 18 frames: pieces of 8, 8 and 2 across scenes
    close(pieces.depth, model(images).depth.detach())
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(1, 2, 3, 70, 71),
        torch.rand(1, 2, 4, 70, 70),
        torch.rand(3, 70, 70),
        torch.zeros(1, 2, 3, 70, 70, dtype=torch.uint8),
        torch.rand(1, 0, 3, 70, 70),
    ],
    ids=["side", "channels", "dimensions", "bytes", "none"],
)
def test_images_it_cannot_take(images: Tensor) -> None:
    with pytest.raises(ConfigError, match="images are"):
        reference_model()(images)


def test_tables_are_made_once_per_shape_and_owned_by_the_model() -> None:
    model, other = reference_model().aggregator, reference_model().aggregator
    square, wide = reference_images("native"), reference_images("interp")
    table = model.rotation(square).cos
    assert model.rotation(wide).cos.shape != table.shape
    assert model.rotation(square).cos is table
    assert other.rotation(square).cos is not table
    assert not list(model.buffers())


def test_tables_survive_inference_mode_copies_devices_and_tracing() -> None:
    model, images = reference_model(), reference_images("interp")
    with torch.inference_mode():
        expected = model(images).depth.clone()
    assert gradients(model, images)  # tables made under inference_mode take part in training
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        close(twin(images).depth.detach(), expected, 0)
    elsewhere = copy.deepcopy(model).to("meta")
    assert elsewhere(images.to("meta")).depth.device.type == "meta"
    fresh = reference_model()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fresh(mode.from_tensor(images))
    close(fresh(images).depth.detach(), expected, 0)


def test_forward_and_backward_never_read_a_number() -> None:
    """On the meta device a read raises; on a GPU it would make the host wait."""
    model = random_model(CONFIG, seed=0).to("meta")
    objective(model(torch.rand(2, 3, 3, 56, 84, device="meta"))).backward()


def test_frozen_encoder_keeps_nothing_and_changes_no_other_gradient() -> None:
    model, images = reference_model(), reference_images("native")
    expected = gradients(model, images)
    freeze_encoder(model)
    seen: list[bool] = []
    model.aggregator.patch_embed.register_forward_hook(lambda module, given, out: seen.append(out.requires_grad))
    found = gradients(model, images)
    assert seen == [False]
    assert set(found) == {name for name in expected if not name.startswith("aggregator.patch_embed.")}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])
    watched = images.clone().requires_grad_()
    objective(model(watched)).backward()
    assert watched.grad is not None and watched.grad.abs().max() > 0


@pytest.mark.parametrize("frozen", [False, True], ids=["all", "encoder-frozen"])
@pytest.mark.parametrize("kept", ["attention", "nothing"])
def test_blocks_are_computed_again_and_gradients_stay_to_the_bit(frozen: bool, kept: str) -> None:
    model, images = reference_model(), reference_images("interp")
    if frozen:
        freeze_encoder(model)
    expected = gradients(model, images)
    calls: list[str] = []
    for name, module in model.aggregator.named_modules():
        if isinstance(module, Block):
            module.norm1.register_forward_pre_hook(lambda module, given, name=name: calls.append(name))
    assert model.kept == "everything"
    model.kept = kept
    found = gradients(model, images)
    assert set(found) == set(expected)
    for name, gradient in found.items():
        assert torch.equal(gradient, expected[name]), name
    for name in set(calls):
        assert calls.count(name) == (1 if frozen and name.startswith("patch_embed.") else 2), name
    calls.clear()
    with torch.no_grad():
        model(images)
    assert len(calls) == len(set(calls)) == CONFIG.encoder_depth + 2 * CONFIG.depth


@pytest.mark.parametrize("compiled", [False, True])
def test_the_depth_head_is_computed_again_a_few_frames_at_a_time(compiled: bool) -> None:
    torch.manual_seed(0)
    head = DPTHead(CONFIG, outputs=2).double()
    tokens = CONFIG.special_count + 4
    taps = [torch.randn(3, 7, tokens, 2 * CONFIG.width, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    weight = torch.randn(3, 7, 2, 28, 28, dtype=torch.float64)
    frames: list[int] = []
    if not compiled:  # a hook is no part of a graph
        head.norm.register_forward_pre_hook(lambda module, given: frames.append(len(given[0])))

    def done() -> tuple[Tensor, list[Tensor]]:
        head.zero_grad()
        out = head(taps, (28, 28))
        return out.detach(), list(torch.autograd.grad((out * weight).sum(), [*taps, *head.parameters()]))

    out, expected = done()
    frames.clear()
    head.kept = "attention"
    if compiled:
        compile_model(nn.ModuleList([head]), backend="aot_eager_decomp_partition")
    again, found = done()
    torch.testing.assert_close(again, out, rtol=0, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert frames == ([] if compiled else [7] * 4 * 3 * 2), "every tap of three pieces, twice"


def test_distributed_data_parallel(tmp_path: Path) -> None:
    """One process; DDP must find every gradient and have no buffer to broadcast."""
    images = reference_images("interp")
    expected = gradients(reference_model(), images)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(reference_model())
        for _ in range(2):  # a parameter without gradient would stop the second step
            found = gradients(parallel, images)
    finally:
        torch.distributed.destroy_process_group()
    assert set(found) == {f"module.{name}" for name in expected}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[f"module.{name}"], gradient)


def test_random_models_follow_their_seed_alone() -> None:
    config = named_config("vggt-tiny")
    torch.manual_seed(1)
    first = random_model(config, seed=7)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    second, third = random_model(config, seed=7), random_model(config, seed=8)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(
        first.aggregator.frame_blocks[0].attn.qkv.weight, third.aggregator.frame_blocks[0].attn.qkv.weight
    )
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.isfinite(weight).all() for weight in first.parameters())


def test_an_untrained_model_starts_near_the_scale_of_a_normalised_scene() -> None:
    model = random_model(named_config("vggt-tiny", point_head=False), seed=0)
    prediction = model(torch.rand(1, 4, 3, 126, 126, generator=torch.Generator().manual_seed(0)))
    assert 0.8 < prediction.depth.mean() < 1.25
    pose = prediction.pose_encodings[-1]
    assert (pose[..., 6] > 0.3).all() and (pose[..., 7:] > 0.3).all()
    gradient = gradients(model, torch.rand(1, 4, 3, 126, 126))["camera_head.pose_branch.fc2.bias"]
    assert (gradient[7:] != 0).all()


def test_model_code_needs_no_transformers() -> None:
    for path in Path(VGGT.__init__.__code__.co_filename).parent.glob("*.py"):
        assert "transformers" not in path.read_text(), path
