"""Angles, λ, d and overlaps against the paper's eigenproblem, brute force and dense operators."""

from __future__ import annotations

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigh, subspace_angles
from scipy.optimize import minimize
from scipy.stats import ks_2samp

from megasynth_train.subspace.angles import energy_overlap, lambdas, operator_cosines, principal_angles
from megasynth_train.subspace.core import core_coordinates
from megasynth_train.subspace.null_angles import (
    expected_energy_overlap,
    expected_squared_cosine,
    null_angles,
)


def pair(angles: np.ndarray, size: int, rng: np.random.Generator, more: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return bases with these principal angles, ``more`` dimensions orthogonal to the first in the second, turned."""
    count = len(angles)
    turn = planted.frame(size, 2 * count + more, rng)
    first = turn[:, :count]
    second = np.hstack([first * np.cos(angles) + turn[:, count : 2 * count] * np.sin(angles), turn[:, 2 * count :]])
    return first @ planted.frame(count, count, rng), second @ planted.frame(count + more, count + more, rng)


@pytest.mark.parametrize("more", [0, 3])
@pytest.mark.parametrize(
    "angles", [[1e-12, 1e-8, 1e-4], [0.3, 0.7, 1.2], [1.5, np.pi / 2 - 1e-9, np.pi / 2], [0.0, 1e-7, np.pi / 4]]
)
def test_constructed_angles_come_back_however_small(angles: list[float], more: int) -> None:
    rng = np.random.default_rng(1)
    first, second = pair(np.array(angles), 20, rng, more)
    np.testing.assert_allclose(principal_angles(first, second), angles, atol=3e-15, rtol=0)
    np.testing.assert_allclose(principal_angles(second, first), angles, atol=3e-15, rtol=0)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(2, 25), first=st.integers(1, 25), second=st.integers(1, 25), seed=st.integers(0, 99))
def test_angles_agree_with_scipy_for_any_columns(size: int, first: int, second: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = rng.standard_normal((size, min(first, size))), rng.standard_normal((size, min(second, size)))
    # SciPy's answer for a shared direction can be off by 2e-8; the test above knows the truth
    np.testing.assert_allclose(principal_angles(one, two), np.sort(subspace_angles(one, two)), atol=5e-8)


def test_only_the_column_spaces_matter() -> None:
    rng = np.random.default_rng(2)
    first, second = pair(np.array([1e-6, 0.2, 0.9]), 15, rng)
    wanted = principal_angles(first, second)
    mixed = first @ rng.standard_normal((3, 3)) * 1e-5
    np.testing.assert_allclose(principal_angles(mixed, second), wanted, atol=1e-13)
    dependent = np.hstack([first, first[:, :1] + first[:, 1:2], np.zeros((15, 1))])
    np.testing.assert_allclose(principal_angles(dependent, second), wanted, atol=1e-13)
    stored = first.astype(np.float32), second.astype(np.float32)
    np.testing.assert_allclose(principal_angles(*stored)[1:], wanted[1:], atol=1e-6)


def test_a_subspace_without_dimensions_has_no_angles() -> None:
    assert principal_angles(np.zeros((5, 0)), np.eye(5)).shape == (0,)
    assert principal_angles(np.zeros((5, 2)), np.eye(5)).shape == (0,)


def test_subspaces_of_different_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 5\) and \(4, 4\)"):
        principal_angles(np.eye(5), np.eye(4))


@pytest.mark.parametrize("dimensions", [(3, 3), (2, 5)])
def test_the_papers_eigenproblem_has_these_lambdas(dimensions: tuple[int, int]) -> None:
    """✓ 1 − cos θ and 1 + cos θ, and 1 for each dimension that one has more than the other; any bases."""
    rng = np.random.default_rng(3)
    one, two = (rng.standard_normal((9, dimension)) for dimension in dimensions)
    zero = np.zeros(dimensions)
    pencil = np.block([[one.T @ one, -one.T @ two], [-two.T @ one, two.T @ two]])
    metric = np.block([[one.T @ one, zero], [zero.T, two.T @ two]])
    below, above = lambdas(principal_angles(one, two))
    ones = np.ones(abs(dimensions[0] - dimensions[1]))
    np.testing.assert_allclose(np.sort(np.concatenate([below, ones, above])), eigh(pencil, metric)[0], atol=1e-12)


def test_lambdas_of_tiny_angles_keep_their_digits() -> None:
    """Where the eigenproblem has nothing left but rounding."""
    first, second = pair(np.array([1e-9, 0.5]), 12, np.random.default_rng(4))
    below, above = lambdas(principal_angles(first, second))
    assert below[0] == pytest.approx(5e-19, rel=1e-5, abs=0)
    assert above[0] == 2.0
    identity = np.block([[np.eye(2), -first.T @ second], [-second.T @ first, np.eye(2)]])
    assert abs(eigh(identity)[0][0] - 5e-19) > 1e-17


def test_d_is_the_least_of_the_papers_quotient() -> None:
    """✓ d = min ‖Sx − S'x'‖ / (‖Sx‖ + ‖S'x'‖) = sin(θ₁/2) = √(λ_min/2), found by search from many starts."""
    rng = np.random.default_rng(5)
    for angles in ([0.2, 0.8], [0.9, 1.4]):
        one, two = pair(np.array(angles), 7, rng)
        one, two = one @ rng.standard_normal((2, 2)), two @ rng.standard_normal((2, 2))

        def quotient(x: np.ndarray, one: np.ndarray = one, two: np.ndarray = two) -> float:
            a, b = one @ x[:2], two @ x[2:]
            return float(np.linalg.norm(a - b) / (np.linalg.norm(a) + np.linalg.norm(b)))

        options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000}
        least = min(
            minimize(quotient, rng.standard_normal(4), method="Nelder-Mead", options=options).fun for _ in range(12)
        )
        found = principal_angles(one, two)
        distance = np.sqrt(lambdas(found)[0][0] / 2)
        assert distance == pytest.approx(np.sin(angles[0] / 2), abs=1e-14)
        assert distance == pytest.approx(least, abs=1e-7)


def test_the_operator_space_has_all_products_of_cosines() -> None:
    """✓ {A M Bᵀ} is the column space of B ⊗ A; angles of that dense space."""
    rng = np.random.default_rng(6)
    a, a_other = planted.frame(7, 2, rng), planted.frame(7, 3, rng)
    b, b_other = planted.frame(6, 3, rng), planted.frame(6, 2, rng)
    dense = np.cos(subspace_angles(np.kron(b, a), np.kron(b_other, a_other)))
    found = operator_cosines(principal_angles(a, a_other), principal_angles(b, b_other))
    assert (np.diff(found) <= 0).all()
    # 2 · 2 products; the dense spaces have 6 and 6 dimensions, and the other angles are right ones
    np.testing.assert_allclose(np.sort(dense)[::-1][:4], found, atol=1e-12)
    np.testing.assert_allclose(np.sort(dense)[::-1][4:], 0, atol=1e-7)


def test_the_energy_inside_a_basis_is_that_of_the_dense_update() -> None:
    rng = np.random.default_rng(7)
    updates = [planted.random_update(20, 15, 4, rng, scale) for scale in (1.0, 3.0, 0.01)]
    updates.append(planted.zero_update(20, 15, 4, rng))
    left, right = planted.frame(20, 6, rng), planted.frame(15, 5, rng)
    core = core_coordinates(updates)
    matrices = [planted.dense(update) for update in updates]
    dense = [np.linalg.norm(left.T @ w @ right) ** 2 / np.linalg.norm(w) ** 2 for w in matrices[:3]] + [0.0]
    np.testing.assert_allclose(energy_overlap(core, left, right), dense, atol=1e-14)
    np.testing.assert_allclose(energy_overlap(core, np.eye(20), np.eye(15)), [1, 1, 1, 0], atol=1e-13)
    other = core_coordinates([planted.regauged(update, rng, 1e3) for update in updates])
    np.testing.assert_allclose(energy_overlap(other, left, right), dense, atol=1e-10)


def expected_smallest_lambda(dimension: int, first: int, second: int) -> float:
    """Return the limit of λ_min = 1 − cos θ₁ between random subspaces of ``first`` and ``second`` dimensions.

    1 − √(a(1−b)) − √(b(1−a)) with a, b their shares of ``dimension``; 1 − 2√(a(1−a)) for a = b, and 0 where a + b ≥ 1,
    since then they intersect. That is the edge of the limiting distribution (Wachter 1980). Subspaces of few dimensions
    stay a little further apart (1024, 64, 64: 0.516 here, 0.528 ± 0.010 drawn): ``null_angles`` has no such error.
    """
    a, b = first / dimension, second / dimension
    return 0.0 if a + b >= 1 else float(1.0 - np.sqrt(a * (1 - b)) - np.sqrt(b * (1 - a)))


def test_chance_alone_puts_64_of_1024_dimensions_above_a_half() -> None:
    """✓ λ_min of random subspaces: 0.53 drawn, 1 − 2√(a(1−a)) in the limit."""
    drawn = lambdas(null_angles(1024, 64, 64, 200, np.random.default_rng(0)))[0][:, 0]
    assert drawn.mean() == pytest.approx(0.53, abs=0.005)
    assert drawn.min() > 0.49
    a = 64 / 1024
    assert expected_smallest_lambda(1024, 64, 64) == pytest.approx(1 - 2 * np.sqrt(a * (1 - a)))
    assert expected_smallest_lambda(1024, 64, 64) == pytest.approx(drawn.mean(), abs=0.02)


@pytest.mark.parametrize(("size", "first", "second"), [(2000, 200, 200), (4000, 200, 600), (1500, 450, 600)])
def test_the_limit_is_approached_also_for_unequal_dimensions(size: int, first: int, second: int) -> None:
    drawn = lambdas(null_angles(size, first, second, 3, np.random.default_rng(1)))[0][:, 0].mean()
    assert 0 < drawn - expected_smallest_lambda(size, first, second) < 0.015
    assert expected_smallest_lambda(size, second, first) == pytest.approx(expected_smallest_lambda(size, first, second))


@pytest.mark.parametrize(("size", "first", "second"), [(12, 3, 3), (12, 2, 5), (10, 6, 7), (6, 6, 2), (5, 1, 4)])
def test_null_angles_are_those_of_random_subspaces(size: int, first: int, second: int) -> None:
    rng = np.random.default_rng(2)
    drawn = null_angles(size, first, second, 1500, rng)
    direct = np.array(
        [principal_angles(planted.frame(size, first, rng), planted.frame(size, second, rng)) for _ in range(1500)]
    )
    assert drawn.shape == direct.shape
    assert (np.diff(drawn, axis=1) >= 0).all()
    inside = max(0, first + second - size)
    np.testing.assert_array_equal(drawn[:, :inside], 0)
    np.testing.assert_allclose(direct[:, :inside], 0, atol=1e-7)
    for column in range(inside, drawn.shape[1]):
        assert ks_2samp(drawn[:, column], direct[:, column]).pvalue > 1e-3
    mean = expected_squared_cosine(size, first, second)
    assert (np.cos(drawn) ** 2).mean() == pytest.approx(mean, abs=0.01)
    assert expected_smallest_lambda(size, first, second) == 0 or not inside


def test_null_angles_follow_their_seed() -> None:
    one, two, three = (null_angles(50, 4, 6, 3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, three)
    assert null_angles(50, 0, 6, 3, np.random.default_rng(1)).shape == (3, 0)


def test_a_random_basis_holds_its_share_of_the_energy() -> None:
    rng = np.random.default_rng(8)
    core = core_coordinates(planted.random_updates(2, 12, 10, 2, rng))
    drawn = [energy_overlap(core, planted.frame(12, 4, rng), planted.frame(10, 3, rng)) for _ in range(1500)]
    assert np.mean(drawn) == pytest.approx(expected_energy_overlap(12, 10, 4, 3), rel=0.05)


def test_subspaces_larger_than_their_space_are_refused() -> None:
    with pytest.raises(ValueError, match="fit into 8"):
        expected_squared_cosine(8, 9, 2)
    with pytest.raises(ValueError, match="fit into 8"):
        null_angles(8, 2, 9, 1, np.random.default_rng(0))
