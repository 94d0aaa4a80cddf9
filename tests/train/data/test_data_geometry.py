"""Pose encoding and unprojection: released numbers, SciPy's rotations, round trips, invariances, degenerate output."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from torch import Tensor

from megasynth_train.data.geometry import (
    MIN_FOV_RAD,
    decode_pose,
    encode_pose,
    invert_pose,
    rigid,
    rotation_from_quaternion,
    unproject,
)

FIXTURES = Path(__file__).parents[2] / "fixtures"
HW = (392, 518)
calm = settings(deadline=None)  # a busy machine is no failure
angles = st.floats(-math.pi, math.pi)
numbers = st.floats(-100, 100)


def pose(rotation_vector: list[float], translation: list[float]) -> Tensor:
    matrix = torch.from_numpy(Rotation.from_rotvec(rotation_vector).as_matrix())
    return rigid(matrix, torch.tensor(translation, dtype=torch.float64))


poses = st.builds(pose, st.lists(angles, min_size=3, max_size=3), st.lists(numbers, min_size=3, max_size=3))


def intrinsics(focal_x_px: float, focal_y_px: float, size_hw: tuple[int, int] = HW) -> Tensor:
    rows = [[focal_x_px, 0, size_hw[1] / 2], [0, focal_y_px, size_hw[0] / 2], [0, 0, 1]]
    return torch.tensor(rows, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def test_encoding_and_decoding_equal_the_released_code() -> None:
    fixture = load_file(FIXTURES / "pose_encoding.safetensors")
    size_hw = tuple(fixture["image_size_hw"].tolist())
    assert size_hw == HW
    close(encode_pose(fixture["extrinsics"], fixture["intrinsics"], HW), fixture["pose_enc"], 1e-6)
    cameras = decode_pose(fixture["pose_enc"], HW)
    close(cameras.camera_from_world[..., :3, :], fixture["decoded_extrinsics"], 1e-6)
    torch.testing.assert_close(cameras.intrinsics, fixture["decoded_intrinsics"], rtol=1e-6, atol=0)
    close(rotation_from_quaternion(fixture["unnorm_quat_xyzw"]), fixture["unnorm_quat_R"], 1e-6)


def test_unprojection_equals_the_released_code() -> None:
    with np.load(FIXTURES / "unproject.npz") as file:
        fixture = {name: torch.from_numpy(file[name]) for name in file.files}
    depth, k, extrinsics = fixture["depth"], fixture["intrinsics"], fixture["extrinsics"]
    close(unproject(depth, k, pixel_centre=0.0), fixture["cam_points"], 1e-6)
    close(unproject(depth, k, extrinsics.double(), pixel_centre=0.0), fixture["world_points"], 1e-6)
    close(invert_pose(extrinsics.double()), fixture["inv_se3"], 1e-6)


@calm
@given(poses, st.floats(20, 5000), st.floats(20, 5000))
@example(pose([math.pi, 0, 0], [0, 0, 0]), 300.0, 400.0)
@example(pose([0, math.pi, 0], [0, 0, 0]), 300.0, 400.0)
@example(pose([0, 0, math.pi], [0, 0, 0]), 300.0, 400.0)
@example(pose([0, 0, 0], [0, 0, 0]), 300.0, 400.0)
def test_round_trip_and_quaternion_against_scipy(camera_from_world: Tensor, fx: float, fy: float) -> None:
    k = intrinsics(fx, fy)
    encoding = encode_pose(camera_from_world, k, HW)
    cameras = decode_pose(encoding, HW)
    close(cameras.camera_from_world, camera_from_world, 1e-9)
    torch.testing.assert_close(cameras.intrinsics, k, rtol=1e-9, atol=0)
    quaternion = Rotation.from_matrix(camera_from_world[:3, :3].numpy()).as_quat()
    assert abs(abs(float(quaternion @ encoding[3:7].numpy())) - 1) < 1e-12
    assert encoding[6] >= 0


@calm
@given(poses, st.floats(1e-3, 1e3), st.sampled_from([-1.0, 1.0]))
def test_length_and_sign_of_the_quaternion_do_not_matter(camera_from_world: Tensor, length: float, sign: float) -> None:
    encoding = encode_pose(camera_from_world, intrinsics(300, 400), HW)
    scaled = torch.cat([encoding[:3], encoding[3:7] * length * sign, encoding[7:]])
    close(decode_pose(scaled, HW).camera_from_world, decode_pose(encoding, HW).camera_from_world, 1e-12)


def test_vertical_field_of_view_comes_first() -> None:
    encoding = encode_pose(torch.eye(4), intrinsics(259.0, 196.0 / math.sqrt(3)).float(), HW)
    close(encoding, torch.tensor([0, 0, 0, 0, 0, 0, 1, 2 * math.pi / 3, math.pi / 2]), 1e-6)


@calm
@given(poses, poses)
def test_moving_world_and_cameras_together_moves_the_points(camera_from_world: Tensor, motion: Tensor) -> None:
    depth = torch.linspace(0.5, 3.0, 6 * 8, dtype=torch.float64).reshape(6, 8)
    k = intrinsics(9.0, 7.0, (6, 8))
    points = unproject(depth, k, camera_from_world)
    moved = unproject(depth, k, camera_from_world @ invert_pose(motion))
    close(moved, points @ motion[:3, :3].T + motion[:3, 3], 1e-9)


@calm
@given(poses)
def test_points_project_back_to_their_pixels_and_depth(camera_from_world: Tensor) -> None:
    depth = torch.linspace(0.5, 3.0, 6 * 8, dtype=torch.float64).reshape(6, 8)
    k = intrinsics(9.0, 7.0, (6, 8))
    world = unproject(depth, k, camera_from_world)
    camera = world @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    pixels = camera @ k.T
    rows, columns = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    close(pixels[..., 0] / pixels[..., 2], columns.double(), 1e-9)
    close(pixels[..., 1] / pixels[..., 2], rows.double(), 1e-9)
    close(camera[..., 2], depth, 1e-9)


def test_a_centred_pixel_lies_on_the_axis() -> None:
    points = unproject(torch.full((3, 3), 2.0), intrinsics(5.0, 5.0, (3, 3)).float())
    close(points[1, 1], torch.tensor([0.0, 0.0, 2.0]), 0.0)
    close(points[0, 0], torch.tensor([-0.4, -0.4, 2.0]), 1e-7)


def test_batched_views_equal_single_views() -> None:
    generator = torch.Generator().manual_seed(3)
    depth = torch.rand(2, 3, 4, 5, generator=generator) + 0.5
    k = intrinsics(5.0, 4.0, (4, 5)).float().expand(2, 3, 3, 3)
    many = torch.stack([pose([0.1 * i, 0.2, -0.3], [i, 1.0, 2.0]) for i in range(6)]).reshape(2, 3, 4, 4)
    together = unproject(depth, k, many)
    assert together.shape == (2, 3, 4, 5, 3)
    for b in range(2):
        for s in range(3):
            close(together[b, s], unproject(depth[b, s], k[b, s], many[b, s]), 1e-12)


@pytest.mark.parametrize("fov", [0.0, 1e-30, math.pi, 7.0, 1e30])
@pytest.mark.parametrize("quaternion", [0.0, 1e-40, 1e-22, 1e22])
def test_whatever_finite_numbers_the_network_answers_the_camera_is_finite(fov: float, quaternion: float) -> None:
    cameras = decode_pose(torch.tensor([0.0, 0, 0, 0, quaternion, 0, quaternion, fov, fov]), HW)
    assert torch.isfinite(cameras.intrinsics).all() and torch.isfinite(cameras.camera_from_world).all()
    assert (cameras.intrinsics.diagonal() > 0).all()
    rotation = cameras.camera_from_world[:3, :3]
    close(rotation @ rotation.T, torch.eye(3), 1e-5)
    assert torch.det(rotation) > 0.99


def test_a_zero_field_of_view_becomes_the_narrowest() -> None:
    cameras = decode_pose(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 0, 0]), HW)
    assert cameras.intrinsics[1, 1] == pytest.approx(HW[0] / 2 / math.tan(MIN_FOV_RAD / 2), rel=1e-5)
