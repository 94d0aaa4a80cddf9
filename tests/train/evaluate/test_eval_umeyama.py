"""Umeyama: recovers what was done to the points, beats any nearby similarity, and says when it cannot know."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from megasynth_train.evaluate.umeyama import DegenerateAlignment, Similarity, umeyama

seeds = st.integers(0, 2**32 - 1)


def _similarity(rng: np.random.Generator) -> Similarity:
    return Similarity(
        float(10 ** rng.uniform(-3, 3)), Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3) * 100
    )


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(3, 40), st.booleans())
def test_recovers_a_similarity_from_points_or_a_plane(seed: int, count: int, flat: bool) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3)) * (1, 1, 0 if flat or count == 3 else 1)
    true = _similarity(rng)
    found = umeyama(points, true.apply(points))
    assert found.scale == pytest.approx(true.scale, rel=1e-7)
    np.testing.assert_allclose(found.rotation, true.rotation, atol=1e-6)
    np.testing.assert_allclose(found.apply(points), true.apply(points), atol=1e-9 * (100 + true.scale))


@settings(max_examples=30, deadline=None)
@given(seeds, st.booleans())
def test_nothing_near_it_is_better(seed: int, with_scale: bool) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(2, 12, 3))
    best = umeyama(source, target, with_scale=with_scale)
    assert np.linalg.det(best.rotation) == pytest.approx(1)  # unrelated points would often rather mirror
    least = np.sum((best.apply(source) - target) ** 2)
    for _ in range(20):
        turned = Rotation.from_rotvec(rng.normal(size=3) * 0.1).as_matrix() @ best.rotation
        scale = best.scale * (np.exp(rng.normal() * 0.1) if with_scale else 1)
        other = Similarity(scale, turned, target.mean(0) - scale * turned @ source.mean(0) + rng.normal(size=3) * 0.05)
        assert np.sum((other.apply(source) - target) ** 2) >= least - 1e-9


def test_a_mirrored_cloud_is_not_mirrored_back() -> None:
    points = np.random.default_rng(0).normal(size=(30, 3)) * (3, 2, 1)
    found = umeyama(points, points * (1, 1, -1))
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    assert not np.allclose(found.apply(points), points * (1, 1, -1), atol=0.1)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (np.zeros((2, 3)), "at least 3 are needed"),
        (np.full((50, 3), 1e6 / 3), "to align coincide"),
        (np.linspace(0, 1, 50)[:, None] * [1.0, 2.0, 3.0] + 7, "on one line"),
        (np.full((50, 3), np.nan), "not all finite"),
    ],
)
def test_degenerate_points_are_refused_on_either_side(points: np.ndarray, says: str) -> None:
    good = np.random.default_rng(1).normal(size=points.shape)
    for source, target in ((points, good), (good, points)):
        with pytest.raises(DegenerateAlignment, match=says):
            umeyama(source, target)


def test_moved_cameras_see_moved_points_where_they_were() -> None:
    rng = np.random.default_rng(2)
    motion, points = _similarity(rng), rng.normal(size=(20, 3))
    pose = np.eye(4)[None].repeat(2, axis=0)
    pose[:, :3, :3] = Rotation.random(2, random_state=rng).as_matrix()
    pose[:, :3, 3] = rng.normal(size=(2, 3))
    moved = motion.move_cameras(pose)
    for old, new in zip(pose, moved, strict=True):
        before = points @ old[:3, :3].T + old[:3, 3]
        after = motion.apply(points) @ new[:3, :3].T + new[:3, 3]
        np.testing.assert_allclose(after, motion.scale * before, rtol=1e-8, atol=1e-8 * motion.scale)


def test_after_is_composition() -> None:
    rng = np.random.default_rng(3)
    first, second, points = _similarity(rng), _similarity(rng), rng.normal(size=(5, 3))
    np.testing.assert_allclose(second.after(first).apply(points), second.apply(first.apply(points)), rtol=1e-9)
