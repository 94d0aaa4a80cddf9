"""The extractors once more, slow and plain: dense matrices, full decompositions, loops, fixed iteration counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Oracle:
    """What a dense extractor found."""

    left: Array
    right: Array
    weights: Array
    objective: float


def best_rank(matrix: Array, d: int) -> tuple[Array, Array, Array]:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :d], s[:d], vt[:d].T


def top(gram: Array, d: int) -> Array:
    values, vectors = np.linalg.eigh(gram)
    return vectors[:, np.argsort(values)[::-1][:d]]


def irls(ws: Sequence[Array], d: int, power: float, epsilon: float, iterations: int) -> Oracle:
    smooth = epsilon * np.median([np.linalg.norm(w) for w in ws])
    weights = [1.0] * len(ws)
    for _ in range(iterations):
        mean = sum(a * w for a, w in zip(weights, ws, strict=True)) / sum(weights)
        u, s, v = best_rank(mean, d)
        low = u @ np.diag(s) @ v.T
        residuals = [np.linalg.norm(low - w) for w in ws]
        used = np.array(weights) / sum(weights)
        weights = [(smooth**2 + r**2) ** ((power - 2) / 2) for r in residuals]
    return Oracle(u, v, used, sum((smooth**2 + r**2) ** (power / 2) for r in residuals))


def joint(ws: Sequence[Array], d: int, power: float, epsilon: float, iterations: int) -> Oracle:
    """Alternating eigenvectors, from the higher-order SVD, on normalised updates."""
    ws = [w / np.linalg.norm(w) for w in ws]
    u, v = top(sum(w @ w.T for w in ws), d), top(sum(w.T @ w for w in ws), d)
    weights = np.full(len(ws), 1 / len(ws))
    for _ in range(iterations):
        rho = joint_residuals(ws, u, v)
        weights = np.array([(epsilon**2 + r**2) ** ((power - 2) / 2) for r in rho])
        u = top(sum(a * (w @ v) @ (w @ v).T for a, w in zip(weights, ws, strict=True)), d)
        v = top(sum(a * (w.T @ u) @ (w.T @ u).T for a, w in zip(weights, ws, strict=True)), d)
    return Oracle(u, v, weights / weights.sum(), joint_objective(ws, u, v, power, epsilon))


def joint_residuals(ws: Sequence[Array], u: Array, v: Array) -> list[float]:
    return [float(np.linalg.norm(w - u @ (u.T @ w @ v) @ v.T)) for w in ws]


def joint_objective(ws: Sequence[Array], u: Array, v: Array, power: float, epsilon: float) -> float:
    """Of normalised updates ``ws``."""
    return float(sum((epsilon**2 + r**2) ** (power / 2) for r in joint_residuals(ws, u, v)))


def hosvd(ws: Sequence[Array], d: int) -> Oracle:
    ws = [w / np.linalg.norm(w) for w in ws]
    u, v = top(sum(w @ w.T for w in ws), d), top(sum(w.T @ w for w in ws), d)
    return Oracle(u, v, np.full(len(ws), 1 / len(ws)), joint_objective(ws, u, v, 2, 0))


def grassmann(ws: Sequence[Array], d: int) -> Oracle:
    """Projections onto column and row spaces by pseudo-inverses."""
    outs = [w @ np.linalg.pinv(w, rcond=1e-10) for w in ws]
    ins = [np.linalg.pinv(w, rcond=1e-10) @ w for w in ws]
    u, v = top(sum(outs), d), top(sum(ins), d)
    objective = sum(np.linalg.norm(p - u @ u.T @ p) ** 2 for p in outs)
    objective += sum(np.linalg.norm(p - v @ v.T @ p) ** 2 for p in ins)
    return Oracle(u, v, np.full(len(ws), 1 / len(ws)), float(objective))
