"""Core coordinates: dense matrices say the same, whatever the ranks, sizes, gauges and accidents of a cluster."""

from __future__ import annotations

import dense_oracle as oracle
import numpy as np
import planted as make
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megasynth_train.subspace.core import Core, Update, core_coordinates


def clusters() -> dict[str, tuple[Update, ...]]:
    """Return clusters of every awkward kind, by name."""
    rng = np.random.default_rng(7)
    usual = make.random_updates(4, 30, 20, 3, rng)
    mixed = tuple(make.random_update(30, 20, rank, rng, scale) for rank, scale in ((1, 1e-4), (5, 1.0), (3, 1e4)))
    thin = Update(np.tile(rng.standard_normal((30, 1)), 3), rng.standard_normal((20, 3)))  # rank 1 with three columns
    return {
        "usual": usual,
        "one adapter": usual[:1],
        "other ranks and scales": mixed,
        "more columns than inputs and outputs": make.random_updates(6, 10, 8, 4, rng),
        "more columns than inputs": make.random_updates(6, 40, 8, 4, rng),
        "one rank above min(m, n)": (make.random_update(5, 4, 7, rng), make.random_update(5, 4, 2, rng)),
        "zero and duplicate": (usual[0], make.zero_update(30, 20, 3, rng), usual[0], usual[1]),
        "only zeros": (make.zero_update(30, 20, 3, rng),) * 2,
        "dependent columns": (usual[0], thin),
        "same lora_A": make.shared_start_updates(4, 30, 20, 3, rng),
    }


CLUSTERS = clusters()


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_core_is_the_cluster_in_other_coordinates(name: str) -> None:
    updates = CLUSTERS[name]
    core, ws = core_coordinates(updates), [make.dense(update) for update in updates]
    total = sum(update.left.shape[1] for update in updates)
    m, n = ws[0].shape
    assert core.left.shape == (m, min(m, total)) and core.right.shape == (n, min(n, total))
    for basis in (core.left, core.right):
        assert basis.dtype == np.float64
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-13)
    for i, w in enumerate(ws):
        size = max(np.linalg.norm(w), 1e-300)
        product = core.factors_left[i] @ core.factors_right[i].T
        np.testing.assert_allclose(core.left @ core.cores[i] @ core.right.T / size, w / size, atol=1e-13)
        np.testing.assert_array_equal(product, core.cores[i])
        svds = core.svds
        rebuilt = (svds.left[i] * svds.values[i]) @ svds.right[i].T
        np.testing.assert_allclose(rebuilt / size, core.cores[i] / size, atol=1e-13)


@pytest.mark.parametrize("name", CLUSTERS)
def test_norms_coherence_and_column_spaces_are_the_dense_ones(name: str) -> None:
    updates = CLUSTERS[name]
    core, ws = core_coordinates(updates), [make.dense(update) for update in updates]
    norms = np.array([np.linalg.norm(w) for w in ws])
    np.testing.assert_allclose(core.norms, norms, rtol=1e-13)
    expected = np.zeros((len(ws), len(ws)))
    for i, a in enumerate(ws):
        for j, b in enumerate(ws):
            if norms[i] > 0 and norms[j] > 0:
                expected[i, j] = np.sum(a * b) / (norms[i] * norms[j])
    np.testing.assert_allclose(core.coherence(), expected, atol=1e-13)
    assert np.abs(core.coherence()).max() <= 1
    for i, w in enumerate(ws):
        out = core.left @ core.svds.left[i]
        projection = w @ np.linalg.pinv(w, rcond=1e-10)
        np.testing.assert_allclose(out @ out.T, projection, atol=1e-9)


