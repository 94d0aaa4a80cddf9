"""Which datasets and scenes a run is about: ``0-99``, ``3,7,9``, ``all``, and its share ``2/64`` of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from megasynth_attr.core.command.words import shown
from megasynth_attr.core.errors import ConfigError

T = TypeVar("T")
_PART = re.compile(r"\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?")
_SHARD = re.compile(r"\s*([0-9]+)\s*/\s*([0-9]+)\s*")
_MOST_DIGITS = 18  # more than any index or count has


def parse_indices(text: str, count: int, key: str) -> list[int]:
    """Return the sorted indices selected by ``text`` among ``count``: ``all``, or numbers and ranges ``0-9,12``.

    Numbers are decimal, with or without leading zeros: 000010 is the scene in the folder of that name. ConfigError
    for an index out of range and for any other text.
    """
    return list(select_indices(text, count, key))


def select_indices(text: str, count: int, key: str) -> Sequence[int]:
    """Return what ``parse_indices`` returns; a single range, or ``all``, takes no room however long it is."""
    if text.strip().lower() == "all":
        return range(count)
    ranges = [_range(part, text, count, key) for part in text.split(",")]
    return ranges[0] if len(ranges) == 1 else sorted(set[int]().union(*ranges))


def _range(part: str, text: str, count: int, key: str) -> range:
    found = _PART.fullmatch(part)
    if found is None:
        advice = f"; a range is written {part.strip().replace(':', '-')}" if ":" in part else ""
        raise ConfigError(f"{key}={shown(text)}: write all, a number, a range 0-99 or a list 3,7,9{advice}")
    low, high = _number(found[1]), _number(found[2] or found[1])
    if low > high:
        raise ConfigError(f"{key}={shown(text)}: the range {part.strip()} runs backwards")
    if high >= count:
        there_are = f"there are {count} (0 to {count - 1})" if count else "there are none"
        raise ConfigError(f"{key}={shown(text)}: index {shown(found[2] or found[1])} is out of range, {there_are}")
    return range(low, high + 1)


def as_ranges(indices: Iterable[int]) -> str:
    """Return rising indices as text, such as ``0-9,12``: short for a whole dataset, however large."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def parse_shard(text: str) -> tuple[int, int]:
    """Return (index from 0, count) of a shard ``i/n`` counted from 1; ConfigError for any other text."""
    found = _SHARD.fullmatch(text)
    if found is None or not 1 <= (index := _number(found[1])) <= (count := _number(found[2])):
        raise ConfigError(f"shard={shown(text)}: write i/n with 1 ≤ i ≤ n, e.g. shard=2/64")
    return index - 1, count


def _number(digits: str) -> int:
    """Return a number, or one that is larger than any count: Python reads no more than 4300 digits."""
    digits = digits.lstrip("0") or "0"
    return int(digits[: _MOST_DIGITS + 1])


def shard_of(items: list[T], index: int, count: int) -> list[T]:
    """Return every ``count``-th item from ``index`` on: the shards are disjoint and together complete."""
    return items[index::count]
