"""Means, spreads over seeds and paired differences.

Seeds differ in data order, initial values and random basis. A difference between two methods is taken seed by seed,
which removes the effect of a seed on both; its 95 % interval is Student's, mean ± t(n - 1) · std / √n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from megasynth_attr.core.pages.words import signed_text

CONFIDENCE = 0.95


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

    ``low`` and ``high`` bound the 95 % interval of the mean (None below two seeds); ``wins`` counts the seeds in which
    the method is better.
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
        """Return "[low, high]", or "one seed"."""
        if self.low is None or self.high is None:
            return "one seed"
        return f"[{signed_text(self.low)}, {signed_text(self.high)}]"


def spread(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation of one number per seed."""
    if not values:
        return Spread(None, None, 0)
    array = np.asarray(values, dtype=np.float64)
    return Spread(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, len(array))


def difference(
    metric: Metric, method: str, values: Mapping[int | None, float], reference: Mapping[int | None, float]
) -> Difference | None:
    """Return the paired difference of two methods, values by seed; None if they share no seed.

    The seed None belongs to a model that is not trained: it is paired with every seed.
    """
    pairs = _pairs(values, reference)
    if not pairs:
        return None
    delta = np.array([mine - theirs for mine, theirs in pairs])
    wins = int(((delta > 0) if metric.higher_is_better else (delta < 0)).sum())
    mean, count = float(delta.mean()), len(delta)
    if count < 2:
        return Difference(method, metric.key, mean, None, None, None, count, wins, "one seed")
    std = float(delta.std(ddof=1))
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * std / np.sqrt(count)
    low, high = mean - reach, mean + reach
    verdict = "unclear"
    if low > 0 or high < 0:
        verdict = "better" if (mean > 0) == metric.higher_is_better else "worse"
    return Difference(method, metric.key, mean, std, float(low), float(high), count, wins, verdict)


def _pairs(values: Mapping[int | None, float], reference: Mapping[int | None, float]) -> list[tuple[float, float]]:
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
