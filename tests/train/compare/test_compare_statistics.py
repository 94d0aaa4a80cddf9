"""Means, spreads and paired differences, against SciPy's own paired test and what must hold for any numbers."""

from __future__ import annotations

import math
import statistics as standard

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from megasynth_train.compare.statistics import METRICS, difference, ranking, spread

ACC, NC = METRICS[0], METRICS[2]
numbers = st.lists(st.floats(-10, 10).map(lambda x: round(x, 6)), min_size=2, max_size=8)


@given(numbers)
def test_the_spread_is_the_sample_standard_deviation(values: list[float]) -> None:
    found = spread(values)
    assert found.mean == pytest.approx(standard.fmean(values)) and found.count == len(values)
    assert found.std == pytest.approx(standard.stdev(values), abs=1e-9)


def test_one_value_has_no_spread_and_none_no_mean() -> None:
    assert (spread([2.0]).mean, spread([2.0]).std) == (2.0, None)
    assert spread([]).mean is None and spread([]).count == 0


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=6), rng.normal(0.4, size=6)
    found = difference(ACC, "a", dict(enumerate(first)), dict(enumerate(second)))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.wins == int((first < second).sum())


def test_the_interval_misses_the_truth_in_one_of_twenty() -> None:
    rng, missed = np.random.default_rng(0), 0
    for _ in range(2000):
        found = difference(ACC, "a", dict(enumerate(rng.normal(size=3))), dict(enumerate(rng.normal(size=3))))
        missed += found is not None and found.verdict != "unclear"
    assert 0.035 < missed / 2000 < 0.065


@given(numbers)
def test_swapping_methods_turns_the_difference_round(values: list[float]) -> None:
    first = dict(enumerate(values))
    second = {seed: value / 2 + 1 for seed, value in first.items()}
    one, two = difference(ACC, "a", first, second), difference(ACC, "b", second, first)
    assert one is not None and two is not None and one.low is not None and two.high is not None
    assert one.mean == pytest.approx(-two.mean) and one.low == pytest.approx(-two.high)
    assert {one.verdict, two.verdict} in ({"better", "worse"}, {"unclear"})


def test_better_depends_on_the_metric() -> None:
    low, high = {0: 1.0, 1: 1.1, 2: 0.9}, {0: 5.0, 1: 5.1, 2: 4.9}
    verdicts = [found.verdict for m in (ACC, NC) if (found := difference(m, "a", low, high)) is not None]
    assert verdicts == ["better", "worse"]


def test_only_common_seeds_are_paired_and_the_untrained_model_with_all() -> None:
    found = difference(ACC, "a", {0: 1.0, 1: 2.0, 5: 9.0}, {0: 0.5, 1: 1.0, 7: 0.0})
    assert found is not None and (found.count, found.mean) == (2, 0.75)
    base = difference(ACC, "a", {0: 1.0, 1: 2.0}, {None: 1.5})
    assert base is not None and (base.count, base.mean, base.wins) == (2, 0.0, 1)
    assert difference(ACC, "a", {0: 1.0}, {1: 1.0}) is None
    single = difference(ACC, "a", {3: 1.0}, {3: 2.0})
    assert single is not None and single.verdict == "one seed" and single.low is None


def test_equal_runs_are_not_told_apart() -> None:
    found = difference(ACC, "a", {0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0})
    assert found is not None and found.verdict == "unclear" and not math.isnan(found.low or 0)


def test_ranking_keeps_the_order_of_equals() -> None:
    assert ranking(ACC, {"a": 2.0, "b": 1.0, "c": 1.0}) == ["b", "c", "a"]
    assert ranking(NC, {"a": 2.0, "b": 1.0, "c": 2.0}) == ["a", "c", "b"]
