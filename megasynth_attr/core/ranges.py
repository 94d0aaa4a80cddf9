"""Ranges: what a number is drawn from, as a value – uniform, log-uniform, or one of some numbers.

A range whose numbers are all ``int`` holds whole numbers (counts), both ends included; one ``float`` makes it
continuous. In JSON and YAML a range is ``[low, high]``, ``{log: [low, high]}``, ``{one_of: [a, b, …]}``, or one number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

Number = TypeVar("Number", int, float)
Size = int | tuple[int, ...] | None
FORMS = "[low, high], {log: [low, high]}, {one_of: [a, b, ...]} or one number"


class Range(ABC, Generic[Number]):
    """What a number is drawn from. ``low`` and ``high`` are the smallest and largest that can be drawn."""

    low: Number
    high: Number
    word: ClassVar[str]  # what the range is called in JSON and YAML

    @property
    def numbers(self) -> tuple[Number, ...]:
        """Return the numbers that were given: both ends, or all there are to choose from."""
        return (self.low, self.high)

    @property
    def is_whole(self) -> bool:
        return all(isinstance(number, int) for number in self.numbers)

    def draw(self, rng: np.random.Generator, size: Size = None) -> Any:
        """Return one number, or an array of numbers of this ``size``; integers if the range is whole."""
        return self.at(rng.random(size))

    @abstractmethod
    def at(self, share: Any) -> Any:
        """Return the number below which this ``share`` of all draws falls, for shares in [0, 1) of any shape."""

    def times(self, factor: float) -> Range[float]:
        """Return the continuous range of the numbers multiplied by a positive ``factor``."""
        return range_from_plain({self.word: [number * factor for number in self.numbers]}, whole=False)

    def plain(self, pair: type[Range[Any]] | None = None) -> Any:
        """Return the range as JSON has it; ``pair`` is the kind that ``[low, high]`` stands for (None: Uniform)."""
        return list(self.numbers) if type(self) is (pair or Uniform) else {self.word: list(self.numbers)}

    @abstractmethod
    def at_most(self, limit: Number) -> Range[Number]:
        """Return the range without what is above ``limit``; ValueError if that is everything."""

    @abstractmethod
    def whole_numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all numbers of a whole range, and how often each is drawn relative to the others."""


@dataclass(frozen=True)
class _Interval(Range[Number]):
    """Numbers from ``low`` to ``high``."""

    low: Number
    high: Number

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("the range is empty: its first number must not exceed its second")

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} … {self.high:g}"

    def at_most(self, limit: Number) -> Range[Number]:
        return type(self)(self.low, min(self.high, limit))

    def whole_numbers(self) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.arange(self.low, self.high + 1)
        return numbers, np.ones(len(numbers))


@dataclass(frozen=True)
class Uniform(_Interval[Number]):
    """Every number from ``low`` to ``high`` equally often."""

    word = "uniform"

    def draw(self, rng: np.random.Generator, size: Size = None) -> Any:
        if not self.is_whole:
            return self.at(rng.random(size))
        return _numbers(rng.integers(int(self.low), int(self.high) + 1, size), whole=True)

    def at(self, share: Any) -> Any:
        if not self.is_whole:
            return self.low + (self.high - self.low) * share
        return _numbers(np.minimum(self.low + np.floor((self.high - self.low + 1) * share), self.high), whole=True)


@dataclass(frozen=True)
class LogUniform(_Interval[Number]):
    """Every ratio equally often: as much between 1 and 10 as between 10 and 100. Whole numbers are rounded draws."""

    word = "log"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low > 0:
            raise ValueError("a log-uniform range holds positive numbers only")

    def __str__(self) -> str:
        return f"{super().__str__()}, log-uniform"

    def at(self, share: Any) -> Any:
        rounding = 0.5 if self.is_whole else 0.0
        first, last = np.log(self.low - rounding), np.log(self.high + rounding)
        numbers = np.exp(first + (last - first) * share)
        numbers = np.round(numbers) if self.is_whole else numbers
        return _numbers(np.clip(numbers, self.low, self.high), self.is_whole)

    def whole_numbers(self) -> tuple[np.ndarray, np.ndarray]:
        numbers, _ = super().whole_numbers()
        return numbers, np.log((numbers + 0.5) / (numbers - 0.5))


@dataclass(frozen=True)
class OneOf(Range[Number]):
    """One of ``values``, each equally often."""

    word = "one_of"
    values: tuple[Number, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("there is no number to choose from")

    @property
    def low(self) -> Number:  # type: ignore[override]
        return min(self.values)

    @property
    def high(self) -> Number:  # type: ignore[override]
        return max(self.values)

    @property
    def numbers(self) -> tuple[Number, ...]:
        return self.values

    def __str__(self) -> str:
        return "one of " + ", ".join(f"{value:g}" for value in self.values)

    def at(self, share: Any) -> Any:
        index = np.floor(np.asarray(share) * len(self.values)).astype(int)
        return _numbers(np.array(self.values)[np.minimum(index, len(self.values) - 1)], self.is_whole)

    def at_most(self, limit: Number) -> Range[Number]:
        return OneOf(tuple(value for value in self.values if value <= limit))

    def whole_numbers(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.values), np.ones(len(self.values))


_INTERVALS: dict[str, type[_Interval[Any]]] = {kind.word: kind for kind in (Uniform, LogUniform)}


def is_range_table(value: Any) -> bool:
    """Return whether ``value`` is a range written as a YAML table, e.g. ``{log: [1, 10]}``: replaced, never merged."""
    return isinstance(value, Mapping) and len(value) == 1 and set(value) <= {*_INTERVALS, OneOf.word}


def range_from_plain(data: Any, *, whole: bool, pair: type[Range[Any]] | None = None) -> Range[Any]:
    """Return the range that JSON or YAML ``data`` describes; ValueError, without the key's name, if it describes none.

    ``whole``: only whole numbers are allowed. ``pair`` is the kind that ``[low, high]`` stands for (None: Uniform).
    """
    if isinstance(data, Range):
        return data
    if is_range_table(data):
        ((word, numbers),) = data.items()
    else:
        word, numbers = (pair or Uniform).word, data
    interval = _INTERVALS.get(word)  # None: one_of
    if interval and isinstance(numbers, int | float):
        numbers = [numbers, numbers]
    if not isinstance(numbers, list | tuple) or (interval and len(numbers) != 2):
        raise ValueError(f"expected a range: {FORMS}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int if whole else int | float):
            raise ValueError(f"expected {'whole numbers' if whole else 'numbers'}, found {number!r}")
    numbers = tuple(numbers) if whole else tuple(float(number) for number in numbers)
    return interval(*numbers) if interval else OneOf(numbers)


def _numbers(drawn: Any, whole: bool) -> Any:
    """Return a Python number for a single draw, else an array; integers if ``whole``."""
    array = np.asarray(drawn, dtype=np.int64 if whole else None)
    return array.item() if array.ndim == 0 else array
