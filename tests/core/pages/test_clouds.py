"""What the point-cloud page embeds, without a browser: precision, sampling, distances, views."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from megasynth_attr.core.pages.clouds import (
    FOCAL,
    Cloud,
    PackedCloud,
    View,
    camera_axes,
    overview,
    pack_cloud,
    view_of_camera,
)


def numbered(points: np.ndarray) -> Cloud:
    """A cloud whose colours are the numbers of its points, so that a sample tells where it comes from."""
    number = np.arange(len(points))
    return Cloud(points, np.stack([number % 256, number // 256 % 256, number // 65536], axis=1).astype(np.uint8))


def decoded(cloud: PackedCloud) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, distances and the numbers in the colours, read from base64 with nothing of the module but its record."""
    data, n, record = base64.b64decode(cloud.base64()), cloud.count, cloud.record()
    measured = n if record["measured"] else 0
    assert len(data) == 9 * n + 2 * measured
    points = record["low"] + np.frombuffer(data, "<u2", 3 * n).reshape(n, 3) * record["step"]
    distances = (np.frombuffer(data, "<u2", measured, offset=6 * n) * record["distance_step"]) ** 2
    colours = np.frombuffer(data, "u1", offset=6 * n + 2 * measured).reshape(n, 3).astype(int)
    return points, distances, colours @ [1, 256, 65536]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 400), scale=st.floats(1e-4, 1e4), far=st.floats(0, 1e3))
def test_round_trip(seed: int, size: int, scale: float, far: float) -> None:
    rng = np.random.default_rng(seed)
    points = (rng.uniform(-scale, scale, (size, 3)) + far).astype(np.float32)
    other = (rng.uniform(-scale, scale, (50, 3)) + far).astype(np.float32)
    packed = pack_cloud(numbered(points), 1000, numbered(other))
    found, distances, number = decoded(packed)
    assert sorted(number) == list(range(size))
    extent = np.ptp(points.astype(float), axis=0)
    assert (np.abs(found - points[number]) <= extent / 65535 * 0.5001 + 1e-12 * far).all()
    exact = cdist(points[number], other).min(axis=1)
    # half a step of the root: |d - q²| ≤ (√d + q) · half a step
    half = np.sqrt(exact.max()) / 65535 / 2
    assert (np.abs(distances - exact) <= 2.01 * np.sqrt(exact) * half + half**2 + 1e-12 * far).all()


def test_sample_is_even_repeatable_and_measured_to_all_points() -> None:
    rng = np.random.default_rng(3)
    points, other = rng.normal(size=(5000, 3)), rng.normal(size=(4000, 3))
    first, again = (pack_cloud(numbered(points), 700, numbered(other)) for _ in range(2))
    assert first.base64() == again.base64()
    _, distances, number = decoded(first)
    assert first.count == 700 and first.total == 5000 and len(set(number)) == 700
    assert distances == pytest.approx(cdist(points[number], other).min(axis=1), rel=1e-3, abs=1e-4)
    # Any first part is spread over the whole: both halves of the cloud are hit about equally
    assert 70 < np.count_nonzero(number[:200] < 2500) < 130


def test_points_that_are_no_numbers_or_far_away_are_left_out_and_counted() -> None:
    rng = np.random.default_rng(4)
    points = rng.uniform(-1, 1, (1000, 3)).astype(np.float32)
    points[:3], points[3:5], points[5:7] = np.nan, (0, np.inf, 0), 1e6
    packed = pack_cloud(numbered(points), 2000, numbered(points))
    _, _, number = decoded(packed)
    assert sorted(number) == list(range(7, 1000))
    assert (packed.total, packed.not_finite, packed.far_outside) == (1000, 5, 2)
    assert (packed.step < 2.1 / 65535).all()
    assert packed.distances is not None and packed.distances.max() == 0


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.full((4, 3), np.nan)])
def test_nothing_to_draw(points: np.ndarray) -> None:
    some = numbered(np.ones((2, 3)))
    packed = pack_cloud(numbered(points), 10, some)
    assert packed.count == 0 and packed.base64() == "" and packed.distances is None
    against_nothing = pack_cloud(some, 10, numbered(points))
    assert against_nothing.distances is None and decoded(against_nothing)[0] == pytest.approx(np.ones((2, 3)))


