"""Energy in bases mined without the adapter, against dense matrices and loops; what it says of planted clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dense_oracle
import numpy as np
import pytest
from planted import dense, frame, planted, random_update, random_updates, regauged, scaled, zero_update

from megasynth_train.subspace.core import Update, core_coordinates
from megasynth_train.subspace.extract import Options
from megasynth_train.subspace.held_out import (
    Shares,
    around_the_mean,
    held_out,
    mean_share,
    mined,
    same,
    shares,
)
from megasynth_train.subspace.spectrum import spectrum

Array = np.ndarray
ITERATIONS = 60
OPTIONS = Options(tolerance=1e-14, max_iterations=ITERATIONS)


def some_updates(seed: int = 0) -> tuple[list[Update], list[str]]:
    """Return six unequal adapters of three datasets that share a little, their ranks from 2 to 4."""
    rng = np.random.default_rng(seed)
    common = [planted(rng, k=2, m=20, n=14, dimension=2, noise=0.8).updates for _ in range(2)]
    alone = [random_update(20, 14, rank, rng, scale) for rank, scale in ((2, 3.0), (3, 0.5))]
    return [*common[0], *common[1], *alone], ["a", "a", "b", "b", "c", "c"]


def one_by_one(updates: Sequence[Update], used: Array, basis_of: Callable[[list[Array]], tuple[Array, Array]]) -> Array:
    """Return k × 2 shares: for every update anew, the basis of its own others, from dense matrices."""
    found = []
    for i, update in enumerate(updates):
        left, right = basis_of([dense(other) for j, other in enumerate(updates) if used[i, j]])
        w = dense(update)
        found.append([np.linalg.norm(left.T @ w) ** 2, np.linalg.norm(w @ right) ** 2] / np.linalg.norm(w) ** 2)
    return np.array(found)


def dense_irls(d: int) -> Callable[[list[Array]], tuple[Array, Array]]:
    def find(ws: list[Array]) -> tuple[Array, Array]:
        found = dense_oracle.irls(ws, d, 1.0, 1e-3, ITERATIONS)
        return found.left, found.right

    return find


def dense_around(d: int) -> Callable[[list[Array]], tuple[Array, Array]]:
    def find(ws: list[Array]) -> tuple[Array, Array]:
        units = [w / np.linalg.norm(w) for w in ws]
        moved = [unit - np.mean(units, axis=0) for unit in units]
        return dense_oracle.top(sum(x @ x.T for x in moved), d), dense_oracle.top(sum(x.T @ x for x in moved), d)

    return find


def both(found: Shares) -> Array:
    return np.stack([found.out, found.inner], axis=1)


@pytest.mark.parametrize("without", ["adapter", "dataset", "dataset's others"])
def test_against_dense_matrices_one_by_one(without: str) -> None:
    updates, datasets = some_updates()
    others = np.eye(6) == 0
    used = {"adapter": others, "dataset": ~same(datasets), "dataset's others": same(datasets) & others}[without]
    core = core_coordinates(updates)
    found = held_out(core, used, mined(2, "irls", OPTIONS))
    np.testing.assert_allclose(both(found), one_by_one(updates, used, dense_irls(2)), atol=1e-6)
    np.testing.assert_allclose(found.out_chance, 2 / 20)
    np.testing.assert_allclose(found.inner_chance, 2 / 14)
    if without != "dataset's others":  # of one update nothing is left around its mean
        found = held_out(core, used, around_the_mean(3))
        np.testing.assert_allclose(both(found), one_by_one(updates, used, dense_around(3)), atol=1e-9)


def test_factors_of_the_same_updates_do_not_matter() -> None:
    updates, _ = some_updates()
    rng = np.random.default_rng(5)
    again = core_coordinates([regauged(update, rng) for update in updates])
    used = np.eye(6) == 0
    for miner in (mined(2, "irls", OPTIONS), mined(2, "joint", Options()), around_the_mean(2)):
        one, other = (held_out(core, used, miner) for core in (core_coordinates(updates), again))
        np.testing.assert_allclose(both(one), both(other), atol=1e-6)


def test_shared_subspaces_are_found_outside_the_sample_and_unrelated_adapters_are_not() -> None:
    rng = np.random.default_rng(1)
    used = np.eye(8) == 0
    for coefficients in ("same", "free"):
        shared = core_coordinates(planted(rng, k=8, dimension=3, coefficients=coefficients).updates)
        np.testing.assert_allclose(both(held_out(shared, used, mined(3, "joint", Options()))), 1.0, atol=1e-9)
    unrelated = core_coordinates(random_updates(8, 300, 200, 4, rng))
    in_sample = shares(unrelated, *mined(4, "irls", OPTIONS)(unrelated))
    outside = held_out(unrelated, used, mined(4, "irls", OPTIONS))
    assert in_sample.out.mean() > 0.1  # what fitting alone does; 4 / 300 by chance
    assert outside.out.mean() == pytest.approx(4 / 300, rel=0.25) and outside.inner.mean() == pytest.approx(
        4 / 200, rel=0.25
    )


def test_the_dataset_outweighs_the_attribute_where_it_does() -> None:
    """Two seeds of four datasets: all share one direction, the seeds of one dataset three more."""
    rng = np.random.default_rng(2)
    common = (frame(60, 1, rng), frame(50, 1, rng))
    updates, datasets = [], []
    for dataset in "abcd":
        own = (frame(60, 3, rng), frame(50, 3, rng))
        for _ in range(2):
            noise = random_update(60, 50, 4, rng, 0.5)
            parts = [
                np.hstack([one, 1.2 * other, extra])
                for one, other, extra in zip(common, own, (noise.left, noise.right), strict=True)
            ]
            updates.append(scaled(Update(*parts), 1.0))
            datasets.append(dataset)
    core, others, miner = core_coordinates(updates), np.eye(8) == 0, mined(4, "irls", OPTIONS)
    ceiling, adapter, dataset = (
        held_out(core, used, miner).out.mean() for used in (same(datasets) & others, others, ~same(datasets))
    )
    assert ceiling > dataset + 0.3 and adapter > dataset > 2 * 4 / 60


def test_what_cannot_be_tested_is_nan_and_no_direction_is_made_up() -> None:
    rng = np.random.default_rng(3)
    zero = zero_update(30, 20, 2, rng)
    core = core_coordinates([*random_updates(2, 30, 20, 2, rng), zero])
    found = held_out(core, np.eye(3) == 0, mined(8, "irls", OPTIONS))
    assert np.isnan(found.out[2]) and np.isnan(found.inner_chance[2]) and not np.isnan(found.out[:2]).any()
    np.testing.assert_allclose(found.out_chance[:2], 2 / 30)  # the others have two directions, not eight
    nobody = held_out(core, np.zeros((3, 3)), mined(1, "svd", OPTIONS))
    assert np.isnan(both(nobody)).all()
    alone = held_out(core, np.eye(3) == 0, around_the_mean(2))  # one update and one of zero: no difference from a mean
    assert np.isnan(both(alone)[:2]).all()


@pytest.mark.parametrize("k", [2, 5])
def test_the_share_of_the_mean(k: int) -> None:
    rng = np.random.default_rng(k)
    updates = planted(rng, k=k, noise=0.7).updates
    core, ws = core_coordinates(updates), [dense(update) for update in updates]
    expected = k * np.linalg.norm(np.mean(ws, axis=0)) ** 2 / sum(np.linalg.norm(w) ** 2 for w in ws)
    assert mean_share(spectrum(core), core.norms) == pytest.approx(expected, rel=1e-12)


def test_the_share_of_the_mean_at_its_ends() -> None:
    rng = np.random.default_rng(4)
    update = random_update(30, 20, 2, rng)
    assert mean_share([], [0.0, 0.0]) is None
    same_twice = core_coordinates([update, update])
    assert mean_share(spectrum(same_twice), same_twice.norms) == pytest.approx(1)
    opposite = core_coordinates([update, Update(-update.left, update.right)])
    assert mean_share(spectrum(opposite), opposite.norms) == pytest.approx(0, abs=1e-20)
    unrelated = core_coordinates(random_updates(6, 400, 300, 4, rng))
    assert mean_share(spectrum(unrelated), unrelated.norms) == pytest.approx(1 / 6, rel=0.05)
