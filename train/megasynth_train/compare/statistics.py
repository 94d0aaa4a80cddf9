"""Means, spreads over seeds and paired differences, over seeds alone and over seeds and scenes.

Seeds differ in data order, initial values and random basis. A difference between two methods is taken seed by seed,
which removes the effect of a seed on both; its 95 % interval is Student's, mean ± t(n - 1) · std / √n.

Over seeds and scenes the differences are a table, and rows and columns are drawn from it with replacement (a crossed
bootstrap). Few rows or columns make the bootstrap too narrow, so its quantiles are stretched to the standard error
√((MS_rows + MS_columns) / (rows · columns)) of the mean and to Student's t, with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import scipy

from megasynth_attr.core.pages.words import signed_text

CONFIDENCE = 0.95
DRAWS = 4000  # of the bootstrap, always the same ones
NO_SPREAD = "(no spread, no interval)"
ROUNDING = 1e-9  # relative: differences that vary by less are equal
FEW_SCENES, FEW_SEEDS = 10, 3  # below these, resampling shows little of how scenes or seeds differ

Replicate = int | str | None  # a seed, the name of an adapter that was left out, or None where nothing is drawn
Value = TypeVar("Value")


@dataclass(frozen=True)
class Metric:
    """A metric of the evaluation: where to find it in a scene's record, and which direction is better."""

    key: str
    name: str
    path: tuple[str, ...]  # "{alignment}" stands for the chosen one
    higher_is_better: bool
    meaning: str

    @property
    def heading(self) -> str:
        """Return the name with the direction that is better."""
        return f"{self.name} {'↑' if self.higher_is_better else '↓'}"


METRICS = (
    Metric("accuracy", "Acc", ("points", "accuracy_mean"), False, "mean distance from predicted to true points"),
    Metric(
        "completeness", "Comp", ("points", "completeness_mean"), False, "mean distance from true to predicted points"
    ),
    Metric("normals", "NC", ("points", "nc_mean"), True, "|cosine| between normals, 0 to 1"),
    Metric("abs_rel", "AbsRel", ("depth", "{alignment}", "abs_rel"), False, "mean relative error of depth"),
    Metric(
        "delta",
        "δ<1.25",
        ("depth", "{alignment}", "delta_1"),
        True,
        "share of pixels off by less than a factor of 1.25",
    ),
)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over ``count`` seeds; std is None below two, mean None without any."""

    mean: float | None
    std: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """A method minus the reference in one metric, over the seeds both have.

    ``low`` and ``high`` bound the 95 % interval of the mean (None below two seeds, and if all differences are equal:
    how far other seeds would move it cannot be seen); ``wins`` counts the seeds in which the method is better.
    """

    method: str
    metric: str
    mean: float
    std: float | None
    low: float | None
    high: float | None
    count: int
    wins: int
    verdict: str  # better, worse, unclear, or one seed

    @property
    def interval(self) -> str:
        """Return "[low, high]", NO_SPREAD, or nothing for one value."""
        return _ends(self.low, self.high, self.count)


@dataclass(frozen=True)
class Interval:
    """A method minus another one in one metric, over the ``replicates`` and ``scenes`` that both have.

    ``low`` and ``high`` bound the 95 % interval of the mean, the corrected ones that of ``comparisons`` intervals which
    together hold the truth with 95 % (Bonferroni); None for one value, and where nothing differs over replicates or
    scenes. Replicates are seeds, or adapters left out.
    """

    method: str
    reference: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    corrected_low: float | None
    corrected_high: float | None
    replicates: int
    scenes: int
    comparisons: int
    verdict: str  # by the corrected interval: better, worse, unclear; or one seed, one adapter, one scene

    @property
    def interval(self) -> str:
        """Return the corrected interval as "[low, high]", NO_SPREAD, or nothing for one value."""
        return _ends(self.corrected_low, self.corrected_high, self.replicates * self.scenes)


def _ends(low: float | None, high: float | None, values: int) -> str:
    if low is None or high is None:
        return NO_SPREAD if values > 1 else ""
    return f"[{signed_text(low)}, {signed_text(high)}]"


@dataclass(frozen=True)
class Paired:
    """Two methods in one metric: the scores of each by replicate, one number per scene."""

    metric: Metric
    method: str
    reference: str
    scores: Mapping[Replicate, Sequence[float]]
    reference_scores: Mapping[Replicate, Sequence[float]]


def intervals(comparisons: Sequence[Paired]) -> tuple[Interval, ...]:
    """Return the interval of each comparison, corrected for their number; those that share no replicate are left out.

    The draws of seeds and of scenes are the same for all comparisons of equal size.
    """
    pairs = [(one, _pairs(one.scores, one.reference_scores)) for one in comparisons]
    pairs = [(one, of_one) for one, of_one in pairs if of_one]
    return tuple(_interval(one, np.array([np.subtract(*pair) for pair in of_one]), len(pairs)) for one, of_one in pairs)


def _interval(one: Paired, deltas: np.ndarray, comparisons: int) -> Interval:
    mean, ends = float(deltas.mean()), bootstrap(deltas, comparisons)
    keys = {type(key) for key in (*one.scores, *one.reference_scores)} - {type(None)}
    verdict = "unclear"
    if deltas.size == 1:
        verdict = "one scene"
    elif len(deltas) == 1 and keys:
        verdict = "one seed" if int in keys else "one adapter"
    elif ends is not None and (ends[2] > 0 or ends[3] < 0):
        verdict = "better" if (mean > 0) == one.metric.higher_is_better else "worse"
    low, high, corrected_low, corrected_high = ends or (None,) * 4
    return Interval(
        method=one.method,
        reference=one.reference,
        metric=one.metric.key,
        mean=mean,
        low=low,
        high=high,
        corrected_low=corrected_low,
        corrected_high=corrected_high,
        replicates=len(deltas),
        scenes=deltas.shape[1],
        comparisons=comparisons,
        verdict=verdict,
    )


def bootstrap(deltas: np.ndarray, comparisons: int = 1) -> tuple[float, float, float, float] | None:
    """Return the 95 % interval of the mean of ``deltas`` (seeds × scenes), and the one corrected for ``comparisons``.

    None for a single number, and if neither seeds nor scenes differ. With one seed only scenes are drawn, and the
    other way round.
    """
    rows, columns = deltas.shape
    mean = float(deltas.mean())
    error, freedom = _standard_error(deltas)
    if error <= ROUNDING * np.abs(deltas).max():
        return None
    of_rows, of_columns = _draws(rows, columns)
    shifts = ((of_rows @ deltas) * of_columns).sum(axis=1) - mean
    tails = np.quantile(shifts, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    normal = scipy.stats.norm.ppf((1 + CONFIDENCE) / 2)
    scale = shifts.std()
    found = []
    for level in (1 - CONFIDENCE, (1 - CONFIDENCE) / comparisons):
        reach = scipy.stats.t.ppf(1 - level / 2, freedom) / normal * error / scale
        found += [float(mean + reach * tail) for tail in tails]
    return found[0], found[1], found[2], found[3]


def _standard_error(deltas: np.ndarray) -> tuple[float, float]:
    """Return the standard error of the mean of a table of rows × columns, and Satterthwaite's degrees of freedom."""
    sizes = deltas.shape
    squares = [
        (float(deltas.mean(axis=1 - side).var(ddof=1)) / count, count - 1)
        for side, count in enumerate(sizes)
        if count > 1
    ]
    total = sum(square for square, _ in squares)
    if not total:
        return 0.0, 1.0
    return float(np.sqrt(total)), total**2 / sum(square**2 / freedom for square, freedom in squares)


