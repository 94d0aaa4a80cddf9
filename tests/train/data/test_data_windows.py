"""Windows: inside the image, centred, of the target's shape, and equal to the released chain of crops and resizes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megasynth_train.data.sizes import target_size
from megasynth_train.data.windows import crop_window, nearest_pixels, window_intrinsics

sizes = st.integers(20, 700)
shares = st.floats(0.3, 1.4)


@settings(max_examples=300, deadline=None)
@given(sizes, sizes, st.floats(0.2, 0.8), st.floats(0.2, 0.8), st.tuples(shares, shares), st.floats(0, 200), sizes)
def test_every_window_is_inside_centred_and_of_the_targets_shape(height, width, x, y, crop, zoom, target_height):
    cx, cy, target = width * x, height * y, (target_height, 252)
    y0, x0, h, w = crop_window((height, width), (cx, cy), target, crop, zoom)
    assert y0 >= 0 and x0 >= 0 and h >= 1 and w >= 1 and y0 + h <= height and x0 + w <= width
    if min(h, w) >= 2:
        assert abs(x0 + w / 2 - cx) <= 0.25 + 1e-9 and abs(y0 + h / 2 - cy) <= 0.25 + 1e-9
    box = min(height * min(crop[0], 1), 2 * min(cy, height - cy)), min(width * min(crop[1], 1), 2 * min(cx, width - cx))
    scale = min(box[0] / (target[0] + zoom), box[1] / (target[1] + zoom))
    for got, exact in ((h, target[0] * scale), (w, target[1] * scale)):
        assert abs(got - exact) <= 2.5 or got == 1


def released_chain(image_hw, target_hw, crop_hw, zoom_px):
    """The released three steps in real numbers, for a principal point in the middle: (height, width) of the window."""
    crop = [size * min(share, 1) for size, share in zip(image_hw, crop_hw, strict=True)]
    factor = max((target + zoom_px) / size for target, size in zip(target_hw, crop, strict=True))
    resized = [size * factor for size in crop]
    assert all(size >= target - 1e-9 for size, target in zip(resized, target_hw, strict=True))  # nothing to pad
    return [target / factor for target in target_hw]


def test_the_released_chain_is_one_window():
    generator = np.random.default_rng(0)
    for _ in range(300):
        image = tuple(2 * generator.integers(60, 300, 2))
        target, crop = (int(generator.integers(12, 38)) * 14, 518), tuple(generator.uniform(0.8, 1.2, 2))
        zoom = generator.triangular(0, 0, 0.3) * 518
        y0, x0, h, w = crop_window(image, (image[1] / 2, image[0] / 2), target, crop, zoom)
        exact = released_chain(image, target, crop, zoom)
        assert abs(h - exact[0]) <= 1 + 1e-9 and abs(w - exact[1]) <= 1 + 1e-9  # rounded to even numbers
        assert (2 * y0 + h, 2 * x0 + w) == image  # centred exactly


@pytest.mark.parametrize("size", [70, 71, 168, 518])
def test_without_crop_the_whole_square_is_taken(size):
    assert crop_window((size, size), (size / 2, size / 2), (518, 518)) == (0, 0, size, size)


def test_other_shapes_take_the_largest_centred_part():
    assert crop_window((480, 640), (320, 240), (518, 518)) == (0, 80, 480, 480)
    assert crop_window((640, 480), (240, 320), (518, 518)) == (80, 0, 480, 480)
    assert crop_window((480, 640), (320, 240), (252, 518))[2:] == (312, 640)  # 640 × 252 / 518 = 311.4, even
    assert crop_window((100, 100), (30, 50), (14, 14)) == (20, 0, 60, 60)  # off-centre: it shrinks, nothing is padded


def test_intrinsics_follow_the_window():
    generator = np.random.default_rng(1)
    intrinsics = np.array([[400.0, 0, 321.3], [0, 410, 238.9], [0, 0, 1]])
    windows = np.array([[10, 20, 300, 400], [0, 100, 480, 123]])
    got = window_intrinsics(np.stack([intrinsics] * 2), windows, (252, 518))
    for point in generator.uniform([-1, -1, 2], [1, 1, 4], (50, 3)):
        u, v, _ = intrinsics @ point / point[2]
        for matrix, (y0, x0, h, w) in zip(got, windows, strict=True):
            expected = (u - x0) / w * 518, (v - y0) / h * 252
            np.testing.assert_allclose((matrix @ point / point[2])[:2], expected, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100), st.integers(1, 600), st.integers(1, 600))
def test_nearest_pixels_are_those_in_which_the_centres_lie(start, length, target):
    got = nearest_pixels(torch.tensor([start]), torch.tensor([length]), target)[0].numpy()
    exact = [start + int((Fraction(2 * u + 1, 2) * length / target) // 1) for u in range(target)]
    assert got.tolist() == exact and got[0] >= start and got[-1] < start + length


def test_target_sizes_are_whole_patches():
    assert [target_size(518, a, 14) for a in (1.0, 0.33, 0.5, 0.6, 0.01)] == [
        (518, 518),
        (168, 518),
        (252, 518),
        (308, 518),
        (14, 518),
    ]
    assert all(target_size(14 * n, 1.0, 14) == (14 * n, 14 * n) for n in range(1, 100))
    assert all(target_size(14 * n, m / n, 14)[0] == 14 * m for n in range(1, 60) for m in range(1, n))
