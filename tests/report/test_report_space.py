"""Frusta and points lie where the cameras and surfaces are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray_cast_experiment import raycast
from scipy.spatial.transform import Rotation

from megasynth_attr.dataset.reprojection import camera_centre
from megasynth_attr.dataset.space import frustum, is_closed, lift, view_points
from megasynth_attr.report.figures import Trajectory, frame_colour, world_axis_tips
from megasynth_attr.scene.frame import intrinsics


def random_pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    pose[:3, 3] = rng.uniform(-3, 3, 3)
    return pose


def test_frustum_of_a_known_camera() -> None:
    """A camera at (0, −3, 0) looking along +y with a 90° field of view over 40×20 px; world z is up."""
    camera_from_world = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 3], [0, 0, 0, 1]])
    corners = frustum(intrinsics(90.0, 40, 20), camera_from_world, 40, 20, depth=0.5)
    expected = [[0, -3, 0], [-0.5, -2.5, 0.25], [0.5, -2.5, 0.25], [0.5, -2.5, -0.25], [-0.5, -2.5, -0.25]]
    np.testing.assert_allclose(corners, expected, atol=1e-12)


@given(seed=st.integers(0, 10_000), fov=st.floats(20, 110), depth=st.floats(0.01, 5))
def test_frustum_corners_project_to_image_corners(seed: int, fov: float, depth: float) -> None:
    camera_from_world = np.linalg.inv(random_pose(seed))
    matrix = intrinsics(fov, 70, 56)
    corners = frustum(matrix, camera_from_world, 70, 56, depth)
    np.testing.assert_allclose(corners[0], random_pose(seed)[:3, 3], atol=1e-9)
    seen = matrix @ (camera_from_world[:3, :3] @ corners[1:].T + camera_from_world[:3, 3:])
    np.testing.assert_allclose(seen[2], depth, rtol=1e-9)
    np.testing.assert_allclose((seen[:2] / seen[2]).T, [[0, 0], [70, 0], [70, 56], [0, 56]], atol=1e-6)


def test_trajectory_frusta_are_at_the_frames_they_are_named_for() -> None:
    poses = np.stack(raycast.orbit(50))
    trajectory = Trajectory(intrinsics(50.0, 56, 56), np.linalg.inv(poses), 56, 56)
    np.testing.assert_allclose(trajectory.centres, poses[:, :3, 3], atol=1e-12)
    frusta = trajectory.frusta(0.1, 24)
    assert len(frusta) == 24 and {0, 49} <= set(frusta)
    for index, corners in frusta.items():
        np.testing.assert_allclose(corners[0], poses[index, :3, 3], atol=1e-12)
        axis = corners[1:].mean(axis=0) - corners[0]
        np.testing.assert_allclose(axis, 0.1 * poses[index, :3, 2], atol=1e-12)


def test_view_points_lie_on_the_surfaces_and_keep_their_colours() -> None:
    pose, size = raycast.orbit(5)[2], (64, 48)
    matrix = intrinsics(52.0, *size)
    arrays = raycast.render(raycast.World(), matrix[0, 0], *size, pose)
    rgb, position = arrays["rgba"][..., :3], arrays["position"]
    cloud = view_points(arrays["depth_z"], rgb, matrix, np.linalg.inv(pose), limit=500)
    assert 300 < len(cloud.points) <= 500
    hit = arrays["depth_z"] > 0
    distance = np.linalg.norm(cloud.points[:, None] - position[hit][None], axis=-1)
    nearest = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 1e-5
    np.testing.assert_array_equal(cloud.colours, rgb[hit][nearest])


def test_view_without_surfaces_gives_no_points() -> None:
    empty = np.zeros((8, 8), dtype=np.float32)
    cloud = view_points(empty, np.zeros((8, 8, 3), np.uint8), intrinsics(50.0, 8, 8), np.eye(4), limit=10)
    assert cloud.points.shape == (0, 3)


def test_lift_is_the_inverse_of_projection() -> None:
    camera_from_world = np.linalg.inv(random_pose(3))
    matrix = intrinsics(60.0, 80, 60)
    points = random_pose(3)[:3, 3] + random_pose(3)[:3, 2] * 3 + np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    seen = (matrix @ (camera_from_world[:3, :3] @ points.T + camera_from_world[:3, 3:])).T
    np.testing.assert_allclose(
        lift(seen[:, :2] / seen[:, 2:], seen[:, 2], matrix, camera_from_world), points, atol=1e-9
    )


def test_closed_and_open_paths() -> None:
    angle = np.arange(40) * 2 * np.pi / 40
    circle = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    assert is_closed(circle)
    assert not is_closed(circle[:30])
    assert not is_closed(circle[:1])


@pytest.mark.parametrize("count", [1, 2, 100])
def test_frame_colours_run_from_dark_to_bright(count: int) -> None:
    colours = np.array([frame_colour(i, count)[:3] for i in range(count)])
    assert np.all(np.diff(colours.sum(axis=1)) > 0)
    assert camera_centre(np.eye(4)[None]).shape == (1, 3)


def test_world_axes_end_outside_the_points() -> None:
    points = np.array([[-1.0, -0.5, -0.2], [0.6, 1.0, 0.1]])
    np.testing.assert_allclose(world_axis_tips(points), np.diag([0.69, 1.15, 0.4]))
    assert np.all(np.diag(world_axis_tips(np.zeros((0, 3)))) > 0)
