"""Bases of several attributes side by side, as one basis of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.errors import ConfigError
from megasynth_train.subspace.qr import positive_qr


@dataclass(frozen=True)
class Concatenated:
    """One layer's columns of all attributes; ``columns`` are the (start, stop) of each attribute."""

    left: np.ndarray  # m × D
    right: np.ndarray  # n × D
    columns: dict[str, tuple[int, int]]
    kept: np.ndarray  # D: indices into the given columns, attribute after attribute
    dropped: int
    smallest_singular_out: float  # of all given columns at unit length; 1: all orthogonal, 0: dependent
    smallest_singular_in: float


def concatenate(
    parts: Sequence[tuple[str, np.ndarray, np.ndarray]], orthonormalise: bool, drop_below: float
) -> Concatenated:
    """Return the attributes' bases (name, left m × d, right n × d) side by side, in their order.

    A direction is a column of left and its partner in right. It is dropped on both sides if on either side its part
    outside the span of the kept earlier ones is shorter than ``drop_below`` times its length, even if the other side
    alone would keep it: A and B must have equally many columns.

    With ``orthonormalise``, each column is replaced by that part, at unit length (QR with a positive diagonal): for
    every j, the columns of attributes 1..j together span what they spanned before. The first attribute's columns stay
    as they are; those of a later one are no longer its subspace, but span only what the attributes before it do not.
    To use it alone take its own file, or do not orthonormalise. Columns that depend on earlier ones to rounding are
    then dropped even if ``drop_below`` is 0. Without ``orthonormalise`` kept columns stay as they are.

    ConfigError if nothing is given, an attribute is given twice, or sizes differ.
    """
    _check(parts)
    names = [name for name, _, _ in parts]
    left, right = (np.concatenate([part[side] for part in parts], axis=1).astype(np.float64) for side in (1, 2))
    triangles = _Triangle.of(left), _Triangle.of(right)
    kept = _independent(triangles, drop_below, orthonormalise)
    if orthonormalise:
        left, right = (triangle.orthonormal(kept) for triangle in triangles)
    else:
        left, right = left[:, kept], right[:, kept]
    ends = np.cumsum([part.shape[1] for _, part, _ in parts])
    stops = [int(stop) for stop in np.searchsorted(kept, ends)]
    columns = dict(zip(names, zip([0, *stops], stops, strict=False), strict=True))
    smallest = [triangle.smallest_singular_value() for triangle in triangles]
    return Concatenated(left, right, columns, kept, int(ends[-1]) - len(kept), *smallest)


@dataclass(frozen=True)
class _Triangle:
    """Unit columns Q R of one side: everything about their dependence is in R (min(m, D) × D)."""

    q: np.ndarray
    r: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray) -> _Triangle:
        lengths = np.linalg.norm(columns, axis=0)
        units = np.divide(columns, lengths, out=np.zeros_like(columns), where=lengths > 0)
        return cls(*positive_qr(units))

    def outside(self, kept: np.ndarray) -> np.ndarray:
        """Return, for each of the kept unit columns, the length of its part outside the kept earlier ones."""
        triangle = self.r if len(kept) == self.r.shape[1] else positive_qr(self.r[:, kept])[1]
        lengths = np.zeros(len(kept))  # columns beyond the rows lie in the span of the earlier ones
        lengths[: len(triangle)] = np.abs(np.diagonal(triangle))
        return lengths

    def orthonormal(self, kept: np.ndarray) -> np.ndarray:
        """Return orthonormal columns whose first j span what the first j kept columns span."""
        return self.q if len(kept) == self.r.shape[1] else self.q @ positive_qr(self.r[:, kept])[0]

    def smallest_singular_value(self) -> float:
        rows, columns = self.r.shape
        if rows < columns:
            return 0.0
        return float(np.linalg.svd(self.r, compute_uv=False)[-1]) if columns else 1.0


def _independent(triangles: Sequence[_Triangle], drop_below: float, orthonormalise: bool) -> np.ndarray:
    """Return the indices of the columns to keep.

    Columns are dropped one at a time, the first that fails: the part outside depends on which earlier ones are kept.
    """
    count = triangles[0].r.shape[1]
    kept = np.arange(count)
    rounding = 8 * max(1, count) * np.finfo(np.float64).eps if orthonormalise else 0.0
    while True:
        shortest = np.minimum(*(triangle.outside(kept) for triangle in triangles))
        failing = np.flatnonzero(shortest < max(drop_below, rounding))
        if not len(failing):
            return kept
        kept = np.delete(kept, failing[0])


def _check(parts: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> None:
    if not parts:
        raise ConfigError("no bases to concatenate; name at least one attribute")
    seen: set[str] = set()
    for name, left, right in parts:
        if name in seen:
            raise ConfigError(f"attribute {name} is given twice; name each once")
        seen.add(name)
        if left.shape[1] != right.shape[1] or len(left) != len(parts[0][1]) or len(right) != len(parts[0][2]):
            raise ConfigError(
                f"{name}: bases of {left.shape} and {right.shape} do not fit {parts[0][0]}'s "
                f"{parts[0][1].shape} and {parts[0][2].shape}; they belong to other layers or models"
            )
