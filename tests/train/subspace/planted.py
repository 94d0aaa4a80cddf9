"""Adapters with known subspaces: what a cluster looks like when the truth is at hand.

A planted cluster has one true pair of subspaces; its updates are dW_i = scale_i · (A M_i Bᵀ + noise), with the same,
free or sign-flipped coefficients M_i, and some of the adapters replaced by outliers, zeros or copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.core import Update


@dataclass(frozen=True)
class Planted:
    """Updates and the truth they were made from."""

    updates: tuple[Update, ...]
    left: np.ndarray  # m × d orthonormal: the true output side
    right: np.ndarray  # n × d orthonormal
    good: tuple[int, ...]  # indices of the adapters that follow the truth


def frame(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Return a Haar-distributed orthonormal rows × columns matrix."""
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    return np.asarray(q * np.sign(np.diag(r)))


def random_update(m: int, n: int, rank: int, rng: np.random.Generator, scale: float = 1.0) -> Update:
    """Return an incoherent adapter: Gaussian factors, ‖dW‖ = scale."""
    return scaled(Update(rng.standard_normal((m, rank)), rng.standard_normal((n, rank))), scale)


def random_updates(k: int, m: int, n: int, rank: int, rng: np.random.Generator) -> tuple[Update, ...]:
    """Return k incoherent adapters of norm 1: no shared structure at all."""
    return tuple(random_update(m, n, rank, rng) for _ in range(k))


def shared_start_updates(k: int, m: int, n: int, rank: int, rng: np.random.Generator) -> tuple[Update, ...]:
    """Return adapters that share lora_A (the right factor) and nothing else: the artefact of one seed for all."""
    right = rng.standard_normal((n, rank))
    return tuple(scaled(Update(rng.standard_normal((m, rank)), right), 1.0) for _ in range(k))


def planted(
    rng: np.random.Generator,
    *,
    k: int = 10,
    m: int = 48,
    n: int = 40,
    dimension: int = 4,
    coefficients: str = "same",  # same | signs (± the same) | directions (± in each direction) | free (Gaussian each)
    noise: float = 0.0,  # norm of the noise over that of the signal, of rank ``dimension``
    outliers: int = 0,  # the last so many adapters are incoherent
    outlier_scale: float = 1.0,  # their norm over that of the others
    scales: Sequence[float] = (),  # ‖signal‖ per adapter; empty: 1
) -> Planted:
    """Return a planted cluster; with noise, adapters have rank 2 · dimension."""
    left, right = frame(m, dimension, rng), frame(n, dimension, rng)
    common = frame(dimension, dimension, rng) * np.linspace(1, 0.5, dimension)
    updates = []
    for i in range(k):
        scale = scales[i] if scales else 1.0
        if i >= k - outliers:
            updates.append(random_update(m, n, dimension, rng, scale * outlier_scale))
            continue
        m_i = rng.standard_normal((dimension, dimension)) if coefficients == "free" else common
        if coefficients in ("signs", "directions"):
            m_i = m_i * rng.choice((-1.0, 1.0), dimension if coefficients == "directions" else 1)
        signal = scaled(Update(left @ m_i, right), scale)
        updates.append(plus(signal, random_update(m, n, dimension, rng, scale * noise)) if noise else signal)
    return Planted(tuple(updates), left, right, tuple(range(k - outliers)))


def dense(update: Update) -> np.ndarray:
    """Return dW, m × n."""
    return np.asarray(update.left @ update.right.T)


def scaled(update: Update, norm: float) -> Update:
    """Return the update with ‖dW‖ = norm."""
    return Update(update.left * (norm / np.linalg.norm(dense(update))), update.right)


def plus(first: Update, second: Update) -> Update:
    """Return the sum of two updates; its rank is the sum of theirs."""
    return Update(np.hstack([first.left, second.left]), np.hstack([first.right, second.right]))


def zero_update(m: int, n: int, rank: int, rng: np.random.Generator) -> Update:
    """Return an untrained adapter: lora_B zero, lora_A random."""
    return Update(np.zeros((m, rank)), rng.standard_normal((n, rank)))


def regauged(update: Update, rng: np.random.Generator, condition: float = 10.0) -> Update:
    """Return other factors of the same dW: (L X, R X⁻ᵀ) with X of the given condition number."""
    rank = update.left.shape[1]
    u, v = frame(rank, rank, rng), frame(rank, rank, rng)
    stretch = np.geomspace(1, condition, rank)
    return Update(update.left @ (u * stretch) @ v, update.right @ (u / stretch) @ v)


def angle_deg(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest principal angle between two column spaces of equal dimension (accurate when tiny)."""
    first, second = np.linalg.qr(first)[0], np.linalg.qr(second)[0]
    outside = second - first @ (first.T @ second)
    return float(np.degrees(np.arcsin(min(1.0, np.linalg.norm(outside, 2)))))
