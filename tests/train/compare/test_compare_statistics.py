"""Means, spreads and paired differences, against SciPy's own paired test and what must hold for any numbers."""

from __future__ import annotations

import itertools
import statistics as standard

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from megasynth_train.compare.statistics import (
    METRICS,
    NO_SPREAD,
    Paired,
    bootstrap,
    difference,
    intervals,
    ranking,
    spread,
)
from megasynth_train.compare.table import over_scenes

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
    assert one is not None and two is not None and one.mean == pytest.approx(-two.mean)
    if len(set(values)) == 1:  # equal differences have no interval
        assert one.low is two.high is None
    else:
        assert one.low is not None and two.high is not None and one.low == pytest.approx(-two.high)
    assert {one.verdict, two.verdict} in ({"better", "worse"}, {"unclear"})


def test_better_depends_on_the_metric() -> None:
    low, high = {0: 1.0, 1: 1.1, 2: 0.9}, {0: 5.0, 1: 5.2, 2: 4.9}
    verdicts = [found.verdict for m in (ACC, NC) if (found := difference(m, "a", low, high)) is not None]
    assert verdicts == ["better", "worse"]


def test_only_common_seeds_are_paired_and_the_untrained_model_with_all() -> None:
    found = difference(ACC, "a", {0: 1.0, 1: 2.0, 5: 9.0}, {0: 0.5, 1: 1.0, 7: 0.0})
    assert found is not None and (found.count, found.mean) == (2, 0.75)
    base = difference(ACC, "a", {0: 1.0, 1: 2.0}, {None: 1.5})
    assert base is not None and (base.count, base.mean, base.wins) == (2, 0.0, 1)
    assert difference(ACC, "a", {0: 1.0}, {1: 1.0}) is None
    assert difference(ACC, "a", {None: 1.0}, {None: 2.0}) is None  # no seeds: a question for scenes
    single = difference(ACC, "a", {3: 1.0}, {3: 2.0})
    assert single is not None and single.verdict == "one seed" and single.low is None


@pytest.mark.parametrize("shift", [0.0, 0.1, -3.0])
def test_equal_differences_have_no_interval_and_words_say_so(shift: float) -> None:
    scores = {0: [1.0, 2.1], 1: [3.7, 4.0]}
    shifted = {seed: [value + shift for value in values] for seed, values in scores.items()}
    found = difference(ACC, "a", {seed: values[0] for seed, values in shifted.items()}, {0: 1.0, 1: 3.7})
    assert found is not None and (found.low, found.high, found.verdict) == (None, None, "unclear")
    table = intervals([Paired(ACC, "a", "b", shifted, scores)])
    assert (table[0].low, table[0].corrected_high, table[0].verdict) == (None, None, "unclear")
    assert found.interval == table[0].interval == NO_SPREAD
    assert table[0].mean == pytest.approx(shift) and "so there is no interval" in over_scenes(table)
    balanced = intervals([Paired(ACC, "a", "b", {0: [0.0, 1.0], 1: [1.0, 0.0]}, {None: [0.0, 0.0]})])[0]
    assert (balanced.low, balanced.verdict) == (None, "unclear")  # as good with every seed, as good on every scene


def test_ranking_keeps_the_order_of_equals() -> None:
    assert ranking(ACC, {"a": 2.0, "b": 1.0, "c": 1.0}) == ["b", "c", "a"]
    assert ranking(NC, {"a": 2.0, "b": 1.0, "c": 2.0}) == ["a", "c", "b"]


def test_with_one_seed_the_interval_is_that_of_all_draws_of_scenes() -> None:
    scenes = np.array([[0.3, -0.1, 0.7, 1.5]])
    count = scenes.size
    means = np.array([np.mean(draw) for draw in itertools.product(scenes[0], repeat=count)])  # every draw there is
    student = stats.ttest_1samp(scenes[0], 0).confidence_interval(0.95)
    stretch = (student.high - student.low) / 2 / (stats.norm.ppf(0.975) * means.std())
    found = bootstrap(scenes)
    assert found is not None
    expected = scenes.mean() + stretch * (np.quantile(means, [0.025, 0.975]) - scenes.mean())
    assert found[:2] == pytest.approx(expected, rel=0.06) and found[:2] == found[2:]
    assert bootstrap(scenes.T) == pytest.approx(found, rel=0.06)  # one scene, four seeds: the same the other way round
    assert bootstrap(np.ones((1, 1))) is None


@pytest.mark.parametrize(
    ("shape", "spreads"),
    [((1, 20), (0.0, 1.0, 0.0)), ((3, 10), (1.0, 0.2, 0.2)), ((3, 10), (0.2, 1.0, 0.5)), ((4, 12), (0.0, 0.0, 1.0))],
)
def test_the_bootstrap_holds_the_truth_as_often_as_it_says(
    shape: tuple[int, int], spreads: tuple[float, float, float]
) -> None:
    rng, (seeds, scenes), (of_seed, of_scene, noise) = np.random.default_rng(8), shape, spreads
    held = 0
    for _ in range(200):
        deltas = of_seed * rng.normal(size=(seeds, 1)) + of_scene * rng.normal(size=(1, scenes))
        found = bootstrap(deltas + noise * rng.normal(size=shape))
        assert found is not None
        held += found[0] <= 0 <= found[1]
    assert held >= 0.89 * 200  # 95 % and three standard errors; it may be cautious, never bold


def paired(shift: float, seeds: int, scenes: int, keys: str = "seeds") -> Paired:
    rng = np.random.default_rng(seeds * scenes)
    names = {"seeds": list(range(seeds)), "adapters": [f"a_{n}" for n in range(seeds)]}[keys]
    values = {name: (shift + 0.1 * rng.normal(size=scenes)).tolist() for name in names}
    return Paired(ACC, "a", "b", values, {None: [0.0] * scenes})


def test_many_comparisons_make_intervals_wider_and_decide() -> None:
    alone = intervals([paired(-0.12, 4, 12)])[0]
    many = intervals([paired(-0.12, 4, 12)] * 50)
    assert (alone.verdict, alone.comparisons, many[0].comparisons) == ("better", 1, 50)
    assert (alone.low, alone.high) == (many[0].low, many[0].high) == (alone.corrected_low, alone.corrected_high)
    assert len({(one.corrected_low, one.corrected_high) for one in many}) == 1  # the same draws for all
    low, high = many[0].corrected_low, many[0].corrected_high
    assert low is not None and high is not None and alone.low is not None and alone.high is not None
    assert low < alone.low < alone.high < high
    for side, other in ((low, alone.low), (high, alone.high)):  # by Student's t with the same degrees of freedom
        assert (side - alone.mean) / (other - alone.mean) == pytest.approx(
            (low - alone.mean) / (alone.low - alone.mean)
        )


def test_one_seed_one_adapter_or_one_scene_decides_nothing() -> None:
    verdicts = [
        intervals([one])[0].verdict
        for one in (paired(-1, 1, 9), paired(-1, 1, 9, "adapters"), paired(-1, 1, 1), paired(-1, 3, 9), paired(1, 3, 9))
    ]
    assert verdicts == ["one seed", "one adapter", "one scene", "better", "worse"]
    base = intervals([Paired(ACC, "mean", "base", {None: [1.0, 1.2, 1.1]}, {None: [0.0, 0.1, 0.0]})])[0]
    assert base.verdict == "worse" and base.replicates == 1  # neither is trained: there are no seeds to draw
    assert not intervals([Paired(ACC, "a", "b", {0: [1.0]}, {1: [1.0]})])
