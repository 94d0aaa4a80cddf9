"""Height fields against an independent spline and the properties that keep meshes closed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import make_interp_spline

from megasynth_attr.scene.heightfield import open_basis, periodic_basis, sample_heights, surface_basis

FLAT_END = ([(1, 0.0)], [(1, 0.0)])  # first derivative 0 at both ends


def bicubic_oracle(heights, v, u, periodic_u):
    """Height at one point by B-splines, first along u for each row, then along v (row-major 5×5 heights)."""
    rows = []
    for row in heights.reshape(5, 5):
        if periodic_u:
            spline = make_interp_spline(np.arange(6) / 5, [*row, row[0]], k=3, bc_type="periodic")
        else:
            spline = make_interp_spline(np.arange(7) / 6, [0, *row, 0], k=3, bc_type=FLAT_END)
        rows.append(float(spline(u)))
    return float(make_interp_spline(np.arange(7) / 6, [0, *rows, 0], k=3, bc_type=FLAT_END)(v))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    v=st.floats(0, 1),
    u=st.floats(0, 1),
    periodic=st.booleans(),
)
def test_height_equals_the_tensor_product_spline(seed, v, u, periodic):
    heights = np.random.default_rng(seed).uniform(-1, 1, 25)
    along_u = (periodic_basis if periodic else open_basis)(np.array([u]))
    height = surface_basis(open_basis(np.array([v])), along_u) @ heights
    assert height[0] == pytest.approx(bicubic_oracle(heights, v, u, periodic), abs=1e-12)


def test_the_field_passes_through_its_control_heights():
    nodes = np.arange(1, 6) / 6
    assert np.allclose(open_basis(nodes), np.eye(5), atol=1e-12)
    assert np.allclose(periodic_basis(np.arange(5) / 5), np.eye(5), atol=1e-12)


def test_the_border_is_exactly_zero_and_flat():
    ends = open_basis(np.array([0.0, 1.0]))
    assert (ends == 0).all()
    step = 1e-5
    beside = open_basis(np.array([step, 1 - step]))
    assert np.abs(beside / step).max() < 0.01  # zero slope; without that end condition it is about 8


def test_the_periodic_field_joins_with_equal_value_slope_and_curvature():
    step = 1e-4
    left, middle, right = periodic_basis(np.array([1 - step, 0.0, step]))
    before, after = periodic_basis(np.array([1 - 2 * step, 2 * step]))
    assert np.allclose((middle - left) / step, (right - middle) / step, atol=0.02)
    assert np.allclose((middle - 2 * left + before) / step**2, (after - 2 * right + middle) / step**2, atol=0.5)
    assert np.allclose(periodic_basis(np.array([0.3])), periodic_basis(np.array([1.3])), atol=1e-12)


@pytest.mark.parametrize("basis", [open_basis, periodic_basis])
def test_slopes_are_continuous_at_the_nodes(basis):
    nodes, step = np.concatenate([np.arange(1, 6) / 6, np.arange(1, 5) / 5]), 1e-6
    slope_before = (basis(nodes) - basis(nodes - step)) / step
    slope_after = (basis(nodes + step) - basis(nodes)) / step
    assert np.allclose(slope_before, slope_after, atol=1e-3)


def test_heights_keep_below_the_share_of_the_smallest_axis():
    half_axes = np.random.default_rng(1).uniform(0.25, 2, (400, 3))
    heights, is_flat = sample_heights(np.random.default_rng(2), half_axes, relief=0.6, flat_probability=0.1)
    largest = 0.6 * 2 * half_axes.min(axis=1)
    assert (np.abs(heights).max(axis=2) <= largest[:, None]).all()
    assert (np.abs(heights).max(axis=(1, 2)) / largest).max() > 0.95  # and the range is used
    assert np.abs(is_flat.mean() - 0.1) < 0.03
    assert np.abs(heights.mean()) < 0.02


def test_no_primitive_gives_no_heights():
    heights, is_flat = sample_heights(np.random.default_rng(0), np.empty((0, 3)), relief=0.6, flat_probability=0.1)
    assert heights.shape == (0, 6, 25) and is_flat.shape == (0, 6)