def test_flat_cloud_keeps_its_constant_coordinate() -> None:
    points = np.array([[0.0, 5.25, -1], [2, 5.25, -1], [1, 5.25, -1]])
    found, _, number = decoded(pack_cloud(numbered(points), 10))
    assert found == pytest.approx(points[number], abs=1e-4)


@pytest.mark.parametrize(
    ("points", "colours"),
    [
        (np.zeros((3, 2)), np.zeros((3, 2), np.uint8)),
        (np.zeros((3, 3)), np.zeros((2, 3), np.uint8)),
        (np.zeros((3, 3)), np.zeros((3, 3))),
        (np.zeros((3, 3), dtype=object), np.zeros((3, 3), np.uint8)),
    ],
)
def test_wrong_shapes(points: np.ndarray, colours: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        Cloud(points, colours)


def test_camera_axes_leave_unusable_cameras_out() -> None:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", [20, -40, 75], degrees=True).as_matrix()
    pose[:3, 3] = -pose[:3, :3] @ [1, 2, 3]
    axes = camera_axes(np.stack([np.full((4, 4), np.nan), pose, np.zeros((4, 4))]))
    assert axes.shape == (1, 4, 3)
    assert axes[0, 0] == pytest.approx([1, 2, 3])
    assert axes[0, 1:] == pytest.approx(pose[:3, :3])  # rows of camera_from_world are the camera's axes in the world
    assert camera_axes(np.zeros((0, 4, 4))).shape == (0, 4, 3)


@pytest.mark.parametrize("forward", [(1, 2, -0.5), (-3, 0.1, 2), (0, -1, 0), (0, 0, -1), (0, 0, 1)])
def test_first_view_stands_in_the_camera_and_looks_where_it_looks(forward: tuple[float, float, float]) -> None:
    ahead = np.array(forward) / np.linalg.norm(forward)
    right = np.cross(ahead, [0, 0, 1]) if ahead[:2].any() else np.array([0.6, 0.8, 0])
    right = right / np.linalg.norm(right)
    eye = np.array([4.0, -1, 2])
    points = eye + ahead * np.linspace(2, 4, 101)[:, None]
    view = view_of_camera(np.stack([eye, right, np.cross(ahead, right), ahead]), points, fallback_distance=9)
    back = [np.cos(view.elevation) * np.cos(view.azimuth), np.cos(view.elevation) * np.sin(view.azimuth)]
    assert np.array(view.target) + view.distance * np.array([*back, np.sin(view.elevation)]) == pytest.approx(eye)
    assert view.distance == pytest.approx(3) and np.array(view.target) - eye == pytest.approx(3 * ahead)
    assert [-np.sin(view.azimuth), np.cos(view.azimuth), 0] == pytest.approx(right)
    nothing = view_of_camera(np.stack([eye, right, np.cross(ahead, right), ahead]), np.zeros((0, 3)), 9)
    assert nothing.distance == 9


def axes_of(view: View) -> np.ndarray:
    """Centre, right, down and forward of a view, by rotations: level and northward at first, then as it says."""
    turned = Rotation.from_euler("ZXZ", [view.azimuth + np.pi / 2, -view.elevation, 0])
    east, up, north = turned.apply([[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    rolled = Rotation.from_rotvec(view.roll * north).apply([east, -up])
    return np.stack([np.array(view.target) - view.distance * north, *rolled, north])


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_camera_is_a_view_rolls_included(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    pose[:3, 3] = rng.uniform(-3, 3, 3)
    axes = camera_axes(pose[None])[0]
    view = view_of_camera(axes, rng.normal(size=(20, 3)), 1.0, focal=0.8)
    assert axes_of(view) == pytest.approx(axes, abs=1e-9) and view.focal == 0.8


def test_overview_is_level_and_shows_the_whole_ball() -> None:
    view = overview(np.array([1.0, 2, 3]), 2.0)
    axes = axes_of(view)
    assert axes[1, 2] == pytest.approx(0) and axes[2, 2] < 0, "not level, or upside down"
    assert view.distance * np.sin(np.arctan(0.5 / FOCAL)) == pytest.approx(2.0)
