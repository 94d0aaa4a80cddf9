"""From linear radiance to bytes, against known values; normals turned towards the camera. No Blender needed."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_scenes import linear_from_srgb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from megasynth_attr.blender.colour import display_rgba
from megasynth_attr.blender.passes import Passes, facing_normals, is_hit, picture_problem
from megasynth_attr.core.srgb import srgb_from_linear


def pixel(*rgba: float) -> np.ndarray:
    return np.array([[rgba]], dtype=np.float32)


@pytest.mark.parametrize(
    ("linear", "byte"), [(0.0, 0), (0.0031308, 10), (0.18, 118), (0.21586, 128), (1.0, 255), (7.0, 255)]
)
def test_known_values_of_the_srgb_curve(linear: float, byte: int) -> None:
    assert display_rgba(pixel(linear, linear, linear, 1.0), 0.0)[0, 0].tolist() == [byte] * 3 + [255]


def test_every_byte_survives_the_way_to_linear_and_back() -> None:
    bytes_in = np.arange(256)
    linear = linear_from_srgb(bytes_in / 255)
    rgba = np.stack([linear, linear, linear, np.ones(256)], axis=-1)[None].astype(np.float32)
    assert np.array_equal(display_rgba(rgba, 0.0)[0, :, 0], bytes_in)


def test_exposure_is_a_power_of_two_before_the_curve() -> None:
    assert np.array_equal(display_rgba(pixel(0.1, 0.2, 0.05, 1), 2.0), display_rgba(pixel(0.4, 0.8, 0.2, 1), 0.0))


def test_alpha_is_straight_and_empty_pixels_are_zero() -> None:
    assert display_rgba(pixel(0.10793, 0.10793, 0.10793, 0.5), 0.0)[0, 0].tolist() == [128, 128, 128, 128]
    assert display_rgba(pixel(0.3, 0.3, 0.3, 0.001), 0.0)[0, 0].tolist() == [0, 0, 0, 0]
    assert display_rgba(pixel(0.0, 0.0, 0.0, 0.0), 0.0)[0, 0].tolist() == [0, 0, 0, 0]


def test_developing_sees_straight_exposed_colour_and_leaves_alpha_alone() -> None:
    rgba = np.array([[[0.1, 0.2, 0.05, 0.5], [0, 0, 0, 0], [0.4, 0.4, 0.4, 1.0]]], np.float32)
    seen = []

    def halved(picture: np.ndarray) -> np.ndarray:
        seen.append(picture)
        return picture / 2

    developed = display_rgba(rgba, 1.0, [halved, halved])
    assert np.allclose(seen[0], [[[0.4, 0.8, 0.2], [0, 0, 0], [0.8, 0.8, 0.8]]])
    assert np.array_equal(developed, display_rgba(rgba, -1.0))
    clean = display_rgba(rgba, 1.0)
    lit = display_rgba(rgba, 1.0, [lambda picture: picture + 1])
    assert np.array_equal(lit[..., 3], clean[..., 3]) and lit[0, 1].tolist() == [0, 0, 0, 0]


@given(st.floats(-1, 4, width=32), st.floats(-1, 4, width=32))
def test_the_curve_is_monotonous_and_bounded(a: float, b: float) -> None:
    low, high = srgb_from_linear(np.sort(np.array([a, b], np.float32)))
    assert 0 <= low <= high <= 1


@settings(max_examples=30)
@given(arrays(np.float32, (2, 3, 3), elements=st.floats(-1, 1, width=32)), st.integers(0, 2**32 - 1))
def test_normals_face_the_camera_and_have_unit_length(normal: np.ndarray, seed: int) -> None:
    rays = np.random.default_rng(seed).normal(size=(2, 3, 3))
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    turned = facing_normals(normal, np.ones((2, 3), bool), rays)
    assert np.abs(np.linalg.norm(turned, axis=-1) - 1).max() < 1e-5
    assert (turned * rays).sum(-1).min() > -1e-5
    assert np.all(facing_normals(normal, np.zeros((2, 3), bool), rays) == 0)


def test_a_normal_that_already_faces_the_camera_is_kept() -> None:
    normal = np.array([[[0.6, 0.0, 0.8]]], np.float32)
    towards = np.array([[[0.0, 0.0, 1.0]]])
    assert np.allclose(facing_normals(normal, np.ones((1, 1), bool), towards), normal)


def test_background_depth_is_recognised() -> None:
    assert is_hit(np.array([1.0, 0.0, 1e10, np.inf, np.nan, -1.0, 999.0])).tolist() == [True] + [False] * 5 + [True]


@pytest.mark.parametrize(
    ("colour", "depth", "word"),
    [
        ([[0.1, 0.2], [0.3, 0.4]], [[1, 1], [1, 0]], None),
        ([[0.1, np.nan], [0.3, 0.4]], [[1, 1], [1, 1]], "finite"),
        ([[0.1, np.inf], [0.3, 0.4]], [[1, 1], [1, 1]], "finite"),
        ([[0.0, 0.0], [0.0, 0.0]], [[1, 1], [1, 0]], "same linear colour"),
        ([[0.1, 0.2], [0.3, 0.4]], [[0, 0], [0, 0]], "no surface"),
    ],
)
def test_what_is_no_picture_is_named(colour: list, depth: list, word: str | None) -> None:
    combined = np.repeat(np.array(colour, np.float32)[..., None], 4, axis=-1)
    problem = picture_problem(Passes(combined, np.array(depth, np.float32), None, None, 0.0))
    assert (problem is None) if word is None else (word in str(problem))
