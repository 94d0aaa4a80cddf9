"""How many dimensions each layer gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from megasynth_attr.core.errors import ConfigError
from megasynth_train.subspace.settings import ALLOCATIONS

_LANCZOS = 1e-6  # relative residual; the value itself is then exact to rounding
_DENSE = 64  # up to this size a full SVD costs less than Lanczos steps


@dataclass(frozen=True)
class LayerBudget:
    """What the allocation uses of one layer."""

    module: str
    effective_rank: float  # of the mean update or the base weight; 0: a zero matrix
    energy: float  # any measure of the updates' size, ‖·‖²
    significant: int  # singular values above the null (parallel analysis)
    limit: int  # most dimensions: min(outputs, inputs, Σ ranks)


def effective_rank(singular_values: np.ndarray) -> float:
    """Return (‖W‖_F / ‖W‖₂)² of a matrix with these singular values (the paper's EffRank), 0 for a zero matrix."""
    values = np.asarray(singular_values, dtype=np.float64)
    largest = values.max(initial=0.0)
    return float(np.sum((values / largest) ** 2)) if largest > 0 else 0.0


def weight_effective_rank(weight: np.ndarray) -> float:
    """Return (‖W‖_F / ‖W‖₂)² of a dense matrix; only the largest singular value is computed."""
    weight = np.asarray(weight, dtype=np.float64)
    frobenius = float(np.linalg.norm(weight))
    if frobenius == 0:
        return 0.0
    if min(weight.shape) <= _DENSE:
        return effective_rank(np.linalg.svd(weight, compute_uv=False))
    start = np.random.default_rng(0).standard_normal(min(weight.shape))  # the result does not depend on it
    largest = float(scipy.sparse.linalg.svds(weight, k=1, v0=start, tol=_LANCZOS, return_singular_vectors=False)[0])
    return (frobenius / largest) ** 2


def allocate(layers: Sequence[LayerBudget], method: str, dimension: int, budget: str = "dimensions") -> dict[str, int]:
    """Return the dimensions of every layer, by module name, in the order of ``layers``; none beyond its limit.

    * ``uniform``: ``dimension`` for each.
    * ``floor``, the paper's: dimension · ⌊effective rank / mean effective rank⌋. Layers below the mean get none.
    * ``proportional`` to the effective rank, ``energy`` to the energy, by largest remainders. Layers share what
      ``uniform`` would spend, counted by ``budget``: ``dimensions``, spent exactly, or ``parameters``, the Σ d² entries
      of all M, of which too few are left over for another dimension in any layer.
    * ``null``: as many as are significant, whatever ``dimension`` is.

    ConfigError for an unknown method, repeated modules, and values that are negative or not finite.
    """
    _check(layers)
    if method == "floor":
        wanted = _floor(layers, dimension)
    elif method == "null":
        wanted = [layer.significant for layer in layers]
    elif method == "proportional":
        wanted = _shares(layers, [layer.effective_rank for layer in layers], dimension, budget)
    elif method == "energy":
        wanted = _shares(layers, [layer.energy for layer in layers], dimension, budget)
    elif method == "uniform":
        wanted = [dimension] * len(layers)
    else:
        raise ConfigError(f"unknown allocation {method!r}; choose one of {', '.join(ALLOCATIONS)}")
    return {layer.module: min(number, layer.limit) for layer, number in zip(layers, wanted, strict=True)}


def _floor(layers: Sequence[LayerBudget], dimension: int) -> list[int]:
    total = math.fsum(layer.effective_rank for layer in layers)
    if not total:
        return [0] * len(layers)
    # both sums are rounded once, so equal ranks equal their mean exactly instead of falling below it by a last digit
    ratios = (layer.effective_rank * len(layers) / total for layer in layers)
    return [dimension * math.floor(ratio) for ratio in ratios]


def _shares(layers: Sequence[LayerBudget], sizes: list[float], dimension: int, budget: str) -> list[int]:
    """Return whole numbers close to shares in proportion to ``sizes``, within the limits and the budget."""
    power = {"dimensions": 1, "parameters": 2}[budget]
    limits = [layer.limit for layer in layers]
    total = sum(min(dimension, limit) ** power for limit in limits)
    shares = _fill(sizes, limits, total, power)
    numbers = [math.floor(share) for share in shares]
    left = total - sum(number**power for number in numbers)
    # names break ties, so that the order of the layers does not matter
    for index in sorted(range(len(layers)), key=lambda i: (numbers[i] - shares[i], -sizes[i], layers[i].module)):
        more = (numbers[index] + 1) ** power - numbers[index] ** power
        if more <= left and numbers[index] < limits[index]:
            numbers[index] += 1
            left -= more
    return numbers


def _fill(sizes: list[float], limits: list[int], total: int, power: int) -> list[float]:
    """Return shares x_l = min(t · size_l, limit_l) with Σ x_l^power = ``total``; layers of size 0 share the rest."""
    shares = [0.0] * len(sizes)
    left = float(total)
    for group in ([i for i, size in enumerate(sizes) if size > 0], [i for i, size in enumerate(sizes) if not size]):
        weights = {i: sizes[i] or 1.0 for i in group}
        # layers reach their limit in this order as t grows; the first that does not fixes t
        order = sorted(group, key=lambda i: limits[i] / weights[i])
        for position, index in enumerate(order):
            rest = math.fsum(weights[i] ** power for i in order[position:])
            scale = (left / rest) ** (1 / power)
            if scale * weights[index] < limits[index]:
                for i in order[position:]:
                    shares[i] = scale * weights[i]
                return shares
            shares[index] = float(limits[index])
            left = max(left - limits[index] ** power, 0.0)
    return shares


def _check(layers: Sequence[LayerBudget]) -> None:
    if len({layer.module for layer in layers}) < len(layers):
        raise ConfigError("a layer is listed twice; every module gets its dimensions once")
    for layer in layers:
        for name in ("effective_rank", "energy", "significant", "limit"):
            value = getattr(layer, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{layer.module}: {name} must be finite and not negative, got {value}")
