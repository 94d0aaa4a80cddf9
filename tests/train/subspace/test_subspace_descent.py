"""The quasi-Newton search over two subspaces: right gradients, and problems with known answers."""

from __future__ import annotations

from collections import deque

import numpy as np
import planted as make
import pytest

from megasynth_train.subspace.core import core_coordinates
from megasynth_train.subspace.extract import extract
from megasynth_train.subspace.extractors.descent import Point, _inverse_hessian, minimise, tangent
from megasynth_train.subspace.extractors.joint import _Fit
from megasynth_train.subspace.extractors.solution import Options


@pytest.mark.parametrize("power", [2.0, 1.0, 0.3])
def test_the_gradient_is_that_of_finite_differences(power: float) -> None:
    rng = np.random.default_rng(1)
    core = core_coordinates(make.random_updates(3, 12, 10, 3, rng))
    fit = _Fit(core.svds.normalised(), Options(power=power, epsilon=0.1))
    u, v = make.frame(9, 2, rng), make.frame(9, 2, rng)
    du, dv = tangent(u, rng.standard_normal((9, 2))), tangent(v, rng.standard_normal((9, 2)))
    point = fit.at(u, v)
    slope = np.vdot(point.gradients[0], du) + np.vdot(point.gradients[1], dv)
    h = 1e-5
    ends = [fit.at(np.linalg.qr(u + t * du)[0], np.linalg.qr(v + t * dv)[0]).value for t in (-h, h)]
    assert (ends[1] - ends[0]) / (2 * h) == pytest.approx(slope, rel=1e-6)
    for basis, gradient in zip(point.bases, point.gradients, strict=True):
        np.testing.assert_allclose(basis.T @ gradient, 0, atol=1e-14)


class _TwoTraces:
    """−½ tr UᵀGU − ½ tr VᵀHV: minimised by leading eigenvectors, whose eigenvalues are known."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self.matrices = first, second

    def at(self, left: np.ndarray, right: np.ndarray) -> Point:
        images = [matrix @ basis for matrix, basis in zip(self.matrices, (left, right), strict=True)]
        inside = left.T @ images[0], right.T @ images[1]
        gradients = -tangent(left, images[0]), -tangent(right, images[1])
        return Point(-0.5 * float(sum(map(np.trace, inside))), (left, right), gradients, inside, np.ones(1))


def test_eigenvalue_problems_are_solved_and_values_fall() -> None:
    rng = np.random.default_rng(2)
    q = make.frame(20, 20, rng)
    traces = _TwoTraces(q @ np.diag(np.arange(1.0, 21)) @ q.T, np.diag(np.geomspace(1e-4, 1, 15)))
    start = traces.at(make.frame(20, 3, rng), make.frame(15, 3, rng))
    point, values, settled = minimise(traces.at, start, Options(tolerance=0.0, max_iterations=500))
    assert settled and np.all(np.diff(values) < 1e-14)
    assert (
        make.angle_deg(point.bases[0], q[:, 17:]) < 1e-4 and make.angle_deg(point.bases[1], np.eye(15)[:, 12:]) < 1e-4
    )


def test_a_start_at_the_minimum_stays_there_and_settles() -> None:
    traces = _TwoTraces(np.diag([1.0, 2, 3]), np.diag([1.0, 2, 3]))
    best = np.eye(3)[:, 1:]
    point, values, settled = minimise(traces.at, traces.at(best, best), Options())
    assert settled and len(values) == 1 and point.bases[0] is best


def test_the_limit_of_iterations_counts_the_start() -> None:
    rng = np.random.default_rng(3)
    traces = _TwoTraces(np.diag(np.arange(1.0, 9)), np.diag(np.arange(1.0, 9)))
    start = traces.at(make.frame(8, 2, rng), make.frame(8, 2, rng))
    _, values, settled = minimise(traces.at, start, Options(max_iterations=3, tolerance=0.0))
    assert len(values) == 3 and not settled


def test_the_inverse_hessian_is_symmetric_and_maps_the_last_change_of_gradient_to_the_last_step() -> None:
    """The secant equation holds exactly for BFGS with any memory and preconditioner."""
    rng = np.random.default_rng(4)
    bases = make.frame(7, 2, rng), make.frame(6, 2, rng)
    steps = [rng.standard_normal((13, 2)) for _ in range(3)]
    changes = [step + 0.2 * rng.standard_normal((13, 2)) for step in steps]
    pairs = zip(steps, changes, strict=True)
    memory = deque((step, change, 1 / float(np.vdot(step, change))) for step, change in pairs)
    curvatures = np.diag([2.0, 1.0]), np.diag([5.0, 0.1])

    def solved(vector: np.ndarray) -> np.ndarray:
        return _inverse_hessian(Point(0.0, bases, (vector[:7], vector[7:]), curvatures, np.ones(1)), memory)

    np.testing.assert_allclose(solved(changes[-1]), steps[-1], atol=1e-12)
    first, second = rng.standard_normal((2, 13, 2))
    assert np.vdot(first, solved(second)) == pytest.approx(np.vdot(solved(first), second), rel=1e-10)
    assert np.vdot(first, solved(first)) > 0


def test_unrelated_adapters_settle_within_the_usual_limit() -> None:
    """The hardest case, a flat landscape: alternating eigenvectors take about 300 turns."""
    core = core_coordinates(make.random_updates(10, 384, 256, 8, np.random.default_rng(5)))
    space = extract(core, 8, "joint", Options())
    assert space.converged and space.iterations < 100
