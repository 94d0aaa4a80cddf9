"""Compare point clouds: rigid ICP, normals, and the distances and normal agreement of nearest neighbours.

ICP and normals follow Open3D's definitions (``registration_icp`` point to point, ``estimate_normals``), computed with
SciPy's k-d tree; a test compares the two. Everything is float64 and uses all given points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from megasynth_train.evaluate.umeyama import DegenerateAlignment, Similarity, umeyama

NORMAL_NEIGHBOURS = 30
_SETTLED = 1e-6
_NORMALS_AT_ONCE = 100_000  # 30 neighbours each: 72 MB


@dataclass(frozen=True)
class Registration:
    """The result of ICP. ``fitness``: share of source points with a target point in range; rmse over those points."""

    motion: Similarity  # source to target; scale 1
    fitness: float
    inlier_rmse: float
    iterations: int
    converged: bool  # False: the iterations ran out, or the pairs did not determine a motion


@dataclass(frozen=True)
class CloudErrors:
    """Distances in scene units, normal agreement as |cosine| (1: parallel). Prediction first, truth second."""

    accuracy: np.ndarray  # per predicted point: distance to the nearest true point
    completeness: np.ndarray  # per true point: distance to the nearest predicted point
    nc1: np.ndarray  # per predicted point: agreement with the normal of the nearest true point
    nc2: np.ndarray  # per true point: agreement with the normal of the nearest predicted point

    def summary(self) -> dict[str, float]:
        """Return mean and median of the four; ``nc_*`` is the mean of the corresponding nc1 and nc2."""
        found = {}
        for name in ("accuracy", "completeness", "nc1", "nc2"):
            values = getattr(self, name)
            found[f"{name}_mean"], found[f"{name}_median"] = float(np.mean(values)), float(np.median(values))
        for kind in ("mean", "median"):
            found[f"nc_{kind}"] = 0.5 * (found[f"nc1_{kind}"] + found[f"nc2_{kind}"])
        return found


def rigid_icp(
    source: np.ndarray,
    target: np.ndarray,
    *,
    max_distance: float,
    iterations: int = 30,
    workers: int = -1,
) -> Registration:
    """Return the rigid motion of ``source`` (N, 3) to ``target`` (M, 3) by point-to-point ICP, started at the identity.

    Each iteration pairs every source point with its nearest target point closer than ``max_distance`` (scene units) and
    takes the motion that minimises the sum of squared distances of the pairs. It ends when fitness **and** rmse change
    by less than 1e-6 (tolerances that Open3D calls relative but compares absolutely, as is done here) or after
    ``iterations``. It is a local method, which refines an alignment that is already roughly right.

    Pairs that determine no motion (fewer than three, or all on one line) end it early, with ``converged=False``.
    """
    tree = _tree(target)
    motion, moved = Similarity(1.0, np.eye(3), np.zeros(3)), source.astype(np.float64)
    near, index, fitness, rmse = _pairs(tree, moved, max_distance, workers)
    for done in range(iterations):
        try:
            step = umeyama(moved[near], target[index], with_scale=False)
        except DegenerateAlignment:
            return Registration(motion, fitness, rmse, done, False)
        motion, moved = step.after(motion), step.apply(moved)
        before = fitness, rmse
        near, index, fitness, rmse = _pairs(tree, moved, max_distance, workers)
        if abs(before[0] - fitness) < _SETTLED and abs(before[1] - rmse) < _SETTLED:
            return Registration(motion, fitness, rmse, done + 1, True)
    return Registration(motion, fitness, rmse, iterations, False)


def estimate_normals(points: np.ndarray, *, neighbours: int = NORMAL_NEIGHBOURS, workers: int = -1) -> np.ndarray:
    """Return unit normals (N, 3): the direction in which each point's nearest ``neighbours`` points vary least.

    The point itself is one of its neighbours. The sign is arbitrary; nothing here depends on it. With fewer points
    than ``neighbours`` all are used; ValueError below 3.
    """
    if len(points) < 3:
        raise ValueError(f"{len(points)} points have no normals; at least 3 are needed")
    tree, count = _tree(points), min(neighbours, len(points))
    normals = np.empty((len(points), 3))
    for start in range(0, len(points), _NORMALS_AT_ONCE):
        chunk = slice(start, start + _NORMALS_AT_ONCE)
        _, index = tree.query(points[chunk], k=count, workers=workers)
        around = points[index].astype(np.float64)  # n×k×3
        around -= around.mean(axis=1, keepdims=True)
        _, directions = np.linalg.eigh(np.swapaxes(around, 1, 2) @ around)  # ascending: the first varies least
        normals[chunk] = directions[:, :, 0]
    return normals


def compare_clouds(
    predicted: np.ndarray,
    truth: np.ndarray,
    predicted_normals: np.ndarray,
    truth_normals: np.ndarray,
    *,
    workers: int = -1,
) -> CloudErrors:
    """Return distances and normal agreement at nearest neighbours, from prediction to truth and back.

    Points and normals are (N, 3) and (M, 3). Completeness shows missing pieces only where the truth has points.
    """
    accuracy, at_truth = _nearest(_tree(truth), predicted, workers)
    completeness, at_predicted = _nearest(_tree(predicted), truth, workers)
    nc1 = np.abs(np.sum(predicted_normals * truth_normals[at_truth], axis=1))
    nc2 = np.abs(np.sum(truth_normals * predicted_normals[at_predicted], axis=1))
    return CloudErrors(accuracy, completeness, nc1, nc2)


def _tree(points: np.ndarray) -> cKDTree:
    # splitting at the middle instead of the median builds twice as fast and finds neighbours on surfaces faster
    return cKDTree(points, balanced_tree=False)


def _nearest(
    tree: cKDTree, points: np.ndarray, workers: int, max_distance: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Return (distances, indices) of the nearest point of the tree; infinity if none is near enough."""
    distance, index = tree.query(points, distance_upper_bound=max_distance, workers=workers)
    return np.asarray(distance), np.asarray(index)


def _pairs(
    tree: cKDTree, points: np.ndarray, max_distance: float, workers: int
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return (mask of the points with a partner, indices of the partners, fitness, rmse)."""
    distance, index = _nearest(tree, points, workers, max_distance)
    near = np.isfinite(distance)  # no partner: infinity
    rmse = float(np.sqrt(np.mean(distance[near] ** 2))) if near.any() else 0.0
    return near, index[near], float(np.mean(near)), rmse
