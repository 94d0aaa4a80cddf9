"""Colour jitter against Pillow's ImageEnhance and Python's colorsys."""

from __future__ import annotations

import colorsys
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from megasynth_train.data.colour import (
    NEUTRAL,
    Jitter,
    apply_jitter,
    brightness,
    contrast,
    draw_jitter,
    hue,
    neutral_jitter,
    saturation,
)
from megasynth_train.training.settings import DataSettings


def pictures(count=4, size=(12, 17), seed=0):
    """Return uint8 [N, H, W, 3]: noise, with black, white, grey and pure colours among it."""
    arrays = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    special = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]]
    arrays[:, 0, : len(special)] = special
    return arrays


def tensor(arrays):
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255


def numbers(images):
    return (images.permute(0, 2, 3, 1) * 255).numpy()


def factor_of(values):
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [(brightness, ImageEnhance.Brightness), (contrast, ImageEnhance.Contrast), (saturation, ImageEnhance.Color)],
)
def test_against_pillow(operation, enhancer):
    arrays, factors = pictures(), [0.5, 0.9, 1.0, 1.5]
    got = numbers(operation(tensor(arrays), factor_of(factors)))
    for array, factor, image in zip(arrays, factors, got, strict=True):
        expected = np.asarray(enhancer(Image.fromarray(array)).enhance(factor)).astype(float)
        assert np.abs(image - expected).max() <= 1.6  # Pillow rounds the grey value and truncates the result


def test_hue_against_colorsys():
    arrays, turns = pictures(), [-0.5, -0.1, 0.07, 0.5]
    got = numbers(hue(tensor(arrays), factor_of(turns)))
    for array, turn, image in zip(arrays, turns, got, strict=True):
        for pixel, result in zip(array.reshape(-1, 3) / 255, image.reshape(-1, 3), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            expected = np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v)) * 255
            np.testing.assert_allclose(result, expected, atol=1e-3)


def test_order_matters_and_is_kept():
    arrays = pictures(24, seed=1)
    factors = np.tile([1.3, 0.6, 1.4, 0.08], (1, 24, 1))
    order = np.array(list(permutations(range(4))))[None]
    got = apply_jitter(tensor(arrays)[None], Jitter(factors, order, np.zeros((1, 24), bool)))[0]
    for i, sequence in enumerate(order[0]):
        expected = tensor(arrays[i : i + 1])
        for kind in sequence:
            operation = (brightness, contrast, saturation, hue)[kind]
            expected = operation(expected, factor_of([factors[0, i, kind]]))
        torch.testing.assert_close(got[i], expected[0], atol=1e-6, rtol=0)
    assert len({got[i].numpy().tobytes() for i in range(24)}) > 6


def test_neutral_changes_no_bit_and_grey_has_no_colour():
    images = tensor(pictures(6)).view(2, 3, 3, 12, 17)
    jitter = neutral_jitter(2, 3)
    assert torch.equal(apply_jitter(images.clone(), jitter), images)
    grey = Jitter(jitter.factors, jitter.order, np.array([[True, False, False], [False, False, True]]))
    got = apply_jitter(images.clone(), grey)
    for b, s in ((0, 0), (1, 2)):
        assert (got[b, s] - got[b, s, :1]).abs().max() < 1e-6
        luma = Image.fromarray((images[b, s].permute(1, 2, 0) * 255).byte().numpy()).convert("L")
        assert np.abs(got[b, s, 0].numpy() * 255 - np.asarray(luma)).max() <= 1
    assert torch.equal(got[0, 1:], images[0, 1:]) and torch.equal(got[1, :2], images[1, :2])


def test_results_stay_in_range_and_draws_of_nothing_are_neutral():
    generator = np.random.default_rng(0)
    draw = draw_jitter(generator, 4, 6, DataSettings(brightness=1, contrast=1, saturation=1, hue=0.5))
    got = apply_jitter(tensor(pictures(24)).view(4, 6, 3, 12, 17), draw)
    assert got.min() >= 0 and got.max() <= 1 and torch.isfinite(got).all()
    still = DataSettings(brightness=0, contrast=0, saturation=0, hue=0, grey_share=0)
    assert (draw_jitter(generator, 2, 3, still).factors == NEUTRAL).all()
    alike = draw_jitter(generator, 3, 5, DataSettings(shared_jitter=1))
    for values in (alike.factors, alike.order, alike.grey):
        assert (values == values[:, :1]).all()
