"""Canonical JSON: what goes in comes out, and everything that does not fit is refused by name."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megasynth_attr.core.codec import canonical_json, content_hash, from_plain, rounded, to_plain
from megasynth_attr.core.errors import DatasetError


@dataclass(frozen=True)
class Inner:
    values: tuple[float, ...]
    name: str | None


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    pair: tuple[int, float]
    table: dict[str, Inner]
    flag: bool


numbers = st.floats(-1e3, 1e3).map(rounded)
inners = st.builds(Inner, st.lists(numbers).map(tuple), st.none() | st.text(max_size=5))
outers = st.builds(
    Outer,
    st.lists(inners, max_size=3).map(tuple),
    st.tuples(st.integers(), numbers),
    st.dictionaries(st.text(max_size=4), inners, max_size=2),
    st.booleans(),
)


@given(outers)
def test_round_trip(value):
    assert from_plain(Outer, to_plain(value)) == value
    assert content_hash(from_plain(Outer, to_plain(value))) == content_hash(value)


def test_rounding_gives_plain_values_without_negative_zero():
    assert str(rounded(-1e-12)) == "0.0"
    assert rounded(np.array([[0.1 + 0.2]])) == ((0.3,),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flag": 1}, "flag"),
        ({"pair": [1]}, "expected 2 values"),
        ({"pair": [True, 2.0]}, r"pair\[0\]"),
        ({"inner": [{"values": [], "name": 3}]}, r"inner\[0\].name"),
        ({"inner": [{"values": []}]}, "'name' is missing"),
        ({"extra": 1}, "unknown field 'extra'"),
    ],
)
def test_wrong_values_are_named(change, message):
    good = to_plain(Outer((), (1, 2.0), {}, True))
    with pytest.raises(DatasetError, match=message):
        from_plain(Outer, good | change)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_only_finite_numbers_are_stored(bad):
    with pytest.raises(ValueError, match="finite"):
        canonical_json({"a": bad})


def test_hash_ignores_nothing():
    a = Inner((1.0,), None)
    assert content_hash(a) != content_hash(replace(a, name=""))
