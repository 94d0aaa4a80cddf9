"""The same numbers as Open3D, where it is installed: ICP, normals, distances (optional; ``pip install open3d``)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from megasynth_train.evaluate.clouds import compare_clouds, estimate_normals, rigid_icp
from megasynth_train.evaluate.umeyama import Similarity

o3d = pytest.importorskip("open3d")


def _surface(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-1, 1, (2, count))
    return np.stack([x, y, 0.3 * np.sin(3 * x) * np.cos(2 * y) + 0.05 * x], axis=1)


def _cloud(points: np.ndarray):
    return o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))


def _displaced(points: np.ndarray, angle_deg: float, shift: float) -> np.ndarray:
    motion = Similarity(
        1.0,
        Rotation.from_rotvec(np.radians(angle_deg) * np.array([0, 0.6, 0.8])).as_matrix(),
        np.array([shift, -shift, shift]),
    )
    return motion.apply(points)


@pytest.mark.parametrize(
    ("angle_deg", "shift", "noise", "reach"), [(3, 0.02, 0, 0.1), (8, 0.05, 0.01, 0.1), (1, 0.3, 0.02, 0.05)]
)
def test_icp_is_open3d_s(angle_deg: float, shift: float, noise: float, reach: float) -> None:
    truth = _surface(1, 3000)
    source = _displaced(_surface(2, 2500), angle_deg, shift) + np.random.default_rng(3).normal(size=(2500, 3)) * noise
    theirs = o3d.pipelines.registration.registration_icp(_cloud(source), _cloud(truth), reach, np.eye(4))
    ours = rigid_icp(source, truth, max_distance=reach)
    assert ours.fitness == pytest.approx(theirs.fitness, abs=1e-6)
    assert ours.inlier_rmse == pytest.approx(theirs.inlier_rmse, abs=1e-6)
    np.testing.assert_allclose(ours.motion.rotation, theirs.transformation[:3, :3], atol=1e-6)
    np.testing.assert_allclose(ours.motion.translation, theirs.transformation[:3, 3], atol=1e-6)


def test_normals_are_open3d_s_up_to_sign() -> None:
    points = _surface(4, 4000) + np.random.default_rng(5).normal(size=(4000, 3)) * 0.01
    cloud = _cloud(points)
    cloud.estimate_normals()  # 30 nearest neighbours
    agreement = np.abs(np.sum(np.asarray(cloud.normals) * estimate_normals(points), axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-6)


def test_distances_and_normal_consistency_are_open3d_s() -> None:
    truth, predicted = _surface(6, 3000), _displaced(_surface(7, 2500), 2, 0.01)
    clouds = _cloud(predicted), _cloud(truth)
    for cloud in clouds:
        cloud.estimate_normals()
    normals = [np.asarray(cloud.normals) for cloud in clouds]
    ours = compare_clouds(predicted, truth, estimate_normals(predicted), estimate_normals(truth))
    np.testing.assert_allclose(ours.accuracy, clouds[0].compute_point_cloud_distance(clouds[1]), atol=1e-6)
    np.testing.assert_allclose(ours.completeness, clouds[1].compute_point_cloud_distance(clouds[0]), atol=1e-6)
    tree = o3d.geometry.KDTreeFlann(clouds[1])
    nearest = [tree.search_knn_vector_3d(point, 1)[1][0] for point in predicted]
    nc1 = np.abs(np.sum(normals[0] * normals[1][nearest], axis=1))
    assert ours.summary()["nc1_mean"] == pytest.approx(float(nc1.mean()), abs=1e-6)
