"""Camera errors from pairs of views, which need no alignment of the worlds and do not depend on scale.

For each pair i < j the predicted relative pose camera_i_from_camera_j is compared with the true one: the angle of the
rotation between them, and the angle between the directions of translation. As in the published evaluations of
PoseDiffusion and VGGT, opposite directions count as equal (the angle is at most 90°).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THRESHOLDS_DEG = (5, 15, 30)
_NO_DIRECTION = 1e-9  # of the largest predicted baseline: a shorter one has no direction of translation


@dataclass(frozen=True)
class PairErrors:
    """Errors of all P = N (N - 1) / 2 pairs of views, in degrees."""

    rotation_deg: np.ndarray
    translation_deg: np.ndarray  # NaN if the true cameras coincide: there is no true direction


def pair_errors(predicted: np.ndarray, truth: np.ndarray, *, min_baseline: float = 0.0) -> PairErrors:
    """Return the relative pose errors of all pairs of cameras given as camera_from_world (N, 4, 4), rigid, OpenCV.

    ``min_baseline``: true pairs at most this far apart (in the truth's unit) have no direction of translation.
    A pair of predicted cameras that coincide while the true ones do not gets the largest error, 90°.
    """
    first, second = np.triu_indices(len(truth), k=1)
    relative = [poses[first] @ _inverse(poses)[second] for poses in (predicted, truth)]  # P×4×4
    # ‖A - B‖ = 2 √2 sin(angle / 2): exact for small angles, where the arccosine of the trace is not
    chord = np.linalg.norm(relative[0][:, :3, :3] - relative[1][:, :3, :3], axis=(1, 2)) / np.sqrt(8)
    rotation_deg = np.degrees(2 * np.arcsin(np.minimum(chord, 1)))

    (p, g), (p_length, g_length) = _directions(relative)
    sine = np.linalg.norm(np.cross(p, g), axis=1)
    translation_deg = np.degrees(np.arctan2(sine, np.abs(np.sum(p * g, axis=1))))
    translation_deg[p_length <= _NO_DIRECTION * p_length.max(initial=0.0)] = 90.0
    translation_deg[g_length <= min_baseline] = np.nan
    return PairErrors(rotation_deg, translation_deg)


def camera_summary(errors: PairErrors) -> dict[str, float | int | None]:
    """Return accuracies in percent, median errors in degrees and the numbers of pairs.

    rra_t: share of pairs with a rotation error below t degrees; rta_t: share of the pairs **with a baseline** with a
    translation error below t; auc_t: mean over the thresholds 1, 2, …, t of the share of pairs whose larger error of
    the two is below the threshold (the published computation). Pairs without a baseline count in rra and, by their
    rotation alone, in auc. None if no pair counts.
    """
    moving = errors.translation_deg[~np.isnan(errors.translation_deg)]
    worse = np.fmax(errors.rotation_deg, errors.translation_deg)  # fmax: the rotation alone if there is no translation
    found: dict[str, float | int | None] = {}
    for limit in THRESHOLDS_DEG:
        found[f"rra_{limit}"] = _share_below(errors.rotation_deg, limit)
        found[f"rta_{limit}"] = _share_below(moving, limit)
        shares = [_share_below(worse, threshold) for threshold in range(1, limit + 1)]
        found[f"auc_{limit}"] = None if None in shares else float(np.mean([s for s in shares if s is not None]))
    found["rotation_median_deg"] = float(np.median(errors.rotation_deg)) if errors.rotation_deg.size else None
    found["translation_median_deg"] = float(np.median(moving)) if moving.size else None
    found["pairs"] = int(errors.rotation_deg.size)
    found["pairs_without_baseline"] = int(errors.rotation_deg.size - moving.size)
    return found


def _share_below(values: np.ndarray, limit: float) -> float | None:
    return 100.0 * float(np.mean(values < limit)) if values.size else None


def _inverse(poses: np.ndarray) -> np.ndarray:
    backwards = np.swapaxes(poses[:, :3, :3], 1, 2)
    inverse = np.broadcast_to(np.eye(4), poses.shape).copy()
    inverse[:, :3, :3] = backwards
    inverse[:, :3, 3] = -np.einsum("nij,nj->ni", backwards, poses[:, :3, 3])
    return inverse


def _directions(relative: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return unit translations (P, 3) and their lengths (P,); length 0 keeps the zero vector."""
    lengths = [np.linalg.norm(poses[:, :3, 3], axis=1) for poses in relative]
    units = [
        poses[:, :3, 3] / np.maximum(length, np.finfo(np.float64).tiny)[:, None]
        for poses, length in zip(relative, lengths, strict=True)
    ]
    return units, lengths
