"""Minimise a smooth function of two subspaces: limited-memory BFGS on a pair of Grassmann manifolds.

Nocedal and Wright, Numerical Optimization, algorithms 3.1, 7.4 and 7.5; Absil, Mahony and Sepulchre, Optimization
Algorithms on Matrix Manifolds, sections 3.6 (tangent vectors) and 4.1 (retraction by QR).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.extractors.solution import Options, settled
from megasynth_train.subspace.qr import positive_qr

MEMORY = 5  # steps remembered; more cost as much as they save
SUFFICIENT = 1e-4  # least share of the decrease predicted by the slope (Armijo)
HALVINGS = 30  # of a step before the point counts as stationary
STIFFNESS = 1e-3  # curvatures below this share of the largest are raised to it


@dataclass(frozen=True)
class Point:
    """Orthonormal U (p × d) and V (q × d), the value there, and per side the gradient and a d × d curvature.

    Gradients are tangent (Uᵀ gradient = 0). −gradient · curvature⁻¹ should be a step of about the right length.
    """

    value: float
    bases: tuple[np.ndarray, np.ndarray]
    gradients: tuple[np.ndarray, np.ndarray]
    curvatures: tuple[np.ndarray, np.ndarray]
    weights: np.ndarray


Evaluate = Callable[[np.ndarray, np.ndarray], Point]


def minimise(evaluate: Evaluate, point: Point, options: Options) -> tuple[Point, tuple[float, ...], bool]:
    """Return the last point, all values from the start on (falling), and whether the search settled."""
    values = [point.value]
    memory: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=MEMORY)
    while len(values) < options.max_iterations:
        direction = _tangent(point, -_inverse_hessian(point, memory))
        length, reached = _line_search(evaluate, point, direction)
        if reached is None:
            if not memory:
                return point, tuple(values), True  # no decrease even along the gradient: stationary to rounding
            memory.clear()
            continue
        step = _tangent(reached, length * direction)
        change = np.vstack(reached.gradients) - _tangent(reached, np.vstack(point.gradients))
        bend = float(np.vdot(step, change))
        if bend > np.finfo(float).eps * np.linalg.norm(step) * np.linalg.norm(change):
            memory.append((step, change, 1 / bend))
        point = reached
        values.append(point.value)
        if settled(values, options.tolerance):
            return point, tuple(values), True
    return point, tuple(values), False


def tangent(basis: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the part of a direction that changes the subspace: (I − UUᵀ) D."""
    return direction - basis @ (basis.T @ direction)


def _tangent(point: Point, direction: np.ndarray) -> np.ndarray:
    """Return ``tangent`` on both sides, U's direction stacked on V's ((p + q) × d)."""
    split = len(point.bases[0])
    return np.vstack([tangent(point.bases[0], direction[:split]), tangent(point.bases[1], direction[split:])])


def _inverse_hessian(point: Point, memory: deque[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Return the approximate inverse Hessian times the gradient (two-loop recursion), sides stacked."""
    vector = np.vstack(point.gradients)
    shares = []
    for step, change, scale in reversed(memory):
        shares.append(scale * np.vdot(step, vector))
        vector = vector - shares[-1] * change
    split = len(point.bases[0])
    sides = zip((vector[:split], vector[split:]), point.curvatures, strict=True)
    vector = np.vstack([_solve(side, curvature) for side, curvature in sides])
    for (step, change, scale), share in zip(memory, reversed(shares), strict=True):
        vector = vector + (share - scale * np.vdot(change, vector)) * step
    return vector


def _solve(side: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """Return side · curvature⁻¹, with no eigenvalue below STIFFNESS of the largest."""
    values, vectors = np.linalg.eigh(curvature)
    floor = max(STIFFNESS * float(values[-1]), float(np.finfo(float).tiny))
    return ((side @ vectors) / np.maximum(values, floor)) @ vectors.T


def _line_search(evaluate: Evaluate, point: Point, direction: np.ndarray) -> tuple[float, Point | None]:
    """Return the first of the steps 1, 1/2, 1/4, … that lowers the value enough, and the point there (or None)."""
    split = len(point.bases[0])
    slope = float(sum(np.vdot(g, d) for g, d in zip(point.gradients, np.split(direction, [split]), strict=True)))
    length = 1.0
    for _ in range(HALVINGS):
        moved = [positive_qr(b + length * d)[0] for b, d in zip(point.bases, np.split(direction, [split]), strict=True)]
        reached = evaluate(moved[0], moved[1])
        if reached.value < point.value and reached.value <= point.value + SUFFICIENT * length * slope:
            return length, reached
        length /= 2
    return length, None
