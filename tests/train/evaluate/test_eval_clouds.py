"""ICP, normals and cloud errors against slow oracles that know no trees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from megasynth_train.evaluate.clouds import compare_clouds, estimate_normals, rigid_icp
from megasynth_train.evaluate.umeyama import Similarity, umeyama

seeds = st.integers(0, 2**32 - 1)


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first[:, None] - second[None], axis=2)


def _slow_normals(points: np.ndarray, count: int) -> np.ndarray:
    normals = []
    for row in _distances(points, points):
        around = points[np.argsort(row, kind="stable")[:count]]
        normals.append(np.linalg.svd(around - around.mean(0))[2][2])
    return np.array(normals)


def _slow_icp(source: np.ndarray, target: np.ndarray, reach: float) -> tuple[np.ndarray, float, float, int]:
    """Open3D's loop, with Kabsch by singular values on brute-force pairs."""

    def pairs(moved: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
        distances = _distances(moved, target)
        near = distances.min(axis=1) < reach
        nearest = distances.argmin(axis=1)[near]
        return near, nearest, near.mean(), np.sqrt(np.mean(distances.min(axis=1)[near] ** 2)) if near.any() else 0.0

    moved = source.copy()
    near, nearest, fitness, rmse = pairs(moved)
    done = 0
    while done < 30:
        done += 1
        p, q = moved[near], target[nearest]
        u, _, vt = np.linalg.svd((q - q.mean(0)).T @ (p - p.mean(0)))
        r = u @ np.diag([1, 1, np.linalg.det(u) * np.linalg.det(vt)]) @ vt
        moved = moved @ r.T + q.mean(0) - r @ p.mean(0)
        old = fitness, rmse
        near, nearest, fitness, rmse = pairs(moved)
        if abs(old[0] - fitness) < 1e-6 and abs(old[1] - rmse) < 1e-6:
            break
    return moved, float(fitness), float(rmse), done


def _wavy(rng: np.random.Generator, count: int) -> np.ndarray:
    x, y = rng.uniform(-1, 1, (2, count))
    return np.stack([x, y, 0.3 * np.sin(3 * x) * np.cos(2 * y)], axis=1)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(3, 60), st.integers(3, 60))
def test_errors_are_those_of_all_pairs(seed: int, count: int, true_count: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = rng.normal(size=(count, 3)), rng.normal(size=(true_count, 3))
    normals = [
        n / np.linalg.norm(n, axis=1, keepdims=True) for n in (rng.normal(size=p.shape) for p in (predicted, truth))
    ]
    found = compare_clouds(predicted, truth, *normals, workers=1)
    distances = _distances(predicted, truth)
    np.testing.assert_allclose(found.accuracy, distances.min(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.completeness, distances.min(axis=0), atol=1e-12)
    agreement = np.abs(normals[0] @ normals[1].T)
    np.testing.assert_allclose(found.nc1, agreement[np.arange(count), distances.argmin(axis=1)], atol=1e-12)
    np.testing.assert_allclose(found.nc2, agreement[distances.argmin(axis=0), np.arange(true_count)], atol=1e-12)


def test_summary_takes_mean_and_median_of_each_side() -> None:
    predicted, truth = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 9.0]]), np.array([[0, 0, 0], [0, 0, 2.0]])
    up = np.array([[0, 0, 1.0]])
    side = np.array([[1.0, 0, 0], [0, 0, 1], [0, 0, -1]])
    found = compare_clouds(predicted, truth, side, up.repeat(2, axis=0), workers=1).summary()
    assert found["accuracy_mean"] == pytest.approx((0 + 1 + 7) / 3) and found["accuracy_median"] == 1
    assert found["completeness_mean"] == 0.5 and found["completeness_median"] == 0.5
    assert found["nc1_mean"] == pytest.approx(2 / 3) and found["nc1_median"] == 1
    assert found["nc_mean"] == pytest.approx((2 / 3 + 0.5) / 2)  # nc2: truth 0 meets the sideways normal, truth 1 not


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(31, 200))
def test_equal_clouds_have_no_errors(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    normals = estimate_normals(points, workers=1)
    found = compare_clouds(points, points, normals, normals, workers=1).summary()
    assert found["accuracy_mean"] == found["completeness_mean"] == 0
    assert found["nc_mean"] == pytest.approx(1, abs=1e-12)
    icp = rigid_icp(points, points, max_distance=0.1, workers=1)
    assert (icp.fitness, icp.inlier_rmse) == (1.0, pytest.approx(0, abs=1e-12))


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_a_similarity_of_the_prediction_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = _wavy(rng, 300)
    predicted = truth + rng.normal(size=truth.shape) * 0.03
    moved = Similarity(
        float(10 ** rng.uniform(-2, 2)), Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3) * 10
    )

    def measured(points: np.ndarray) -> dict[str, float]:
        aligned = umeyama(points, truth).apply(points)
        aligned = rigid_icp(aligned, truth, max_distance=0.1, workers=1).motion.apply(aligned)
        normals = [estimate_normals(cloud, workers=1) for cloud in (aligned, truth)]
        return compare_clouds(aligned, truth, *normals, workers=1).summary()

    assert measured(moved.apply(predicted)) == pytest.approx(measured(predicted), rel=1e-5)


