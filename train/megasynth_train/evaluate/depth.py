"""Depth errors, and the ways to align a depth of unknown scale with the truth before measuring them.

Convention: the **prediction** is mapped to the truth, one fit per call, over valid pixels only. The published code maps
the truth to the prediction in one case and includes invalid pixels in two others; test_eval_fixtures.py shows that the
numbers are otherwise the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALIGNMENTS = ("none", "median", "scale", "scale_shift")
MIN_DEPTH = 1e-5  # lower limit of aligned depth in logarithms and ratios: a shift can make it negative
_MAX_ITERATIONS = 200
_RESIDUAL_FLOOR = 1e-6  # of the median target: limits the weight of pixels with smaller residuals
_SETTLED = 1e-10


@dataclass(frozen=True)
class Fit:
    """depth ↦ scale · depth + shift."""

    scale: float
    shift: float = 0.0

    def apply(self, depth: np.ndarray) -> np.ndarray:
        """Return the mapped depth, float64."""
        return self.scale * depth.astype(np.float64) + self.shift


@dataclass(frozen=True)
class DepthErrors:
    """Means over the valid pixels; rmse and sq_rel in scene units, the others without unit."""

    abs_rel: float  # |p − g| / g
    sq_rel: float  # (p − g)² / g
    rmse: float
    log_rmse: float  # of the natural logarithms
    delta_1: float  # share with max(p/g, g/p) < 1.25
    delta_2: float  # < 1.25²
    delta_3: float  # < 1.25³
    pixels: int


def depth_errors(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> DepthErrors:
    """Return the errors of ``predicted`` against ``truth`` (> 0) where ``valid``; all of one shape."""
    p, g = predicted[valid].astype(np.float64), truth[valid].astype(np.float64)
    if not p.size:
        raise ValueError("there is no valid pixel to measure depth at")
    difference, positive = p - g, np.maximum(p, MIN_DEPTH)
    ratio = np.maximum(positive / g, g / positive)
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(difference) / g)),
        sq_rel=float(np.mean(difference**2 / g)),
        rmse=float(np.sqrt(np.mean(difference**2))),
        log_rmse=float(np.sqrt(np.mean(np.log(positive / g) ** 2))),
        delta_1=float(np.mean(ratio < 1.25)),
        delta_2=float(np.mean(ratio < 1.25**2)),
        delta_3=float(np.mean(ratio < 1.25**3)),
        pixels=int(p.size),
    )


def align_depth(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray, method: str) -> Fit:
    """Return the map from ``predicted`` to ``truth`` by the named method, fitted to all valid pixels together."""
    p, g = predicted[valid].astype(np.float64), truth[valid].astype(np.float64)
    if method == "none":
        return Fit(1.0)
    if method == "median":
        return Fit(float(np.median(g) / np.median(p)))
    if method == "scale":
        return Fit(robust_scale(p, g))
    if method == "scale_shift":
        return robust_scale_shift(p, g)
    raise ValueError(f"alignment {method!r} is not one of {', '.join(ALIGNMENTS)}")


def robust_scale(source: np.ndarray, target: np.ndarray) -> float:
    """Return the s that minimises Σ |s · sourceᵢ − targetᵢ|, exactly.

    Σ |sourceᵢ| · |s − targetᵢ / sourceᵢ| is least at the median of the ratios weighted by |sourceᵢ|. Iterative
    reweighting, as in the published code, approaches the same s but can get stuck at the ratio of a single pixel.
    """
    used = source != 0
    weights, ratios = np.abs(source[used]), target[used] / source[used]
    if not weights.size:
        raise ValueError("the depth to be scaled is 0 at every valid pixel")
    order = np.argsort(ratios)
    cumulative = np.cumsum(weights[order])
    return float(ratios[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])


def robust_scale_shift(source: np.ndarray, target: np.ndarray) -> Fit:
    """Return the map that minimises Σ |scale · sourceᵢ + shift − targetᵢ| by bounded iterative reweighting.

    Starts from least squares; each iteration solves the least squares weighted by 1 / max(|residual|, floor), which
    lowers the Huber loss of width ``floor`` = 1e-6 of the median target, until nothing changes. If all sources are
    equal the scale is undetermined: it is then 1 and the shift is the median difference.
    """
    mean = source.mean()
    centred = source - mean
    if not np.any(np.abs(centred) > 1e-12 * max(abs(mean), MIN_DEPTH)):
        return Fit(1.0, float(np.median(target - source)))
    floor = _RESIDUAL_FLOOR * max(float(np.median(np.abs(target))), MIN_DEPTH)
    weights = np.ones_like(source)
    scale, level = 0.0, 0.0
    for _ in range(_MAX_ITERATIONS):
        before = scale, level
        total, first, second = weights.sum(), weights @ centred, weights @ centred**2
        to_target, cross = weights @ target, (weights * centred) @ target
        determinant = total * second - first**2
        scale = (total * cross - first * to_target) / determinant
        level = (second * to_target - first * cross) / determinant
        residual = np.abs(scale * centred + level - target)
        if max(abs(scale - before[0]), abs(level - before[1])) < _SETTLED * max(abs(scale), abs(level)):
            break
        weights = 1.0 / np.maximum(residual, floor)
    return Fit(float(scale), float(level - scale * mean))
