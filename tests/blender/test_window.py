"""Rendering only the window in which something can be seen changes no pixel."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_scenes import camera, look_at, pixel_rays
from blender_jobs import CORNERS, TILTED, VIEWS

from megasynth_attr.blender.window import MARGIN_PX, visible_window


@pytest.mark.parametrize("frame", range(3))
def test_the_window_holds_every_pixel_that_sees_the_box(frame: int) -> None:
    from analytic_scenes import hit_box

    depth, _ = hit_box(*pixel_rays(VIEWS, frame, 140, 98), np.array(CORNERS[0]), np.array(CORNERS[-1]))
    rows, columns = np.nonzero(depth)
    left, top, right, bottom = visible_window(np.array(CORNERS), VIEWS, frame, 140, 98)
    for low, high, seen, size in ((left, right, columns, 140), (top, bottom, rows, 98)):
        assert low == 0 or 0 < low <= seen.min() - MARGIN_PX + 1
        assert high == size or size > high >= seen.max() + MARGIN_PX - 1
    assert (right - left) * (bottom - top) < 140 * 98


def test_what_surrounds_the_camera_fills_the_picture() -> None:
    floor = np.array([[x, y, 0.0] for x in (-4, 4) for y in (-4, 4)])
    assert visible_window(floor, TILTED, 0, 140, 98) == (0, 0, 140, 98)


def test_what_is_out_of_view_leaves_the_whole_picture() -> None:
    """So that the renderer says that nothing is in view."""
    aside = camera(look_at((2.0, 0.0, 0.0), (2.0, 5.0, 0.0)))
    assert visible_window(np.array([[0.0, 9.0, 0.0], [0.1, 9.1, 0.1]]) - [30, 0, 0], aside, 0, 64, 64) == (0, 0, 64, 64)
