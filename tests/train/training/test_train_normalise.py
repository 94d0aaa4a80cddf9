"""The network's gauge: released numbers, the definition itself on point maps, invariances, degenerate scenes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from torch import Tensor

from megasynth_train.data.geometry import invert_pose, rigid, unproject
from megasynth_train.training.normalisation import Normalised, Target, normalise

FIXTURE = Path(__file__).parents[2] / "fixtures" / "batch_normalisation.safetensors"
angles = st.lists(st.floats(-math.pi, math.pi), min_size=3, max_size=3)


def rotations(vectors: Tensor) -> Tensor:
    return torch.from_numpy(Rotation.from_rotvec(vectors.reshape(-1, 3).numpy()).as_matrix()).reshape(
        *vectors.shape[:-1], 3, 3
    )


def scene(seed: int, scenes: int = 2, views: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return random depth, masks, intrinsics and poses."""
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(scenes, views, 12, 16, generator=generator) * 4 + 0.5
    masks = torch.rand(scenes, views, 12, 16, generator=generator) > 0.3
    intrinsics = torch.tensor([[20.0, 0, 8], [0, 18.0, 6], [0, 0, 1]]).expand(scenes, views, 3, 3)
    turns = torch.randn(scenes, views, 3, generator=generator, dtype=torch.float64)
    shifts = torch.randn(scenes, views, 3, generator=generator, dtype=torch.float64)
    return depth * masks, masks, intrinsics, rigid(rotations(turns), shifts)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def same(one: Normalised, other: Normalised, tolerance: float) -> None:
    close(one.depth, other.depth, tolerance)
    close(one.camera_from_world, other.camera_from_world, tolerance)


def test_equals_the_released_code() -> None:
    fixture = load_file(FIXTURE)
    masks, intrinsics = fixture["in.point_masks"], fixture["in.intrinsics"]
    result = normalise(fixture["in.depths"], masks, intrinsics, fixture["in.extrinsics"], pixel_centre=0.0)
    torch.testing.assert_close(result.scale, fixture["out.scale"], rtol=1e-6, atol=0)
    close(result.depth, fixture["out.depths"], 1e-6)
    close(result.camera_from_world[..., :3, :], fixture["out.extrinsics"], 1e-6)
    points = unproject(result.depth, intrinsics, result.camera_from_world, pixel_centre=0.0)
    close(points[masks], fixture["out.world_points"][masks], 2e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_first_camera_is_the_world_and_the_mean_distance_is_one(seed: int) -> None:
    depth, masks, intrinsics, poses = scene(seed)
    result = normalise(depth, masks, intrinsics, poses)
    assert result.depth.dtype == result.camera_from_world.dtype == result.scale.dtype == torch.float32
    close(result.camera_from_world[:, 0], torch.eye(4).expand(2, 4, 4), 1e-6)
    points = unproject(result.depth, intrinsics, result.camera_from_world)
    for b in range(2):
        close(points[b][masks[b]].norm(dim=-1).mean(), torch.tensor(1.0), 1e-4)
    original = unproject(depth.double(), intrinsics.double(), poses)
    first = original @ poses[:, :1, None, :3, :3].transpose(-1, -2) + poses[:, :1, None, None, :3, 3]
    close(points[masks] * result.scale[:, None, None, None, None].expand_as(points)[masks], first[masks].float(), 1e-4)


@given(st.integers(0, 10_000), angles, st.lists(st.floats(-1e5, 1e5), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_the_world_frame_does_not_matter_not_even_a_distant_one(
    seed: int, turn: list[float], shift: list[float]
) -> None:
    depth, masks, intrinsics, poses = scene(seed)
    motion = rigid(rotations(torch.tensor(turn, dtype=torch.float64)), torch.tensor(shift, dtype=torch.float64))
    before = normalise(depth, masks, intrinsics, poses)
    after = normalise(depth, masks, intrinsics, poses @ invert_pose(motion))
    same(before, after, 1e-5)
    close(before.scale, after.scale, 1e-5)


@given(st.integers(0, 10_000), st.floats(1e-2, 1e2))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_length_does_not_matter(seed: int, unit: float) -> None:
    depth, masks, intrinsics, poses = scene(seed)
    scaled = rigid(poses[..., :3, :3], poses[..., :3, 3] * unit)
    before, after = normalise(depth, masks, intrinsics, poses), normalise(depth * unit, masks, intrinsics, scaled)
    same(before, after, 1e-5)
    close(after.scale, before.scale * unit, 1e-5)


def test_scenes_do_not_influence_each_other_nor_do_invalid_pixels() -> None:
    depth, masks, intrinsics, poses = scene(1)
    noisy = torch.where(masks, depth, torch.tensor(float("nan")))
    together = normalise(noisy, masks, intrinsics, poses)
    for b in range(2):
        alone = normalise(*(part[b : b + 1] for part in (depth, masks, intrinsics, poses)))
        assert torch.equal(together.depth[b : b + 1], alone.depth)
        assert torch.equal(together.camera_from_world[b : b + 1], alone.camera_from_world)
    assert (together.depth[~masks] == 0).all()


def test_a_scene_without_valid_pixels_is_finite() -> None:
    depth, masks, intrinsics, poses = scene(2)
    masks = masks.clone()
    masks[1] = False
    result = normalise(depth, masks, intrinsics, poses)
    assert result.scale[1] == pytest.approx(1e-6)
    assert torch.isfinite(result.camera_from_world).all() and (result.depth[1] == 0).all()


def test_undefined_poses_become_zero() -> None:
    depth, masks, intrinsics, poses = scene(3)
    poses = poses.clone()
    poses[0, 1, 0, 3] = float("nan")
    result = normalise(depth, masks, intrinsics, poses)
    assert torch.isfinite(result.depth).all() and torch.isfinite(result.camera_from_world).all()


def test_target_knows_its_image_size() -> None:
    depth, masks, intrinsics, poses = scene(4)
    result = normalise(depth, masks, intrinsics, poses)
    images = torch.zeros(2, 3, 3, 12, 16)
    target = Target(images, result.depth, masks, result.camera_from_world, intrinsics, result.scale)
    assert target.image_size_hw == (12, 16)


def test_nothing_is_read_back_from_the_device() -> None:
    """On the meta device there are no values: whatever asks for one raises."""
    result = normalise(*(part.to("meta") for part in scene(5)))
    assert result.depth.shape == (2, 3, 12, 16) and result.scale.shape == (2,)