def test_coherence_of_copies_and_opposites_is_one_and_minus_one() -> None:
    update = make.random_update(30, 20, 3, np.random.default_rng(1))
    core = core_coordinates([update, update, Update(-update.left, update.right)])
    np.testing.assert_allclose(core.coherence(), [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    ranks=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_inner_products_and_singular_values_of_any_combination(seed: int, m: int, n: int, ranks: list[int]) -> None:
    rng = np.random.default_rng(seed)
    updates = [Update(rng.standard_normal((m, r)), rng.standard_normal((n, r))) for r in ranks]
    core, ws = core_coordinates(updates), [make.dense(update) for update in updates]
    factors = rng.standard_normal(len(ws))
    combined = np.tensordot(factors, core.cores, axes=1)
    whole = sum(f * w for f, w in zip(factors, ws, strict=True))
    size = np.linalg.norm(whole)
    small, full = np.linalg.svd(combined, compute_uv=False), np.linalg.svd(whole, compute_uv=False)
    np.testing.assert_allclose(small, full[: len(small)], atol=1e-12 * size)
    assert np.all(full[len(small) :] <= 1e-12 * size)
    np.testing.assert_allclose(np.sum(core.cores[0] * combined), np.sum(ws[0] * whole), atol=1e-12 * size**2 + 1e-12)


def test_another_gauge_is_the_same_core() -> None:
    rng = np.random.default_rng(2)
    updates = make.random_updates(4, 30, 20, 3, rng)
    first, second = core_coordinates(updates), core_coordinates([make.regauged(u, rng, 1e3) for u in updates])
    np.testing.assert_allclose(second.norms, first.norms, rtol=1e-11)
    np.testing.assert_allclose(second.coherence(), first.coherence(), atol=1e-11)
    np.testing.assert_allclose(second.svds.values, first.svds.values, rtol=1e-10)


def residual_case() -> tuple[Core, np.ndarray, np.ndarray]:
    """Return a core of one update that lies in (U, V) but for 1e-11 of it."""
    rng = np.random.default_rng(3)
    inside = make.planted(rng, k=1, m=40, n=30, dimension=3)
    outside = make.random_update(40, 30, 3, rng, 1e-11)
    return core_coordinates([make.plus(inside.updates[0], outside)]), inside.left, inside.right


def test_residuals_far_below_the_rounding_of_squared_norms() -> None:
    core, left, right = residual_case()
    u, v = core.left.T @ left, core.right.T @ right
    u, v = np.linalg.qr(u)[0], np.linalg.qr(v)[0]
    residual = core.svds.residuals(u, v)[0]
    expected = np.linalg.norm(core.cores[0] - u @ (u.T @ core.cores[0] @ v) @ v.T)
    assert residual == pytest.approx(expected, rel=1e-3) and 0.5e-11 < residual < 1.5e-11
    by_difference = core.norms[0] ** 2 - np.sum(core.svds.coefficients(u, v)[0] ** 2)
    assert abs(np.sqrt(abs(by_difference)) / residual - 1) > 0.5  # why it is not computed like that


def test_residuals_and_coefficients_are_the_dense_ones() -> None:
    rng = np.random.default_rng(4)
    updates = CLUSTERS["other ranks and scales"]
    core = core_coordinates(updates)
    u, v = make.frame(core.left.shape[1], 4, rng), make.frame(core.right.shape[1], 4, rng)
    ws = [make.dense(update) for update in updates]
    expected = oracle.joint_residuals(ws, core.left @ u, core.right @ v)
    np.testing.assert_allclose(core.svds.residuals(u, v), expected, rtol=1e-12)
    coefficients = [u.T @ core.left.T @ w @ core.right @ v for w in ws]
    for found, right in zip(core.svds.coefficients(u, v), coefficients, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-13 * np.linalg.norm(right))


def test_a_subset_of_the_adapters_in_the_coordinates_of_all() -> None:
    updates = make.random_updates(5, 30, 20, 2, np.random.default_rng(5))
    core = core_coordinates(updates)
    half = core_coordinates([Update(core.factors_left[i], core.factors_right[i]) for i in (3, 1)])
    for i, x in zip((3, 1), half.cores, strict=True):
        rebuilt = core.left @ half.left @ x @ half.right.T @ core.right.T
        np.testing.assert_allclose(rebuilt, make.dense(updates[i]), atol=1e-13)


def test_a_layer_that_would_not_fit_in_memory_as_a_dense_matrix() -> None:
    rng = np.random.default_rng(6)
    updates = [Update(rng.standard_normal((60_000, 2)), rng.standard_normal((50_000, 2))) for _ in range(3)]
    core = core_coordinates(updates)  # one dense dW would be 24 GB
    expected = [np.sqrt(np.sum((u.left.T @ u.left) * (u.right.T @ u.right))) for u in updates]
    np.testing.assert_allclose(core.norms, expected, rtol=1e-12)


def test_single_precision_factors_are_used_in_double() -> None:
    update = make.random_update(30, 20, 3, np.random.default_rng(8))
    single = Update(update.left.astype(np.float32), update.right.astype(np.float32))
    double = Update(single.left.astype(np.float64), single.right.astype(np.float64))
    np.testing.assert_array_equal(core_coordinates([single]).cores, core_coordinates([double]).cores)


@pytest.mark.parametrize(
    ("updates", "words"),
    [
        ([], "no updates"),
        ([Update(np.ones((4, 2)), np.ones((3, 1)))], "4 × 2 and 3 × 1"),
        ([Update(np.ones((4, 2)), np.ones((3, 2))), Update(np.ones((5, 2)), np.ones((3, 2)))], "update 1 .* 5 × 2"),
        ([Update(np.ones((4, 0)), np.ones((3, 0)))], "at least 1"),
        ([Update(np.full((4, 1), np.nan), np.ones((3, 1)))], "infs or NaNs"),
        ([Update(np.ones((4, 1)), np.full((3, 1), np.inf))], "infs or NaNs"),
    ],
)
def test_factors_that_make_no_layer_are_refused(updates: list[Update], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        core_coordinates(updates)
