"""Adapters of one layer in coordinates of the small space they span, where mining is cheap.

With the thin QR of the stacks, [L_1 … L_k] = Q_A [F_1 … F_k] and [R_1 … R_k] = Q_B [G_1 … G_k], every update is
dW_i = L_i R_iᵀ = Q_A X_i Q_Bᵀ with X_i = F_i G_iᵀ. Inner products, norms and singular values of any combination of the
dW_i are those of the X_i, and its singular vectors are Q_A u and Q_B v: no m × n matrix is ever needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import qr
from scipy.linalg.blas import dtrsm
from scipy.linalg.lapack import dpocon, dpotrf

NO_ENERGY = 1e-12  # relative to the largest singular value of the updates side by side
WELL_CONDITIONED = 1e-10  # reciprocal condition of a Gram matrix, 1e-5 of its factor: far above NO_ENERGY
ORTHONORMAL_TO = 1e-14  # largest error of QᵀQ; Householder's is near 1e-15


@dataclass(frozen=True)
class Update:
    """What one adapter adds to one layer's weight: dW = left @ rightᵀ, with all scaling (alpha, rank) included."""

    left: np.ndarray  # m × r, output side
    right: np.ndarray  # n × r, input side


@dataclass(frozen=True)
class CompactSvds:
    """X_i = left_i diag(values_i) right_iᵀ of k updates, padded with zero columns to one rank r.

    Columns that belong to a numerically zero singular value are zero as well: left_i left_iᵀ is the projection onto the
    column space of X_i. Unlike the factors an adapter comes with, these cannot be badly scaled.
    """

    left: np.ndarray  # k × p × r
    values: np.ndarray  # k × r, descending
    right: np.ndarray  # k × q × r

    def normalised(self) -> CompactSvds:
        """Return the updates scaled to ‖X_i‖ = 1; zero updates stay zero."""
        norms = np.linalg.norm(self.values, axis=1, keepdims=True)
        return CompactSvds(self.left, self.values / np.where(norms > 0, norms, 1.0), self.right)

    def select(self, chosen: np.ndarray) -> CompactSvds:
        """Return those of the updates that ``chosen`` (k,) marks, or lists."""
        return CompactSvds(self.left[chosen], self.values[chosen], self.right[chosen])

    def coefficients(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return U_iᵀ X_i V (k × d × d') for bases U (p × d) and V (q × d')."""
        return ((left.T @ self.left) * self.values[:, None]) @ (self.right.transpose(0, 2, 1) @ right)

    def residuals(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return ‖X_i − U (Uᵀ X_i V) Vᵀ‖ (k,) for orthonormal U (p × d) and V (q × d).

        It comes from the two parts (I − UUᵀ) X_i and UUᵀ X_i (I − VVᵀ): ‖X_i‖² − ‖Uᵀ X_i V‖² would lose every residual
        below 1e-8 of the update.
        """
        inside = left.T @ self.left  # k × d × r
        above = (self.left - left @ inside) * self.values[:, None]  # k × p × r
        beside = self.right - right @ (right.T @ self.right)  # k × q × r
        beside = (inside * self.values[:, None]) @ beside.transpose(0, 2, 1)  # k × d × q
        return np.sqrt(np.einsum("kpr,kpr->k", above, above) + np.einsum("kdq,kdq->k", beside, beside))


@dataclass(frozen=True)
class Core:
    """k updates of one layer in orthonormal coordinates of the space they span: dW_i = left X_i rightᵀ."""

    left: np.ndarray  # m × p orthonormal, p = min(m, ΣR)
    right: np.ndarray  # n × q orthonormal, q = min(n, ΣR)
    factors_left: tuple[np.ndarray, ...]  # p × r_i each: X_i = factors_left[i] @ factors_right[i].T
    factors_right: tuple[np.ndarray, ...]  # q × r_i each

    @cached_property
    def cores(self) -> np.ndarray:
        """Return the X_i, k × p × q."""
        return np.stack([left @ right.T for left, right in zip(self.factors_left, self.factors_right, strict=True)])

    @cached_property
    def svds(self) -> CompactSvds:
        """Return the singular value decompositions of the X_i, from their factors."""
        lefts, left_triangles = _stacked_qr(self.factors_left)
        rights, right_triangles = _stacked_qr(self.factors_right)
        u, values, vt = np.linalg.svd(left_triangles @ right_triangles.transpose(0, 2, 1), full_matrices=False)
        rank_tolerance = max(*self.left.shape, *self.right.shape) * np.finfo(float).eps
        counts = values > rank_tolerance * values[:, :1]
        u, vt = u * counts[:, None], vt * counts[:, :, None]
        return CompactSvds(lefts @ u, values * counts, rights @ vt.transpose(0, 2, 1))

    @cached_property
    def norms(self) -> np.ndarray:
        """Return the Frobenius norms ‖dW_i‖ (k,)."""
        return np.asarray(np.linalg.norm(self.svds.values, axis=1))

    @cached_property
    def room(self) -> int:
        """Return how many dimensions a basis can have: the directions with energy, on the side with fewer of them.

        At most min(outputs, inputs, Σ ranks); 0 if all updates are zero.
        """
        return min(
            _rank(self.svds.left * self.svds.values[:, None]), _rank(self.svds.right * self.svds.values[:, None])
        )

    def subset(self, chosen: np.ndarray) -> Core:
        """Return the core of the updates that ``chosen`` (k,) marks, in the coordinates of this one.

        It shares this one's decompositions, and has its sizes: for few of many updates ``core_coordinates`` of their
        factors is smaller.
        """
        picked = np.flatnonzero(chosen)
        factors = (tuple(side[i] for i in picked) for side in (self.factors_left, self.factors_right))
        return _with_svds(
            Core(np.eye(self.left.shape[1]), np.eye(self.right.shape[1]), *factors), self.svds.select(picked)
        )

    def single(self) -> Core:
        """Return the same updates in single precision: half the time, for what only the report needs.

        ``room`` has no meaning there.
        """
        svds = CompactSvds(*(part.astype(np.float32) for part in (self.svds.left, self.svds.values, self.svds.right)))
        return _with_svds(Core(self.left, self.right, self.factors_left, self.factors_right), svds)

    def coherence(self) -> np.ndarray:
        """Return cos_ij = ⟨dW_i, dW_j⟩ / (‖dW_i‖ ‖dW_j‖), k × k; rows and columns of zero updates are zero."""
        flat = self.cores.reshape(len(self.cores), -1)
        flat = flat / np.where(self.norms > 0, self.norms, 1.0)[:, None]
        cosines = np.clip(flat @ flat.T, -1.0, 1.0)
        np.fill_diagonal(cosines, self.norms > 0)
        return cosines


def core_coordinates(updates: Sequence[Update]) -> Core:
    """Return k ≥ 1 updates of one layer in core coordinates, in float64; ranks may differ, factors may be dependent.

    Subsets of the adapters need no new QR of the long factors: ``core_coordinates([Update(core.factors_left[i],
    core.factors_right[i]) for i in half])`` is a core whose bases are in the coordinates of ``core``, to be
    multiplied by ``core.left`` and ``core.right``. ValueError for no updates, shapes that do not fit, or values that
    are not finite.
    """
    if not updates:
        raise ValueError("core coordinates of no updates: a layer needs at least one adapter")
    m, n = updates[0].left.shape[0], updates[0].right.shape[0]
    for index, update in enumerate(updates):
        (rows, rank), (columns, rank_right) = update.left.shape, update.right.shape
        if (rows, columns) != (m, n) or rank != rank_right or rank < 1:
            raise ValueError(
                f"update {index} has factors {rows} × {rank} and {columns} × {rank_right}; update 0 is {m} × {n}: "
                "factors of one layer need the same lengths and, per adapter, one common rank of at least 1"
            )
    left, factors_left = _frame([update.left for update in updates])
    right, factors_right = _frame([update.right for update in updates])
    return Core(left, right, factors_left, factors_right)


def _frame(factors: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return orthonormal columns that span all factors, and the factors in those coordinates."""
    rows = np.concatenate([factor.T for factor in factors], axis=0, dtype=np.float64)  # LAPACK needs contiguous columns
    frame, triangle = _cholesky_qr(rows.T) or qr(rows.T, mode="economic", overwrite_a=True)
    ends = np.cumsum([factor.shape[1] for factor in factors])
    return np.asarray(frame), tuple(np.split(np.asarray(triangle), ends[:-1], axis=1))


def _cholesky_qr(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return Q and R of the thin QR of a well-conditioned matrix, None for any other.

    The error of Q = X R⁻¹ with RᵀR = XᵀX is about the squared condition number times rounding. It is measured, and
    corrected by a second pass over Q (CholeskyQR2: Yamamoto et al. 2015). Unrelated adapters, which are the most work,
    need one pass, a quarter of the time of Householder's reflections.
    """
    triangle = np.eye(columns.shape[1])
    gram = columns.T @ columns
    for _ in range(2):
        try:
            factor = np.linalg.cholesky(gram).T
        except np.linalg.LinAlgError:
            return None
        columns, triangle = dtrsm(1.0, factor, columns, side=1), factor @ triangle
        gram = columns.T @ columns
        if np.abs(gram - np.eye(len(gram))).max() <= ORTHONORMAL_TO:
            return columns, triangle
    return None


def _with_svds(core: Core, svds: CompactSvds) -> Core:
    """Return ``core``, whose decompositions are known: they are put where cached_property looks for them."""
    core.__dict__["svds"] = svds
    return core


def _rank(factors: np.ndarray) -> int:
    """Return the numerical rank of the k matrices of ``factors`` (k × p × r) side by side."""
    columns = factors.transpose(1, 0, 2).reshape(factors.shape[1], -1)
    if _surely_independent(columns.T if len(columns) > columns.shape[1] else columns):
        return min(columns.shape)
    values = np.linalg.svd(columns, compute_uv=False)
    return int(np.sum(values > NO_ENERGY * values[0]))


def _surely_independent(rows: np.ndarray) -> bool:
    """Return True if the Gram matrix shows that the rows are far from dependent, a tenth of the time of an SVD."""
    gram = rows @ rows.T
    triangle, failed = dpotrf(gram, lower=0)
    if failed:
        return False
    return bool(dpocon(triangle, np.abs(gram).sum(axis=0).max())[0] > WELL_CONDITIONED)


def _stacked_qr(factors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return Q (k × p × c) and R (k × c × r) of factors padded with zero columns to the largest rank, c = min(p, r)."""
    rank = max(factor.shape[1] for factor in factors)
    padded = np.stack([np.pad(factor, ((0, 0), (0, rank - factor.shape[1]))) for factor in factors])
    frames, triangles = np.linalg.qr(padded)
    return frames, triangles
