"""Which datasets and scenes a run is about: ``0-99``, ``3,7,9``, ``all``, and its share ``2/64`` of them."""

from __future__ import annotations

from typing import TypeVar

from megasynth_attr.core.errors import ConfigError

T = TypeVar("T")


def parse_indices(text: str, count: int, key: str) -> list[int]:
    """Return the sorted indices selected by ``text`` among ``count``; ConfigError if one is out of range."""
    if text.strip().lower() == "all":
        return list(range(count))
    chosen: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(f"{key}={text}: write all, a number, a range 0-99 or a list 3,7,9")
        low, high = int(first), int(last) if dash else int(first)
        if low > high:
            raise ConfigError(f"{key}={text}: the range {part} runs backwards")
        if high >= count:
            raise ConfigError(f"{key}={text}: index {high} is out of range, there are {count} (0 to {count - 1})")
        chosen.update(range(low, high + 1))
    return sorted(chosen)


def parse_shard(text: str) -> tuple[int, int]:
    """Return (index from 0, count) of a shard ``i/n`` counted from 1."""
    index, slash, count = text.replace(" ", "").partition("/")
    if not slash or not index.isdigit() or not count.isdigit() or not 1 <= int(index) <= int(count):
        raise ConfigError(f"shard={text}: write i/n with 1 ≤ i ≤ n, e.g. shard=2/64")
    return int(index) - 1, int(count)


def shard_of(items: list[T], index: int, count: int) -> list[T]:
    """Return every ``count``-th item from ``index`` on: the shards are disjoint and together complete."""
    return items[index::count]
