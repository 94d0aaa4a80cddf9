"""Spectra and their null against dense matrices, and what is said about cliffs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from megasynth_train.subspace.core import Update, core_coordinates
from megasynth_train.subspace.extract import Options, solve
from megasynth_train.subspace.spectrum import (
    FrameBank,
    largest,
    null_spectrum,
    significant,
    significant_normalised,
    significant_reweighted,
    spectrum,
)


def dense_spectrum(updates: Sequence[Update]) -> np.ndarray:
    return np.linalg.svd(np.mean([planted.dense(update) for update in updates], axis=0), compute_uv=False)


def found_significant(updates: Sequence[Update], seed: int = 0) -> int:
    core = core_coordinates(updates)
    return significant(spectrum(core), null_spectrum(core, FrameBank(20, seed), 0.95).upper)


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 30),
    n=st.integers(1, 30),
    ranks=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_the_spectrum_is_that_of_the_dense_mean(m: int, n: int, ranks: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    updates = [Update(rng.standard_normal((m, rank)), rng.standard_normal((n, rank))) for rank in ranks]
    found, dense = spectrum(core_coordinates(updates)), dense_spectrum(updates)
    assert len(found) == min(m, n, sum(ranks))
    np.testing.assert_allclose(found, dense[: len(found)], atol=1e-13 * dense[0])
    np.testing.assert_allclose(dense[len(found) :], 0, atol=1e-13 * dense[0])
    null = null_spectrum(core_coordinates(updates), FrameBank(5, seed), 0.9)
    assert len(null.median) == len(null.upper) == len(found)
    assert (null.median <= null.upper).all() and (np.diff(null.median) <= 0).all() and (np.diff(null.upper) <= 0).all()


def test_zero_updates_count_in_the_mean() -> None:
    rng = np.random.default_rng(0)
    updates = (*planted.random_updates(2, 20, 15, 3, rng), planted.zero_update(20, 15, 3, rng))
    np.testing.assert_allclose(spectrum(core_coordinates(updates))[:9], dense_spectrum(updates)[:9], atol=1e-14)


def test_a_cluster_without_any_update_has_nothing_significant() -> None:
    rng = np.random.default_rng(0)
    assert found_significant([planted.zero_update(20, 15, 3, rng) for _ in range(3)]) == 0


def test_neither_spectrum_nor_null_depends_on_the_gauge() -> None:
    rng = np.random.default_rng(3)
    updates = planted.planted(rng, k=5, noise=0.5).updates
    other = [planted.regauged(update, rng, condition=1e4) for update in updates]
    one, two = core_coordinates(updates), core_coordinates(other)
    np.testing.assert_allclose(spectrum(one), spectrum(two), atol=1e-9)
    bank = FrameBank(4, 0)
    np.testing.assert_allclose(null_spectrum(one, bank, 0.95).upper, null_spectrum(two, bank, 0.95).upper, atol=1e-9)


def test_the_null_is_the_dense_spectrum_of_turned_updates() -> None:
    """Same law as full Haar matrices of the layer on both sides of dense updates, by medians and quantiles of many."""
    rng = np.random.default_rng(7)
    updates = [planted.random_update(9, 7, rank, rng, scale) for rank, scale in ((2, 1.0), (3, 2.0), (1, 3.0))]
    draws = 3000
    left, right = (ortho_group(size, seed=11).rvs(draws * 3).reshape(draws, 3, size, size) for size in (9, 7))
    matrices = np.stack([planted.dense(update) for update in updates])
    dense = np.linalg.svd(np.mean(left @ matrices @ right.swapaxes(-1, -2), axis=1), compute_uv=False)[:, :6]
    null = null_spectrum(core_coordinates(updates), FrameBank(draws, 5), 0.9)
    np.testing.assert_allclose(null.median, np.median(dense, axis=0), atol=0.02)
    np.testing.assert_allclose(null.upper, np.quantile(dense, 0.9, axis=0), atol=0.02)


def test_the_null_is_exactly_the_mean_of_the_turned_updates() -> None:
    updates = planted.planted(np.random.default_rng(7), k=3, m=20, n=9, dimension=4).updates  # p = 12, q = 9
    core, bank = core_coordinates(updates), FrameBank(3, 5)
    left, right = bank.frames("left", 20, 3, 4), bank.frames("right", 9, 3, 4)
    assert left.shape == (3, 12, 12) and right.shape == (3, 9, 12)
    dense = []
    for draw in range(3):
        mean = np.zeros((12, 9))
        for i, x in enumerate(core.cores):
            values = np.linalg.svd(x, compute_uv=False)[:4]
            columns = slice(4 * i, 4 * i + 4)
            mean += left[draw][:, columns] @ np.diag(values) @ right[draw][:, columns].T / 3
        dense.append(np.linalg.svd(mean, compute_uv=False))
    null = null_spectrum(core, bank, 0.75)
    np.testing.assert_allclose(null.median, np.median(dense, axis=0), atol=1e-8 * dense[0][0])
    np.testing.assert_allclose(null.upper, np.quantile(dense, 0.75, axis=0, method="higher"), atol=1e-8 * dense[0][0])


def test_unrelated_adapters_lie_in_the_band() -> None:
    rng = np.random.default_rng(0)
    core = core_coordinates(planted.random_updates(8, 160, 120, 6, rng))
    values, null = spectrum(core), null_spectrum(core, FrameBank(40, 1), 0.95)
    np.testing.assert_allclose(values, null.median, rtol=0.1)


@pytest.mark.parametrize("space", [5, 3])  # the frames of two pairs fit into it, or they do not
def test_frames_are_orthonormal_uniform_and_independent(space: int) -> None:
    drawn = FrameBank(4000, 1).frames("left", space, 2, 2)
    assert drawn.shape == (4000, min(space, 4), 4)
    for frame in (drawn[..., :2], drawn[..., 2:]):
        np.testing.assert_allclose(frame.swapaxes(1, 2) @ frame, np.broadcast_to(np.eye(2), (4000, 2, 2)), atol=1e-12)
    # cosines of independent uniform directions of R^m: mean 0, E c² = 1/m, E c⁴ = 3/(m(m + 2))
    cosines = np.einsum("dpi,dpj->dij", drawn[..., :2], drawn[..., 2:])
    np.testing.assert_allclose(cosines.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose((cosines**2).mean(axis=0), 1 / space, atol=0.025)
    np.testing.assert_allclose((cosines**4).mean(axis=0), 3 / (space * (space + 2)), atol=0.025)


def test_frames_depend_on_seed_side_and_sizes_only() -> None:
    first, second = FrameBank(2, 8), FrameBank(2, 8)
    second.frames("right", 9, 3, 2)
    wanted = first.frames("left", 12, 3, 4)
    np.testing.assert_array_equal(second.frames("left", 12, 3, 4), wanted)
    assert first.frames("left", 12, 3, 4) is wanted  # drawn once
    assert not np.allclose(first.frames("right", 12, 3, 4), wanted)
    assert not np.allclose(FrameBank(2, 9).frames("left", 12, 3, 4), wanted)
    assert not np.allclose(wanted[0], wanted[1])


def test_one_start_for_all_adapters_makes_a_cliff_without_any_shared_structure() -> None:
    """✓ 9.5× where the start is shared and drifts by a tenth, 1.0× with seeds of their own.

    The null finds the shared row space significant: it is one, wherever it comes from. Only seeds and drift tell that.
    """
    rank, cliffs, plain = 16, [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        start = rng.standard_normal((192, rank))
        shared = [
            Update(rng.standard_normal((256, rank)), start + 0.1 * rng.standard_normal((192, rank))) for _ in range(10)
        ]
        values = spectrum(core_coordinates(shared))
        cliffs.append(values[rank - 1] / values[rank])
        assert rank - 4 <= found_significant(shared) <= rank
        own = planted.random_updates(10, 256, 192, rank, rng)
        values = spectrum(core_coordinates(own))
        plain.append(values[rank - 1] / values[rank])
        assert found_significant(own) == 0
    assert np.mean(cliffs) == pytest.approx(9.5, rel=0.1)
    assert np.mean(plain) == pytest.approx(1.0, abs=0.03)


def test_the_shared_dimensions_are_counted() -> None:
    counts = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        counts.append(found_significant(planted.planted(rng, m=96, n=80, dimension=4, noise=0.5).updates, seed))
    assert counts == [4] * 8


def test_shared_directions_do_not_make_others_count() -> None:
    """Weak shared directions push the rest of the spectrum to later indices, where the null is lower."""
    counts = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        counts.append(found_significant(planted.planted(rng, m=96, n=80, dimension=2, noise=2.5).updates, seed))
    assert max(counts) <= 2 and np.mean(counts) >= 1


def test_few_draws_let_no_more_through_than_the_quantile_says() -> None:
    """One draw more would exceed the largest of three once in four times."""
    bank, found = FrameBank(3, 1), []
    for seed in range(250):
        core = core_coordinates(planted.random_updates(3, 16, 12, 2, np.random.default_rng(seed)))
        found.append(significant(spectrum(core), null_spectrum(core, bank.at(str(seed)), 0.95).upper))
    assert 0.01 < np.mean(np.array(found) > 0) < 0.1  # standard error 0.014


@pytest.mark.parametrize(
    ("draws", "quantile", "r"), [(19, 0.95, 19), (20, 0.95, 20), (25, 0.95, 25), (40, 0.95, 39), (40, 0.9, 37)]
)
def test_the_limit_is_the_lowest_draw_that_keeps_the_promise(draws: int, quantile: float, r: int) -> None:
    core, bank = core_coordinates(planted.random_updates(3, 16, 12, 2, np.random.default_rng(0))), FrameBank(draws, 1)
    values = core.svds.values.ravel() / 3
    drawn = sorted(np.linalg.norm((left * values) @ right.T, 2) for left, right in bank.pairs(core))
    assert null_spectrum(core, bank, quantile).upper[0] == pytest.approx(drawn[r - 1])
    missed = [(draws + 1 - rank) / (draws + 1) for rank in (r, r - 1)]  # by one draw more
    assert missed[0] <= 1 - quantile + 1e-12 < missed[1]


def test_every_place_has_a_null_of_its_own() -> None:
    """With the same pairs of frames everywhere, a lucky or unlucky draw would decide alike in all layers of a run."""
    core = core_coordinates(planted.random_updates(5, 32, 24, 3, np.random.default_rng(0)))
    places = [("layer", str(number)) for number in range(24)]
    banks = [FrameBank(20, run) for run in range(8)]
    limits = np.array([[null_spectrum(core, bank.at(*place), 0.95).upper[0] for place in places] for bank in banks])
    assert limits.mean(axis=1).std() < 0.5 * limits.std()  # 24 independent nulls: 0.2, one for all: 1
    first, again = (null_spectrum(core, FrameBank(20, 0).at(*places[0]), 0.95).upper for _ in range(2))
    assert first[0] == limits[0, 0]
    np.testing.assert_array_equal(first, again)


def test_the_largest_gap_of_the_logarithms_does_not_find_the_dimension() -> None:
    """Why parallel analysis: one strong direction ahead of five weaker shared ones, well above the noise all six."""
    rng = np.random.default_rng(2)
    left, right = planted.frame(96, 6, rng), planted.frame(80, 6, rng)
    common = left * [2.0, 0.6, 0.55, 0.5, 0.48, 0.46]
    updates = [planted.plus(Update(common, right), planted.random_update(96, 80, 3, rng, 1.6)) for _ in range(8)]
    values = spectrum(core_coordinates(updates))
    gap = 1 + int(np.argmax(-np.diff(np.log(values[: 6 + 24]))))  # of the non-zero ones
    assert found_significant(updates) == 6
    assert gap == 1


def test_a_single_adapter_is_its_own_null() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        assert found_significant([planted.random_update(40, 30, 6, rng)], seed) == 0


def test_copies_share_all_their_dimensions() -> None:
    rng = np.random.default_rng(0)
    assert found_significant([Update(planted.frame(40, 6, rng), planted.frame(30, 6, rng))] * 4) == 6


@pytest.mark.parametrize(
    ("values", "upper", "count"),
    [
        ([3.0, 2.5, 1.0], [2.0, 1.0, 0.5], 2),  # the third is no larger than the largest of chance
        ([3.0, 2.0, 1.0], [2.0, 2.0, 0.5], 1),  # at the null is not above
        ([3.0, 2.0, 1.0], [4.0, 1.0, 0.5], 0),
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([1.0 + 1e-12], [1.0], 0),  # rounding
        ([], [], 0),
    ],
)
def test_values_count_above_the_largest_of_the_null(values: list[float], upper: list[float], count: int) -> None:
    assert significant(np.array(values), np.array(upper)) == count


def test_a_null_needs_draws() -> None:
    with pytest.raises(ValueError, match="at least one draw"):
        FrameBank(0, 1)


def three_tests(updates: Sequence[Update], dimension: int, bank: FrameBank) -> tuple[int, int, int]:
    """Return the directions above chance of the plain mean, of that with irls' weights, and of normalised updates."""
    core = core_coordinates(updates)
    weights = solve(core, dimension, "irls", Options()).weights
    return (
        significant(spectrum(core), null_spectrum(core, bank, 0.95).upper),
        significant_reweighted(core, bank, 0.95, weights),
        significant_normalised(core, bank, 0.95),
    )


