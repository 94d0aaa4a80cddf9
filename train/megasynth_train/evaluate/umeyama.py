"""Align corresponding points: the best similarity or rigid motion in closed form (Umeyama 1991)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.errors import DatasetError

_RANK_TOLERANCE = 1e-10  # second over first singular value of the covariance: below it the points are collinear


class DegenerateAlignment(DatasetError):
    """The correspondences do not determine the alignment: too few, all in one place, or all on one line."""


@dataclass(frozen=True)
class Similarity:
    """x ↦ scale · rotation · x + translation. A rigid motion has scale 1; the rotation never mirrors."""

    scale: float
    rotation: np.ndarray  # 3×3
    translation: np.ndarray  # 3

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Return the image of ``points`` (..., 3)."""
        return self.scale * points @ self.rotation.T + self.translation

    def after(self, first: Similarity) -> Similarity:
        """Return the composition: ``first``, then this similarity."""
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, self.apply(first.translation))

    def move_cameras(self, camera_from_world: np.ndarray) -> np.ndarray:
        """Return camera_from_world (N, 4, 4) of cameras moved together with the points.

        Moved cameras see moved points at the same pixels as before; distances are multiplied by ``scale``.
        """
        moved = camera_from_world.copy()
        moved[:, :3, :3] = camera_from_world[:, :3, :3] @ self.rotation.T
        moved[:, :3, 3] = self.scale * camera_from_world[:, :3, 3] - moved[:, :3, :3] @ self.translation
        return moved


def umeyama(source: np.ndarray, target: np.ndarray, *, with_scale: bool = True) -> Similarity:
    """Return the similarity that minimises Σᵢ ‖scale · rotation · sourceᵢ + translation − targetᵢ‖².

    ``source``, ``target``: (N, 3), row i of one corresponds to row i of the other. ``with_scale=False`` keeps scale 1
    (Kabsch). det(rotation) = +1 always: if the best orthogonal matrix is a reflection, the weakest direction is
    flipped.

    Raises DegenerateAlignment for non-finite coordinates and if the minimum is not unique: fewer than 3 pairs, all
    source or target points coincident or collinear. Coplanar points are enough.

    Source: S. Umeyama, Least-squares estimation of transformation parameters between two point patterns, 1991.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ValueError(f"corresponding points must both be N×3, not {source.shape} and {target.shape}")
    count = len(source)
    if count < 3:
        raise DegenerateAlignment(f"{count} corresponding points do not determine an alignment; at least 3 are needed")
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source -= source_mean
    target -= target_mean
    covariance = target.T @ source / count  # 3×3
    source_variance, target_variance = np.sum(source**2) / count, np.sum(target**2) / count
    if not (np.isfinite(covariance).all() and np.isfinite(source_variance) and np.isfinite(target_variance)):
        raise DegenerateAlignment("the points to align are not all finite")
    left, spread, right = np.linalg.svd(covariance)
    # rounding of the means leaves this share of the coordinates' squared size if all points coincide
    noise = (np.finfo(np.float64).eps * 8) ** 2
    source_tiny = source_variance <= noise * np.sum(source_mean**2)
    if source_tiny or target_variance <= noise * np.sum(target_mean**2) or spread[0] == 0:
        raise DegenerateAlignment("all points to align coincide, so scale and rotation are undetermined")
    if spread[1] <= _RANK_TOLERANCE * spread[0]:
        raise DegenerateAlignment("all points to align are on one line, so the rotation about it is undetermined")
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * signs) @ right
    scale = float(spread @ signs / source_variance) if with_scale else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)
