"""Pairwise camera errors: exact cameras, known errors, invariances, and pairs without a baseline."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from megasynth_train.evaluate.cameras import camera_summary, pair_errors
from megasynth_train.evaluate.umeyama import Similarity

seeds = st.integers(0, 2**32 - 1)


def _cameras(rng: np.random.Generator, count: int) -> np.ndarray:
    poses = np.eye(4)[None].repeat(count, axis=0)
    poses[:, :3, :3] = Rotation.random(count, random_state=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(count, 3))
    return poses


def _slow(predicted: np.ndarray, truth: np.ndarray) -> list[tuple[float, float]]:
    """Angles by arccosine, pair by pair."""
    found = []
    for i in range(len(truth)):
        for j in range(i + 1, len(truth)):
            p, g = (poses[i] @ np.linalg.inv(poses[j]) for poses in (predicted, truth))
            turn = np.degrees(np.arccos(np.clip((np.trace(p[:3, :3] @ g[:3, :3].T) - 1) / 2, -1, 1)))
            cosine = p[:3, 3] @ g[:3, 3] / np.linalg.norm(p[:3, 3]) / np.linalg.norm(g[:3, 3])
            found.append((turn, np.degrees(np.arccos(np.clip(abs(cosine), 0, 1)))))
    return found


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 8))
def test_exact_cameras_in_another_world_are_perfect(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    truth = _cameras(rng, count)
    moved = Similarity(
        float(10 ** rng.uniform(-2, 2)), Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3)
    )
    found = camera_summary(pair_errors(moved.move_cameras(truth), truth))
    for limit in (5, 15, 30):
        assert found[f"rra_{limit}"] == found[f"rta_{limit}"] == found[f"auc_{limit}"] == 100
    assert found["pairs"] == count * (count - 1) // 2 and found["pairs_without_baseline"] == 0
    assert found["rotation_median_deg"] == pytest.approx(0, abs=1e-6)  # an arccosine would say 1e-6 of a turn


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 6), st.floats(0.01, 1.0))
def test_errors_are_those_of_the_slow_oracle(seed: int, count: int, amount: float) -> None:
    rng = np.random.default_rng(seed)
    truth = _cameras(rng, count)
    predicted = truth.copy()
    predicted[:, :3, :3] = Rotation.from_rotvec(rng.normal(size=(count, 3)) * amount).as_matrix() @ truth[:, :3, :3]
    predicted[:, :3, 3] += rng.normal(size=(count, 3)) * amount
    found = pair_errors(predicted, truth)
    expected = np.array(_slow(predicted, truth))
    np.testing.assert_allclose(found.rotation_deg, expected[:, 0], atol=1e-4)
    np.testing.assert_allclose(found.translation_deg, expected[:, 1], atol=1e-4)
    summary = camera_summary(found)
    worse = expected.max(axis=1)
    for limit in (5, 15, 30):
        # the published computation: a histogram of whole degrees, its running sum, its mean
        running = np.cumsum(np.histogram(worse, bins=np.arange(limit + 1))[0]) / len(worse)
        assert summary[f"auc_{limit}"] == pytest.approx(100 * running.mean(), abs=1e-9)
        assert summary[f"rra_{limit}"] == pytest.approx(100 * np.mean(expected[:, 0] < limit))
        assert summary[f"rta_{limit}"] == pytest.approx(100 * np.mean(expected[:, 1] < limit))


def test_a_known_turn_and_a_known_direction() -> None:
    truth = np.eye(4)[None].repeat(2, axis=0)
    truth[1, :3, 3] = [-1, 0, 0]  # the second camera at (1, 0, 0)
    predicted = truth.copy()
    predicted[1, :3, :3] = Rotation.from_euler("z", 10, degrees=True).as_matrix()
    centre = np.array([np.cos(np.radians(20.5)), np.sin(np.radians(20.5)), 0])
    predicted[1, :3, 3] = -predicted[1, :3, :3] @ centre
    found = pair_errors(predicted, truth)
    assert found.rotation_deg == pytest.approx([10]) and found.translation_deg == pytest.approx([20.5])
    summary = camera_summary(found)
    assert (summary["rra_5"], summary["rra_15"], summary["rta_15"], summary["rta_30"]) == (0, 100, 0, 100)
    assert summary["auc_30"] == pytest.approx(100 * 10 / 30)  # thresholds 21 … 30
    predicted[1, :3, 3] *= -3  # the opposite direction, farther away: counts as equal
    assert pair_errors(predicted, truth).translation_deg == pytest.approx([20.5])


def test_pairs_without_a_baseline_are_counted_and_judged_by_rotation() -> None:
    rng = np.random.default_rng(0)
    truth = _cameras(rng, 3)
    truth[1, :3, 3] = -truth[1, :3, :3] @ (-truth[0, :3, :3].T @ truth[0, :3, 3])  # where camera 0 is
    predicted = truth.copy()
    predicted[1, :3, 3] += 0.3
    found = camera_summary(pair_errors(predicted, truth, min_baseline=1e-6))
    assert found["pairs"] == 3 and found["pairs_without_baseline"] == 1
    assert found["auc_5"] is not None and found["auc_5"] > 0

    still = np.repeat(truth[:1], 3, axis=0)  # nothing moves, everything turns by nothing
    nowhere = camera_summary(pair_errors(still, still, min_baseline=1e-6))
    assert (nowhere["rta_30"], nowhere["auc_30"], nowhere["pairs_without_baseline"]) == (None, 100, 3)


def test_predicted_cameras_in_one_place_are_wrong() -> None:
    truth = _cameras(np.random.default_rng(1), 4)
    predicted = truth.copy()
    predicted[:, :3, 3] = 0
    found = pair_errors(predicted, truth)
    assert (found.translation_deg == 90).all()
    assert camera_summary(found)["auc_30"] == 0


def test_a_single_view_has_no_pairs() -> None:
    one = np.eye(4)[None]
    found = camera_summary(pair_errors(one, one))
    assert found["pairs"] == 0 and found["rra_5"] is None and found["auc_30"] is None
