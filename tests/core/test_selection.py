"""Which scenes a run is about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.selection import as_ranges, parse_indices, parse_shard, shard_of


def test_selections():
    assert parse_indices("all", 3, "scenes") == [0, 1, 2]
    assert parse_indices("7, 3,5-6,5", 10, "scenes") == [3, 5, 6, 7]


def test_indices_as_ranges() -> None:
    assert as_ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "10", "0-10", "1.5", "1,,2"])
def test_wrong_selections_name_the_key(text):
    with pytest.raises(ConfigError, match="scenes="):
        parse_indices(text, 10, "scenes")


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/3"])
def test_wrong_shards(text):
    with pytest.raises(ConfigError, match="shard="):
        parse_shard(text)


@given(st.integers(0, 200), st.integers(1, 70))
def test_shards_are_disjoint_and_complete(size, count):
    items = list(range(size))
    shards = [shard_of(items, *parse_shard(f"{i + 1}/{count}")) for i in range(count)]
    assert sorted(item for shard in shards for item in shard) == items
