"""The numbers of the reference implementation (eval_metrics.npz), at the tolerances its README gives."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from megasynth_train.evaluate.clouds import compare_clouds
from megasynth_train.evaluate.depth import Fit, depth_errors, robust_scale_shift
from megasynth_train.evaluate.umeyama import umeyama

FILE = Path(__file__).parents[2] / "fixtures" / "eval_metrics.npz"


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return dict(file)


def test_umeyama(stored: dict[str, np.ndarray]) -> None:
    found = umeyama(stored["src"], stored["gt"])
    assert found.scale == pytest.approx(float(stored["umeyama_c"]), rel=1e-12)
    np.testing.assert_allclose(found.rotation, stored["umeyama_R"], atol=1e-12)
    np.testing.assert_allclose(found.translation, stored["umeyama_t"][:, 0], atol=1e-12)
    np.testing.assert_allclose(found.apply(stored["src"]), stored["aligned"], atol=1e-12)


def test_distances_and_normal_consistency(stored: dict[str, np.ndarray]) -> None:
    count = int(stored["n_pred"])
    found = compare_clouds(
        stored["aligned"][:count], stored["gt"], stored["pred_normals"][:count], stored["gt_normals"]
    ).summary()
    short = {"accuracy": "acc", "completeness": "comp", "nc1": "nc1", "nc2": "nc2"}
    for ours, theirs in short.items():
        assert found[f"{ours}_mean"] == pytest.approx(float(stored[f"{theirs}_mean"]), rel=1e-12)
        assert found[f"{ours}_median"] == pytest.approx(float(stored[f"{theirs}_med"]), rel=1e-12)
    assert found["nc_mean"] == pytest.approx((stored["nc1_mean"] + stored["nc2_mean"]) / 2)


def test_depth_of_every_alignment(stored: dict[str, np.ndarray]) -> None:
    p, g = stored["depth_pred"], stored["depth_gt"]
    valid = g > 0
    cases = {
        "metric": (p, g, 1e-6),
        "median": (released_median(p, g).apply(p), g, 1e-6),
        "scale": (released_scale(p, g).apply(p), g, 2e-3),  # ill-conditioned in the reference
        "lad2": (p, released_scale_shift(p, g, valid), 1e-3),
    }
    for name, (predicted, truth, tolerance) in cases.items():
        found = astuple(depth_errors(predicted, truth, valid))
        np.testing.assert_allclose(found, stored[f"depth_{name}"], rtol=0, atol=tolerance, err_msg=name)


def released_median(predicted: np.ndarray, truth: np.ndarray) -> Fit:
    """Return the published code's median alignment: over **all** pixels, the lower of two middle values."""
    return Fit(_lower_median(truth) / _lower_median(predicted))


def released_scale(predicted: np.ndarray, truth: np.ndarray) -> Fit:
    """Return the published code's scale: 10 reweightings towards Σ |s · p − g| over **all** pixels, nearly unbounded.

    Ill-conditioned: weights reach 1e8, and the order of multiplications shows in the third decimal.
    """
    p, g = predicted.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
    scale = g.mean() / p.mean()
    for _ in range(10):
        weights = 1.0 / (np.abs(scale * p - g) + 1e-8)
        scale = (weights * p) @ g / ((weights * p) @ p)
    return Fit(float(scale))


def released_scale_shift(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the **truth** (V, H, W) mapped view by view to the prediction, as the published code compares them.

    It minimises Σ |scale · g + shift − p| with Adam; the minimum is found here by ``robust_scale_shift``.
    """
    mapped = np.zeros(truth.shape)
    for view in range(len(truth)):
        seen = valid[view]
        fit = robust_scale_shift(truth[view][seen].astype(np.float64), predicted[view][seen].astype(np.float64))
        mapped[view] = fit.apply(truth[view])
    return mapped


def _lower_median(values: np.ndarray) -> float:
    middle = (values.size - 1) // 2
    return float(np.partition(values.ravel(), middle)[middle])