@pytest.mark.parametrize(
    ("what", "plain", "reweighted"),
    [({}, (3, 3), 3), ({"outliers": 1, "outlier_scale": 20}, (0, 1), 3), ({"coefficients": "signs"}, (0.5, 2), 0)],
    ids=["as planted", "an outlier × 20", "random signs"],
)
def test_neither_an_outlier_nor_random_signs_hide_directions_from_the_robust_test(
    what: dict[str, Any], plain: tuple[float, float], reweighted: int
) -> None:
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        updates = planted.planted(rng, k=8, m=96, n=80, dimension=3, noise=0.5, **what).updates
        found.append(three_tests(updates, 3, FrameBank(20, seed)))
    counts = np.array(found)
    assert plain[0] <= counts[:, 0].mean() <= plain[1]
    assert (counts[:, 1] >= reweighted).all() and (counts[:, 2] == 3).all()


@pytest.mark.parametrize("shape", [(1, 7), (9, 9), (48, 160), (160, 160)])
def test_the_largest_values_are_those_of_the_decomposition(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    few = [rng.standard_normal((shape[0], 1)) @ rng.standard_normal((1, shape[1])) for _ in range(2)]
    stack = np.stack([*few, *rng.standard_normal((4, *shape)), np.eye(*shape), np.zeros(shape)]).astype(np.float32)
    np.testing.assert_allclose(largest(stack), np.linalg.norm(stack.astype(float), 2, axis=(1, 2)), rtol=1e-5)


def test_unrelated_adapters_exceed_chance_as_often_as_the_quantile_says() -> None:
    """By each test, with one bank of rotations, as in the layers of one run; more of it: experiments/planted.py."""
    bank, found = FrameBank(20, 3), []
    for seed in range(200):
        updates = planted.random_updates(5, 32, 24, 3, np.random.default_rng(seed))
        found.append(three_tests(updates, 2, bank.at(str(seed))))
    rates = (np.array(found) > 0).mean(axis=0)
    assert (rates > 0.01).all() and (rates < (0.1, 0.12, 0.1)).all()  # 0.05, 0.06, 0.05; standard error 0.016


def test_the_other_tests_find_nothing_where_there_is_nothing() -> None:
    assert three_tests([planted.random_update(40, 30, 6, np.random.default_rng(0))], 6, FrameBank(20, 0)) == (0, 0, 0)
    zeros = [planted.zero_update(20, 15, 3, np.random.default_rng(0)) for _ in range(3)]
    assert three_tests(zeros, 3, FrameBank(20, 0)) == (0, 0, 0)


def test_the_null_of_the_mean_with_weights_against_dense_matrices() -> None:
    """Of single precision and eight draws: the same as Haar rotations of the dense updates, to their scatter."""
    rng = np.random.default_rng(3)
    updates = [planted.random_update(30, 24, 2, rng, scale) for scale in (1, 2, 5, 0.1)]
    core, weights = core_coordinates(updates), np.array([1.0, 0.7, 0.05, 2.0])
    largest = []
    for _ in range(300):
        parts = [
            w * planted.frame(30, 30, rng) @ planted.dense(update) @ planted.frame(24, 24, rng)
            for w, update in zip(weights, updates, strict=True)
        ]
        largest.append(np.linalg.norm(np.mean(parts, axis=0), 2))
    limits = []
    for seed in range(12):
        bank = FrameBank(20, seed)
        low, high = 0.0, 10.0
        for _ in range(30):  # the limit itself: scaling the spectrum until one value is significant
            middle = (low + high) / 2
            scaled = replace(core, factors_left=tuple(f * middle for f in core.factors_left))
            scaled.__dict__["svds"] = core.svds  # the null of the updates as they are
            low, high = (low, middle) if significant_reweighted(scaled, bank, 0.95, weights) else (middle, high)
        limits.append(high * spectrum(core, weights)[0])
    assert np.mean(limits) == pytest.approx(np.quantile(largest, 0.97), rel=0.05)
