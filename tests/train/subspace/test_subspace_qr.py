"""QR with a positive diagonal: orthonormal columns are their own Q."""

from __future__ import annotations

import numpy as np
import pytest

from megasynth_train.subspace.qr import positive_qr


@pytest.mark.parametrize("shape", [(7, 3), (4, 4), (3, 6), (5, 0)])
def test_it_is_a_qr_with_a_positive_diagonal(shape: tuple[int, int]) -> None:
    columns = np.random.default_rng(0).standard_normal(shape)
    q, r = positive_qr(columns)
    size = min(shape)
    assert q.shape == (shape[0], size) and r.shape == (size, shape[1])
    np.testing.assert_allclose(q @ r, columns, atol=1e-14)
    np.testing.assert_allclose(q.T @ q, np.eye(size), atol=1e-14)
    assert (np.diagonal(r) > 0).all() and not np.tril(r, -1).any()


def test_orthonormal_columns_stay_as_they_are() -> None:
    q = positive_qr(-np.random.default_rng(1).standard_normal((9, 4)))[0]
    again, r = positive_qr(q)
    np.testing.assert_allclose(again, q, atol=1e-14)
    np.testing.assert_allclose(r, np.eye(4), atol=1e-14)
    near = q + 1e-6 * np.random.default_rng(2).standard_normal(q.shape)
    assert np.abs(positive_qr(near)[0] - q).max() < 1e-5


def test_dependent_columns_leave_a_zero_on_the_diagonal() -> None:
    column = np.random.default_rng(3).standard_normal((6, 1))
    q, r = positive_qr(np.hstack([column, column]))
    assert abs(r[1, 1]) < 1e-14 and np.allclose(q.T @ q, np.eye(2))
