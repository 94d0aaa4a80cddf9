"""Drawing clouds: where a point lands, what covers what, and that a viewpoint shows the whole cloud."""

from __future__ import annotations

import numpy as np
import pytest

from megasynth_train.evaluate.splat import Viewpoint, draw_points, look_at, two_viewpoints

RED, GREEN = np.array([[255, 0, 0]], np.uint8), np.array([[0, 255, 0]], np.uint8)


def test_a_near_point_covers_a_far_one_whatever_their_order() -> None:
    view = Viewpoint(np.eye(4))
    points, colours = np.array([[0, 0, 1.0], [0, 0, 2.0]]), np.concatenate([RED, GREEN])
    for order in ([0, 1], [1, 0]):
        image = draw_points(points[order], colours[order], view, 21)
        assert image[10, 10].tolist() == [255, 0, 0]
        assert not (image == GREEN).all(axis=-1).any()


def test_points_land_where_the_camera_projects_them() -> None:
    pose = look_at(np.array([0.0, -4.0, 0.0]), np.zeros(3), np.array([0, 0, 1.0]))
    right_and_up = np.array([[1.0, 0.0, 0.5]])  # seen from -y with z up: right of and above the middle
    positions, depth = Viewpoint(pose).project(right_and_up)
    assert positions == pytest.approx(np.array([[0.5 + 1 / 4, 0.5 - 0.5 / 4]])) and depth == pytest.approx([4])
    image = draw_points(right_and_up, RED, Viewpoint(pose), 100)
    rows, columns = np.nonzero((image == RED).all(axis=-1))
    assert abs(columns.mean() - 75) < 2 and abs(rows.mean() - 37.5) < 2


def test_points_behind_the_camera_and_outside_are_not_drawn() -> None:
    points = np.array([[0, 0, -1.0], [50, 0, 1], [0, 0, 0]])
    assert (draw_points(points, RED.repeat(3, axis=0), Viewpoint(np.eye(4)), 20) == 255).all()


@pytest.mark.parametrize("up", [[0, 0, 1.0], [0, 1.0, 0]])
def test_viewpoints_show_the_whole_cloud(up: list[float]) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (3000, 3)) * (3, 1, 0.5) + 10
    cameras = np.stack(
        [look_at(points.mean(0) + offset, points.mean(0), np.array(up)) for offset in np.eye(3) * 4 + 0.3]
    )
    for view in two_viewpoints(points, cameras):
        positions, depth = view.project(points)
        assert (depth > 0).all()
        assert ((positions > 0) & (positions < 1)).all(axis=1).mean() > 0.99
        assert np.ptp(positions, axis=0).max() > 0.85  # and fill the picture
    straight_down = look_at(points.mean(0) + np.array([0, 0, 5.0]), points.mean(0), np.array([0, 0, 1.0]))
    for view in two_viewpoints(points, straight_down[None]):
        assert np.isfinite(view.camera_from_world).all()
        np.testing.assert_allclose(np.linalg.det(view.camera_from_world), 1)
