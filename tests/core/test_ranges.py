"""Ranges as values: what is drawn, against NumPy and against the distributions; JSON forms; limits and refusals."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from megasynth_attr.core.codec import canonical_json, from_plain, to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.fields import check, range_setting, span
from megasynth_attr.core.keys import all_keys, fill, merge
from megasynth_attr.core.ranges import LogUniform, OneOf, Range, Uniform

seeds = st.integers(0, 2**32 - 1)
floats = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
counts = st.integers(1, 500)


def ordered(kind, values):
    return st.tuples(values, values).map(lambda pair: kind(min(pair), max(pair)))


def kinds(numbers, positive_numbers):
    some = st.lists(numbers, min_size=1, max_size=5).map(tuple)
    return st.one_of(ordered(Uniform, numbers), ordered(LogUniform, positive_numbers), some.map(OneOf))


continuous, whole = kinds(floats, positive), kinds(counts, counts)


@dataclass(frozen=True)
class Keys:
    angle: Range[float] = span(45, 70, "uniform unless said otherwise", minimum=5, maximum=150)
    power: Range[float] = range_setting(LogUniform(0.5, 5.0), "log-uniform unless said otherwise", minimum=0.001)
    number: Range[int] = range_setting(Uniform(1, 3), "a count", minimum=0, maximum=20)
    optional: Range[int] | None = range_setting(None, "may be missing", minimum=0)


@given(seeds, ordered(Uniform, floats), st.sampled_from([None, 7, (3, 2)]))
def test_uniform_numbers_are_numpys(seed, some, size):
    assert np.array_equal(
        some.draw(np.random.default_rng(seed), size), np.random.default_rng(seed).uniform(some.low, some.high, size)
    )


@given(seeds, ordered(Uniform, counts), st.sampled_from([None, 7, (3, 2)]))
def test_uniform_whole_numbers_are_numpys(seed, some, size):
    expected = np.random.default_rng(seed).integers(some.low, some.high + 1, size)
    assert np.array_equal(some.draw(np.random.default_rng(seed), size), expected)


@given(seeds, continuous | whole, st.sampled_from([None, 5, (2, 3)]))
def test_every_draw_is_inside_and_of_its_type(seed, some, size):
    drawn = some.draw(np.random.default_rng(seed), size)
    assert np.shape(drawn) == (() if size is None else np.empty(size).shape)
    assert (some.low <= np.asarray(drawn)).all() and (np.asarray(drawn) <= some.high).all()
    if size is None:
        assert type(drawn) is (int if some.is_whole else float)
    else:
        assert np.issubdtype(drawn.dtype, np.integer) is some.is_whole
    if isinstance(some, OneOf):
        assert set(np.ravel(drawn).tolist()) <= set(some.values)


@pytest.mark.parametrize("some", [Uniform(2.0, 5.0), LogUniform(0.01, 100.0)])
def test_continuous_draws_follow_their_distribution(some):
    reference = stats.uniform(2, 3) if isinstance(some, Uniform) else stats.loguniform(0.01, 100)
    assert stats.kstest(some.draw(np.random.default_rng(1), 4000), reference.cdf).pvalue > 0.01
    assert some.at(np.array([0.0, 0.25, 0.5])) == pytest.approx(reference.ppf([0.0, 0.25, 0.5]))


@pytest.mark.parametrize("some", [Uniform(2, 6), LogUniform(1, 9), OneOf((1, 4, 16))])
def test_whole_draws_follow_their_weights(some):
    numbers, weights = some.whole_numbers()
    drawn = some.draw(np.random.default_rng(3), 6000)
    found = [np.sum(drawn == n) for n in numbers]
    assert sum(found) == 6000
    assert stats.chisquare(found, 6000 * weights / weights.sum()).pvalue > 0.01
    shares = some.at((np.arange(6000) + 0.5) / 6000)  # the same weights without chance
    assert np.array([np.mean(shares == n) for n in numbers]) == pytest.approx(weights / weights.sum(), abs=1e-3)


@given(continuous | whole, st.floats(0.1, 10), st.floats(0, 0.999))
def test_a_multiple_draws_multiples(some, factor, share):
    if not some.is_whole:
        assert some.times(factor).at(share) == pytest.approx(some.at(share) * factor, rel=1e-9, abs=1e-9)
    assert some.times(factor).low == pytest.approx(some.low * factor)
    assert some.at_most(some.high) == some and some.at_most(some.low).high == some.low


def test_what_is_left_below_a_limit():
    assert Uniform(4, 16).at_most(8) == Uniform(4, 8) and LogUniform(1, 9).at_most(20) == LogUniform(1, 9)
    assert OneOf((2, 16, 4)).at_most(8) == OneOf((2, 4))
    for some in (Uniform(4, 16), LogUniform(4, 16), OneOf((4, 16))):
        with pytest.raises(ValueError, match=r"empty|no number"):
            some.at_most(3)


def test_readable_and_equal_by_value():
    assert str(Uniform(45.0, 70.0)) == "45 … 70" and str(Uniform(3, 3)) == "3"
    assert str(LogUniform(1.0, 100.0)) == "1 … 100, log-uniform" and str(OneOf((1, 2, 4))) == "one of 1, 2, 4"
    assert Uniform(1.0, 2.0) == Uniform(1.0, 2.0) != LogUniform(1.0, 2.0)
    assert len({Uniform(1, 2), Uniform(1, 2), OneOf((1, 2)), OneOf((2, 1))}) == 3


@given(continuous, st.builds(LogUniform, st.just(1.0), positive.map(lambda x: x + 1)), whole, st.none() | whole)
def test_round_trip(angle, power, number, optional):
    keys = Keys(angle, power, number, optional)
    assert from_plain(Keys, to_plain(keys)) == keys


def test_json_of_the_defaults_is_that_of_plain_pairs():
    assert canonical_json(Keys()) == '{"angle":[45.0,70.0],"number":[1,3],"optional":[],"power":[0.5,5.0]}'
    assert to_plain(Keys(power=Uniform(1.0, 2.0)))["power"] == {"uniform": [1.0, 2.0]}
    assert to_plain(LogUniform(1.0, 2.0)) == {"log": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("key", "given_", "expected"),
    [
        ("angle", [50, 60], Uniform(50.0, 60.0)),
        ("angle", 50, Uniform(50.0, 50.0)),
        ("angle", {"log": [50, 60]}, LogUniform(50.0, 60.0)),
        ("angle", {"one_of": [60, 50]}, OneOf((60.0, 50.0))),
        ("power", [1, 2], LogUniform(1.0, 2.0)),
        ("power", 3, LogUniform(3.0, 3.0)),
        ("power", {"uniform": [1, 2]}, Uniform(1.0, 2.0)),
        ("number", {"one_of": [1, 2, 4]}, OneOf((1, 2, 4))),
        ("optional", [2, 5], Uniform(2, 5)),
        ("optional", [], None),
        ("optional", None, None),
    ],
)
def test_forms(key, given_, expected):
    value = getattr(fill(Keys, {key: given_}), key)
    assert value == expected and (value is None or value.is_whole is (key in ("number", "optional")))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"angle": [70, 45]}, r"^angle=\[70,45\]: the range is empty"),
        ({"angle": [45]}, r"^angle=\[45\]: expected a range: \[low, high\], \{log"),
        ({"angle": [45, 50, 60]}, "expected a range"),
        ({"angle": "wide"}, "angle=wide: expected a range"),
        ({"angle": None}, "angle= is empty"),
        ({"angle": {"normal": [1, 2]}}, r"angle=\{normal: \[1,2\]\}: expected a range"),
        ({"angle": {"log": [1, 2], "one_of": [3]}}, "expected a range"),
        ({"angle": {"log": [0, 20]}}, "positive numbers only"),
        ({"angle": {"one_of": []}}, "no number to choose from"),
        ({"angle": {"one_of": [10, 151]}}, r"^angle=\{one_of: \[10,151\]\}: must be at most 150"),
        ({"angle": {"log": [4, 20]}}, "must be at least 5"),
        ({"angle": [10, float("inf")]}, "finite"),
        ({"angle": [10, float("nan")]}, "finite"),
        ({"angle": [True, 20]}, "expected numbers, found True"),
        ({"number": [1, 2.5]}, "expected whole numbers, found 2.5"),
        ({"number": {"one_of": ["a"]}}, "found 'a'"),
        ({"number": {"log": [0, 2]}}, "positive"),
        ({"power": [-1, 2]}, "positive"),
    ],
)
def test_refusals_name_the_key_and_the_value(values, message):
    with pytest.raises(ConfigError, match=message):
        fill(Keys, values)
    with pytest.raises((ConfigError, DatasetError)):
        check(from_plain(Keys, to_plain(Keys()) | values), "")


def test_a_later_layer_replaces_a_range_and_merges_a_section():
    base = {"light": {"power": {"log": [1, 2]}, "angle": [1, 2]}}
    over = {"light": {"power": {"one_of": [3]}, "angle": {"log": [3, 4]}}}
    assert merge(base, over) == over
    assert merge(over, {"light": {"power": [5, 6]}}) == {"light": {"power": [5, 6], "angle": {"log": [3, 4]}}}


def test_a_range_is_one_key():
    assert all_keys(Keys) == ["angle", "power", "number", "optional"]
