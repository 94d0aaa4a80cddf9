"""Height fields: 5×5 control heights become a smooth displacement over one face.

A face has parameters (u, v) ∈ [0, 1]²; control height [i, j] (row-major, i along v, j along u) is interpolated by the
tensor product of two cubic splines. Open direction: the five heights sit at 1/6 … 5/6 inside a border of zeros
(the zero-padded grid), with zero slope at the border, so faces that share an edge stay closed and meet flat. Periodic
direction: they sit at 0, 1/5 … 4/5. Cardinal splines make it one matrix product per face: heights @ basis.
"""

from __future__ import annotations

import numpy as np
import scipy

CONTROL = 5  # control heights along one direction of a face
MAX_FACES = 6  # faces of the kind with most faces, the cuboid


def open_basis(parameter: np.ndarray) -> np.ndarray:
    """Return N×5: the weight of each control height at N parameters in [0, 1]; exactly 0 at both ends."""
    nodes = np.linspace(0, 1, CONTROL + 2)
    weights = scipy.interpolate.CubicSpline(nodes, np.eye(CONTROL + 2), bc_type="clamped")(parameter)[:, 1:-1]
    weights[(parameter <= 0) | (parameter >= 1)] = 0.0  # exact, so that shared edges stay bit-equal
    return weights


def periodic_basis(parameter: np.ndarray) -> np.ndarray:
    """Return N×5: the weight of each control height at N parameters; period 1, twice differentiable."""
    nodes = np.linspace(0, 1, CONTROL + 1)
    values = np.concatenate([np.eye(CONTROL), np.eye(CONTROL)[:1]])
    return scipy.interpolate.CubicSpline(nodes, values, bc_type="periodic")(np.mod(parameter, 1.0))


def surface_basis(along_v: np.ndarray, along_u: np.ndarray) -> np.ndarray:
    """Return the N×25 weights of N surface points from their N×5 weights along v and along u."""
    return (along_v[:, :, None] * along_u[:, None, :]).reshape(-1, CONTROL * CONTROL)


def sample_heights(
    rng: np.random.Generator, half_axes: np.ndarray, *, relief: float, flat_probability: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (heights N×6×25 in the unit of ``half_axes``, is_flat N×6) for N primitives with N×3 half-axes.

    Heights are U(-H, H) with H ~ U(0, ``relief`` · smallest full axis) per face. The same number of draws is made for
    every primitive; a kind with fewer faces ignores the rest.
    """
    count = len(half_axes)
    is_flat = rng.random((count, MAX_FACES)) < flat_probability
    largest = rng.random((count, MAX_FACES)) * relief * 2 * half_axes.min(axis=1, initial=np.inf)[:, None]
    heights = rng.uniform(-1, 1, (count, MAX_FACES, CONTROL * CONTROL)) * largest[:, :, None]
    return heights, is_flat
