"""Camera paths: level look-at cameras, orbits that never dive or spin, micro paths that hardly move."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from megasynth_attr.core.errors import SceneRejected
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.scene.config import resolve
from megasynth_attr.scene.factor import Draw, Records
from megasynth_attr.scene.layouts.scan import geometry_of, upright
from megasynth_attr.scene.scans import Outline
from megasynth_attr.scene.trajectories.lookat import from_yaw_pitch_roll, look_along
from megasynth_attr.scene.trajectories.micro import OVERSHOOT, sample_micro
from megasynth_attr.scene.trajectories.orbit import (
    ORBIT_UNIT,
    closed_log_distance,
    closed_sphere_curve,
    sample_orbit,
    slerp,
)
from megasynth_attr.scene.trajectories.plane import sample_plane
from megasynth_attr.scene.trajectories.ring import sample_ring
from megasynth_attr.scene.trajectories.settings import CameraSettings

seeds = st.integers(0, 2**32)


def draw_of(frames):
    return Draw(0, 1, frames, {}, {}, np.random.default_rng(0), Records({}, {}, {}))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_look_along_has_opencv_axes_and_is_level():
    axes = Rotation.from_quat(look_along(np.array([[1.0, 0.0, 0.0]]))).as_matrix()[0]
    right, down, forward = axes.T
    np.testing.assert_allclose(forward, [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(right, [0, -1, 0], atol=1e-15)  # facing +x with z up, +y is on the left
    np.testing.assert_allclose(down, [0, 0, -1], atol=1e-15)


@given(seeds)
def test_look_along_any_direction(seed):
    rng = np.random.default_rng(seed)
    directions = unit(rng.normal(size=(20, 3)))
    axes = Rotation.from_quat(look_along(directions)).as_matrix()
    np.testing.assert_allclose(axes[:, :, 2], directions, atol=1e-12)
    np.testing.assert_allclose(axes[:, 2, 0], 0, atol=1e-12)  # right is horizontal
    assert (axes[:, 2, 1] <= 1e-12).all()  # down points down


def test_yaw_pitch_roll():
    axes = Rotation.from_quat(from_yaw_pitch_roll(np.array([90.0]), np.array([10.0]), np.array([0.0]))).as_matrix()[0]
    np.testing.assert_allclose(axes[:, 2], [0, np.cos(np.radians(10)), np.sin(np.radians(10))], atol=1e-12)
    rolled = from_yaw_pitch_roll(np.array([90.0]), np.array([10.0]), np.array([7.0]))
    level = from_yaw_pitch_roll(np.array([90.0]), np.array([10.0]), np.array([0.0]))
    turn = (Rotation.from_quat(level).inv() * Rotation.from_quat(rolled)).as_rotvec(degrees=True)[0]
    np.testing.assert_allclose(turn, [0, 0, 7], atol=1e-9)  # about the optical axis, clockwise in the picture


@given(seeds, st.floats(0, 1))
def test_slerp_walks_the_great_circle(seed, t):
    a, b = unit(np.random.default_rng(seed).normal(size=(2, 3)))
    point = slerp(a, b, np.array(t))
    angle = np.arccos(np.clip(a @ b, -1, 1))
    assert np.linalg.norm(point) == pytest.approx(1)
    assert np.arccos(np.clip(a @ point, -1, 1)) == pytest.approx(t * angle, abs=1e-6)
    assert np.linalg.det([a, b, point]) == pytest.approx(0, abs=1e-7)  # in one plane with the origin


@given(seeds)
@settings(max_examples=30)
def test_sphere_curve_passes_through_its_knots_and_is_smooth(seed):
    knots = unit(np.random.default_rng(seed).normal(size=(6, 3)))
    if np.sum(knots * np.roll(knots, -1, axis=0), axis=1).min() < np.cos(np.radians(135)):
        return
    np.testing.assert_allclose(closed_sphere_curve(knots, np.arange(6.0)), knots, atol=1e-7)
    h = 1e-4
    for knot in range(6):  # the tangents on both sides of every knot agree, across the seam too
        before, at, after = closed_sphere_curve(knots, np.array([knot - h, knot, knot + h]) % 6)
        np.testing.assert_allclose((at - before) / h, (after - at) / h, atol=2e-2)


@given(seeds, st.integers(2, 9))
def test_distances_never_leave_the_range_of_the_knots(seed, count):
    knots = np.random.default_rng(seed).uniform(0.7, 2.0, count)
    t = np.linspace(0, count, 500, endpoint=False)
    curve = closed_log_distance(knots, t)
    assert curve.min() >= knots.min() and curve.max() <= knots.max()
    np.testing.assert_allclose(closed_log_distance(knots, np.arange(count, dtype=float)), knots, rtol=1e-12)
    near_end, start = closed_log_distance(knots, np.array([count - 1e-6, 0.0]))
    assert near_end == pytest.approx(start, rel=1e-4)


ORBIT = CameraSettings(trials=5000)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_orbit_keeps_its_promises(seed):
    rng = np.random.default_rng(seed)
    distance = Uniform(1.8 / ORBIT_UNIT, 5.2 / ORBIT_UNIT)
    wide = replace(ORBIT, distance=distance, elevation_sin=Uniform(-0.7, 0.85))
    positions, quaternions = sample_orbit(rng, wide, draw_of(100))
    distances = np.linalg.norm(positions, axis=1)
    # chords between the samples of a fine path dip below the arc by a few parts in ten thousand
    assert distances.min() > 1.8 * 0.999 and distances.max() < 5.2 * 1.001
    axes = Rotation.from_quat(quaternions).as_matrix()
    np.testing.assert_allclose(axes[:, :, 2], -unit(positions), atol=1e-9)  # looks at the origin
    closed = np.concatenate([positions, positions[:1]])
    steps = np.linalg.norm(np.diff(closed, axis=0), axis=1)
    assert steps.max() < 1.02 * np.median(steps)  # even arc length, the step back to the start included
    assert np.linalg.norm(positions[-1] - positions[0]) > 0.5 * np.median(steps)
    moved = np.arccos(np.clip(np.sum(unit(closed[1:]) * unit(closed[:-1]), axis=1), -1, 1))
    closed_turns = Rotation.from_quat(np.concatenate([quaternions, quaternions[:1]]))
    turned = (closed_turns[:-1].inv() * closed_turns[1:]).magnitude()
    assert (turned <= moved / np.cos(np.radians(70.0)) * 1.05 + 1e-6).all()  # never spins


def test_an_impossible_orbit_is_rejected_not_searched_for_ever():
    steep = replace(ORBIT, elevation_sin=Uniform(0.99, 1.0), trials=50)
    with pytest.raises(SceneRejected, match="50 trials"):
        sample_orbit(np.random.default_rng(0), steep, draw_of(10))


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_micro_paths_stay_within_a_few_hundredths_and_one_degree(seed):
    micro = CameraSettings(family="micro", control_points=7)
    positions, quaternions = sample_micro(np.random.default_rng(seed), micro, draw_of(61))
    control = positions[::10]  # 61 frames: every tenth is a control pose
    apart = np.linalg.norm(control[:, None] - control[None], axis=-1)
    assert apart.max() <= 0.03 + 1e-12
    turns = Rotation.from_quat(quaternions[::10])
    for a in turns:
        assert np.degrees((a.inv() * turns).magnitude()).max() <= 1.0 + 1e-9
    # the region that geometry leaves free holds the whole path, between the control poses too
    assert (np.abs(positions) <= np.array(micro.zone) + OVERSHOOT * 0.03 / 2).all()


@pytest.mark.parametrize("control_points", [3, 4, 5, 7, 20, 64])
def test_the_overshoot_bound_is_a_bound(control_points):
    cardinal = CubicSpline(np.linspace(0, 1, control_points), np.eye(control_points))
    lebesgue = np.abs(cardinal(np.linspace(0, 1, 2001))).sum(axis=1).max()
    assert lebesgue <= OVERSHOOT


@pytest.mark.parametrize(("preset", "heights"), [("thuman", 1.1), ("twok2k", 1.5)])
def test_the_ring_of_scanned_people(preset, heights):
    """96 level views, 3.75° apart, 1.1 or 1.5 of a height of 2 units away, through 35 mm on 32 mm; the front first."""
    given = resolve([f"preset={preset}", "geometry.scan_folder=x"]).members[0].factors["camera"]
    positions, quaternions = sample_ring(np.random.default_rng(0), given, draw_of(96))
    np.testing.assert_allclose(positions[0], [0, -2 * heights, 0], atol=1e-6)
    angles = np.unwrap(np.arctan2(positions[:, 1], positions[:, 0]))
    np.testing.assert_allclose(np.diff(angles), np.radians(3.75), atol=1e-9)
    np.testing.assert_allclose(positions[:, 2], 0, atol=1e-12)
    forward = Rotation.from_quat(quaternions).as_matrix()[:, :, 2]
    np.testing.assert_allclose(positions + 2 * heights * forward, 0, atol=1e-6)
    assert np.tan(np.radians(given.fov_x_deg.low) / 2) == pytest.approx(16 / 35, abs=1e-7)


def test_heads_are_seen_as_pictures_are():
    """Distances and steps are those in front of a picture, times the head's height ÷ a picture's, 0.4."""
    outline = Outline("", (-1, 0, -2), (1, 4, 2), 3.0)  # y up, its front towards +z: 2 units high and 2 deep in a scene
    head = geometry_of(outline, upright("y", "head.obj"), own_materials=True)
    given = CameraSettings(family="plane")
    draw = replace(draw_of(18), visible={"geometry": head})
    positions, quaternions = sample_plane(np.random.default_rng(3), given, draw)
    away = positions - [0, -1, 0]
    starts, distances = away[::2], np.linalg.norm(away[::2], axis=1)
    assert {round(float(d), 6) for d in distances} <= {5 * 0.25, 5 * 0.30}
    elevation = np.degrees(np.arcsin(starts[:, 2] / distances))
    azimuth = np.degrees(np.arctan2(starts[:, 0], -starts[:, 1]))
    np.testing.assert_allclose(elevation, [-5, 0, 5] * 3, atol=1e-9)
    np.testing.assert_allclose(azimuth, np.repeat([-5, 0, 5], 3), atol=1e-9)
    assert (np.linalg.norm(away[1::2] - starts, axis=1) <= 5 * given.max_step).all()
    forward = Rotation.from_quat(quaternions).as_matrix()[:, :, 2]
    np.testing.assert_allclose(forward, unit(-away), atol=1e-9)


def test_a_raised_ring():
    given = CameraSettings(family="ring", distance=Uniform(1.0, 1.0), elevation_sin=Uniform(0.6, 0.6))
    positions, _ = sample_ring(np.random.default_rng(0), given, draw_of(5))
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), ORBIT_UNIT)
    np.testing.assert_allclose(positions[:, 2], 0.6 * ORBIT_UNIT)