def test_normals_of_a_noisy_cloud_are_those_of_the_slow_oracle() -> None:
    points = _wavy(np.random.default_rng(5), 300) + np.random.default_rng(6).normal(size=(300, 3)) * 0.02
    for count in (10, 30):
        found = estimate_normals(points, neighbours=count, workers=1)
        np.testing.assert_allclose(np.abs(np.sum(found * _slow_normals(points, count), axis=1)), 1, atol=1e-9)


def test_normals_of_a_tilted_plane_are_the_plane_s() -> None:
    rng = np.random.default_rng(7)
    normal = np.array([0.6, 0.0, 0.8])
    flat = rng.normal(size=(20, 3))  # fewer than 30: all are neighbours
    flat -= np.outer(flat @ normal, normal)
    np.testing.assert_allclose(np.abs(estimate_normals(flat + 100, workers=1) @ normal), 1, atol=1e-9)
    with pytest.raises(ValueError, match="at least 3 are needed"):
        estimate_normals(flat[:2], workers=1)


@pytest.mark.parametrize(("angle_deg", "shift", "reach"), [(4, 0.02, 0.1), (10, 0.05, 0.15), (2, 0.12, 0.05)])
def test_icp_goes_the_way_of_the_slow_oracle(angle_deg: float, shift: float, reach: float) -> None:
    rng = np.random.default_rng(8)
    truth, source = _wavy(rng, 500), _wavy(rng, 400)
    turn = Rotation.from_rotvec(np.radians(angle_deg) * np.array([0.0, 0.6, 0.8])).as_matrix()
    source = source @ turn.T + [shift, -shift, shift]
    found = rigid_icp(source, truth, max_distance=reach, workers=1)
    moved, fitness, rmse, iterations = _slow_icp(source, truth, reach)
    np.testing.assert_allclose(found.motion.apply(source), moved, atol=1e-9)
    assert (found.fitness, found.iterations) == (fitness, iterations)
    assert found.inlier_rmse == pytest.approx(rmse, abs=1e-9)


def test_icp_brings_a_displaced_cloud_back() -> None:
    truth = _wavy(np.random.default_rng(9), 2000)
    turn = Rotation.from_rotvec([0.01, -0.02, 0.03]).as_matrix()
    source = truth @ turn.T + [0.02, 0.01, -0.02]
    found = rigid_icp(source, truth, max_distance=0.1, iterations=100, workers=1)
    assert found.converged and found.fitness == 1.0
    np.testing.assert_allclose(found.motion.apply(source), truth, atol=1e-3)


def test_icp_out_of_reach_stays_and_says_so() -> None:
    points = np.random.default_rng(10).normal(size=(50, 3))
    found = rigid_icp(points, points + 100, max_distance=0.1, workers=1)
    assert not found.converged and (found.fitness, found.inlier_rmse, found.iterations) == (0.0, 0.0, 0)
    np.testing.assert_array_equal(found.motion.apply(points), points)