@lru_cache(maxsize=8)
def _draws(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of every row and of every column in each draw: DRAWS × rows, DRAWS × columns."""
    shares = []
    for side, count in enumerate((rows, columns)):
        rng = np.random.default_rng([side, count])
        shares.append(rng.multinomial(count, np.full(count, 1 / count), DRAWS) / count)
    return shares[0], shares[1]


def spread(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation of one number per seed."""
    if not values:
        return Spread(None, None, 0)
    array = np.asarray(values, dtype=np.float64)
    return Spread(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, len(array))


def difference(
    metric: Metric, method: str, values: Mapping[Replicate, float], reference: Mapping[Replicate, float]
) -> Difference | None:
    """Return the paired difference of two methods, values by seed; None if they share no seed.

    The seed None belongs to a model that is not trained: it is paired with every seed. Two of these have none.
    """
    pairs = _pairs(values, reference)
    if not pairs or {*values, *reference} == {None}:
        return None
    delta = np.array([mine - theirs for mine, theirs in pairs])
    wins = int(((delta > 0) if metric.higher_is_better else (delta < 0)).sum())
    mean, count = float(delta.mean()), len(delta)
    if count < 2:
        return Difference(method, metric.key, mean, None, None, None, count, wins, "one seed")
    std = float(delta.std(ddof=1))
    if std <= ROUNDING * np.abs(delta).max():
        return Difference(method, metric.key, mean, std, None, None, count, wins, "unclear")
    reach = float(scipy.stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * std / np.sqrt(count)
    low, high = mean - reach, mean + reach
    verdict = "unclear"
    if low > 0 or high < 0:
        verdict = "better" if (mean > 0) == metric.higher_is_better else "worse"
    return Difference(method, metric.key, mean, std, float(low), float(high), count, wins, verdict)


def _pairs(values: Mapping[Replicate, Value], reference: Mapping[Replicate, Value]) -> list[tuple[Value, Value]]:
    if None in values and None in reference:
        return [(values[None], reference[None])]
    if None in values:
        return [(values[None], theirs) for theirs in reference.values()]
    if None in reference:
        return [(mine, reference[None]) for mine in values.values()]
    return [(values[seed], reference[seed]) for seed in sorted(values.keys() & reference.keys(), key=str)]


def ranking(metric: Metric, means: Mapping[str, float]) -> list[str]:
    """Return the methods from best to worst mean; equal ones in their own order."""
    return sorted(means, key=lambda name: -means[name] if metric.higher_is_better else means[name])
