"""How flat points are, and how well that tells two classes apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy


def planarity(points: np.ndarray) -> float:
    """Return the RMS distance of N×3 points to their best plane ÷ their RMS distance to their centre.

    0 for a plane, at most 1/√3 (no direction is flatter than the others); no unit. NaN for coinciding points.
    """
    centred = points - points.mean(axis=0)
    variances = np.linalg.eigvalsh(centred.T @ centred)  # ascending
    total = variances.sum()
    return float(np.sqrt(max(variances[0], 0.0) / total)) if total > 0 else float("nan")


def roc(printed: Sequence[float], real: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rates of (printed taken for real, real taken for real), from no to every scene taken for real.

    A scene is taken for real if its score is at least a threshold, which falls through all scores.
    """
    thresholds = np.unique([*printed, *real])[::-1]
    false = [np.mean(np.asarray(printed) >= threshold) for threshold in thresholds]
    true = [np.mean(np.asarray(real) >= threshold) for threshold in thresholds]
    return np.array([0.0, *false]), np.array([0.0, *true])


def roc_auc(printed: Sequence[float], real: Sequence[float]) -> float:
    """Return the probability that a real scene's score exceeds a printed one's, ties counting half."""
    ranks = scipy.stats.rankdata([*printed, *real])[len(printed) :]
    count = len(real)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(printed)))


def equal_error_rate(printed: Sequence[float], real: Sequence[float]) -> float:
    """Return the error rate where both classes have the same, on the straight lines between the points of the ROC."""
    false, true = roc(printed, real)
    missed = 1 - true
    after = int(np.argmax(false >= missed))  # at the last threshold every scene is taken for real
    if after == 0:
        return float(false[0])
    rise, fall = false[after] - false[after - 1], missed[after - 1] - missed[after]
    share = (missed[after - 1] - false[after - 1]) / (rise + fall)
    return float(false[after - 1] + share * rise)
