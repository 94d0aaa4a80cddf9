"""Depth errors by hand, and fits against slow minimisers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from megasynth_train.evaluate.depth import (
    ALIGNMENTS,
    align_depth,
    depth_errors,
    robust_scale,
    robust_scale_shift,
)

seeds = st.integers(0, 2**32 - 1)


def _pair(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 5, count)
    return truth * rng.uniform(0.2, 3) + rng.uniform(0, 1) + rng.laplace(size=count) * 0.1, truth, rng


def test_errors_by_hand() -> None:
    p, g = np.array([1.0, 3.0, 4.0, 9.0]), np.array([1.0, 2.0, 5.0, 0.0])
    found = depth_errors(p, g, g > 0)
    assert found.pixels == 3
    assert found.abs_rel == pytest.approx((0 + 0.5 + 0.2) / 3)
    assert found.sq_rel == pytest.approx((0 + 0.5 + 0.2) / 3)
    assert found.rmse == pytest.approx(np.sqrt(2 / 3))
    assert found.log_rmse == pytest.approx(np.sqrt((np.log(1.5) ** 2 + np.log(0.8) ** 2) / 3))
    # 5/4 is not below 1.25; 1.5 is below 1.25² = 1.5625
    assert (found.delta_1, found.delta_2, found.delta_3) == (pytest.approx(1 / 3), 1, 1)


def test_depth_that_a_shift_made_negative_is_wrong_but_finite() -> None:
    found = depth_errors(np.array([-0.5, 2.0]), np.array([1.0, 2.0]), np.ones(2, dtype=bool))
    assert np.isfinite(found.log_rmse) and found.delta_3 == 0.5 and found.abs_rel == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no valid pixel"):
        depth_errors(np.ones(2), np.ones(2), np.zeros(2, dtype=bool))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 60))
def test_scale_minimises_the_absolute_residuals(seed: int, count: int) -> None:
    p, g, _ = _pair(seed, count)
    found = robust_scale(p, g)
    candidates = np.append(g / p, found)  # a minimum of a piecewise linear function is at a kink
    costs = np.abs(candidates[:, None] * p - g).sum(axis=1)
    assert costs[-1] <= costs.min() * (1 + 1e-12)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(3, 60))
def test_scale_and_shift_minimise_the_absolute_residuals(seed: int, count: int) -> None:
    p, g, _ = _pair(seed, count)
    fit = robust_scale_shift(p, g)
    # linear programme: minimise Σ r with -r ≤ s p + t - g ≤ r
    eye, design = np.eye(count), np.stack([p, np.ones(count)], axis=1)
    best = linprog(
        np.r_[0, 0, np.ones(count)],
        A_ub=np.block([[design, -eye], [-design, -eye]]),
        b_ub=np.r_[g, -g],
        bounds=[(None, None)] * 2 + [(0, None)] * count,
    )
    assert np.abs(fit.apply(p) - g).sum() <= best.fun * (1 + 1e-3) + 1e-4


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from(ALIGNMENTS[1:]))
def test_the_prediction_s_own_scale_does_not_matter(seed: int, method: str) -> None:
    p, g, rng = _pair(seed)
    valid = rng.uniform(size=p.shape) < 0.7
    factor = float(10 ** rng.uniform(-2, 2))
    first, second = align_depth(p, g, valid, method), align_depth(factor * p, g, valid, method)
    np.testing.assert_allclose(second.apply(factor * p), first.apply(p), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ALIGNMENTS)
def test_invalid_pixels_do_not_matter(method: str) -> None:
    p, g, rng = _pair(3)
    valid = rng.uniform(size=p.shape) < 0.3  # the released code breaks down when most are invalid
    wild = np.where(valid, p, rng.uniform(0, 1e6, p.shape))
    assert align_depth(wild, np.where(valid, g, 0), valid, method) == align_depth(p, g, valid, method)


@pytest.mark.parametrize("method", ALIGNMENTS)
def test_what_a_fit_can_undo_it_undoes(method: str) -> None:
    g = np.random.default_rng(4).uniform(1, 5, (2, 9, 8))
    p = {"none": g, "median": g / 7, "scale": g / 7, "scale_shift": g / 7 - 0.1}[method]
    fit = align_depth(p, g, g > 0, method)
    assert depth_errors(fit.apply(p), g, g > 0).rmse == pytest.approx(0, abs=1e-9)


def test_a_fifth_of_wrong_truth_is_ignored() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(1, 5, 400)
    g = 2 * p
    g[:80] *= rng.uniform(2, 5, 80)
    assert robust_scale(p, g) == pytest.approx(2, rel=1e-12)
    fit = robust_scale_shift(p, g + 0.3)
    assert (fit.scale, fit.shift) == (pytest.approx(2, rel=1e-5), pytest.approx(0.3, abs=1e-4))


def test_a_prediction_of_one_value_gets_a_shift_only() -> None:
    fit = robust_scale_shift(np.full(5, 2.0), np.array([1.0, 2, 3, 4, 100]))
    assert fit.apply(np.array([2.0])) == pytest.approx([3.0])
    with pytest.raises(ValueError, match="0 at every valid pixel"):
        robust_scale(np.zeros(3), np.ones(3))
