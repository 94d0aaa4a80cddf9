"""Dimensions per layer: exact budgets, limits, order, and the paper's rule with its zeros."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megasynth_attr.core.errors import ConfigError
from megasynth_train.subspace.allocation import LayerBudget, allocate, effective_rank, weight_effective_rank
from megasynth_train.subspace.settings import ALLOCATIONS


def budgets(ranks: list[float], limits: list[int] | None = None) -> list[LayerBudget]:
    """Return layers with these effective ranks; energies run the other way."""
    return [
        LayerBudget(f"blocks.{i}", rank, 1.0 / (1.0 + rank), i % 5, limits[i] if limits else 10**6)
        for i, rank in enumerate(ranks)
    ]


sizes = st.one_of(st.just(0.0), st.floats(1e-3, 1e3), st.integers(1, 5).map(float))
layer_lists = st.lists(st.tuples(sizes, st.integers(0, 40)), min_size=1, max_size=12).map(
    lambda rows: budgets([rank for rank, _ in rows], [limit for _, limit in rows])
)
shared = settings(max_examples=60, deadline=None)


@shared
@given(layers=layer_lists, method=st.sampled_from(ALLOCATIONS), dimension=st.integers(1, 30))
def test_no_layer_gets_more_than_fits_and_every_layer_is_named(
    layers: list[LayerBudget], method: str, dimension: int
) -> None:
    for budget in ("dimensions", "parameters"):
        found = allocate(layers, method, dimension, budget)
        assert list(found) == [layer.module for layer in layers]
        assert all(0 <= found[layer.module] <= layer.limit for layer in layers)


@shared
@given(layers=layer_lists, method=st.sampled_from(["proportional", "energy"]), dimension=st.integers(1, 30))
def test_a_budget_of_dimensions_is_spent_exactly(layers: list[LayerBudget], method: str, dimension: int) -> None:
    uniform = allocate(layers, "uniform", dimension)
    assert uniform == {layer.module: min(dimension, layer.limit) for layer in layers}
    assert sum(allocate(layers, method, dimension).values()) == sum(uniform.values())


@shared
@given(layers=layer_lists, method=st.sampled_from(["proportional", "energy"]), dimension=st.integers(1, 30))
def test_a_budget_of_parameters_is_never_exceeded_and_little_is_left(
    layers: list[LayerBudget], method: str, dimension: int
) -> None:
    total = sum(number**2 for number in allocate(layers, "uniform", dimension).values())
    found = allocate(layers, method, dimension, "parameters")
    left = total - sum(number**2 for number in found.values())
    assert left >= 0
    # what is left is too little for the dearest step that could be taken
    dearest = max((2 * found[layer.module] + 1 for layer in layers if found[layer.module] < layer.limit), default=0)
    assert left == 0 or left < dearest


@shared
@given(layers=layer_lists, method=st.sampled_from(ALLOCATIONS), dimension=st.integers(1, 30), data=st.data())
def test_the_order_of_layers_changes_nothing(
    layers: list[LayerBudget], method: str, dimension: int, data: st.DataObject
) -> None:
    other = data.draw(st.permutations(layers))
    for budget in ("dimensions", "parameters"):
        assert allocate(other, method, dimension, budget) == allocate(layers, method, dimension, budget)


@shared
@given(layers=layer_lists, dimension=st.integers(1, 30))
def test_a_larger_rank_never_gets_fewer_dimensions(layers: list[LayerBudget], dimension: int) -> None:
    layers = [replace(layer, limit=25) for layer in layers]
    for method in ("proportional", "floor"):
        found = allocate(layers, method, dimension)
        by_rank = sorted(layers, key=lambda layer: layer.effective_rank)
        for one, other in pairwise(by_rank):
            tie = math.isclose(one.effective_rank, other.effective_rank)  # equal ones may differ by the last remainder
            assert found[one.module] <= found[other.module] + tie


@shared
@given(layers=layer_lists, dimension=st.integers(1, 30), power=st.sampled_from([1, 2]))
def test_shares_are_those_of_a_slow_search_rounded(layers: list[LayerBudget], dimension: int, power: int) -> None:
    """Bisection for t in Σ min(t · rank, limit)^power = budget; every layer then gets its share rounded down or up."""
    ranks, limits = [layer.effective_rank for layer in layers], [layer.limit for layer in layers]
    total = sum(min(dimension, limit) ** power for limit in limits)
    if sum(limit**power for rank, limit in zip(ranks, limits, strict=True) if rank) < total:
        return  # layers without any rank take the rest: the test below
    low, high = 0.0, 1e9
    for _ in range(200):
        t = (low + high) / 2
        spent = sum(min(t * rank, limit) ** power for rank, limit in zip(ranks, limits, strict=True))
        low, high = (t, high) if spent < total else (low, t)
    found = allocate(layers, "proportional", dimension, "dimensions" if power == 1 else "parameters")
    for layer, rank, limit in zip(layers, ranks, limits, strict=True):
        share = min(high * rank, limit)
        assert math.floor(share - 1e-6) <= found[layer.module] <= math.ceil(share + 1e-6)


def test_the_largest_remainders_are_rounded_up() -> None:
    # 16 · 4 dimensions on 1 : 2 : 3 : 4.5 → 6.10, 12.19, 18.29, 27.43: one left, for the last
    assert list(allocate(budgets([1.0, 2.0, 3.0, 4.5]), "proportional", 16).values()) == [6, 12, 18, 28]


def test_a_full_layer_hands_its_share_on() -> None:
    assert list(allocate(budgets([1.0, 1.0, 2.0], [40, 40, 10]), "proportional", 10).values()) == [10, 10, 10]
    assert list(allocate(budgets([1.0, 1.0, 8.0], [40, 40, 14]), "proportional", 10).values()) == [8, 8, 14]


def test_layers_without_rank_get_what_the_others_cannot_hold() -> None:
    assert list(allocate(budgets([0.0, 5.0, 0.0], [9, 4, 9]), "proportional", 6).values()) == [6, 4, 6]
    assert list(allocate(budgets([0.0, 5.0, 0.0], [9, 18, 9]), "proportional", 6).values()) == [0, 18, 0]
    assert list(allocate(budgets([0.0, 0.0]), "proportional", 6).values()) == [6, 6]


def test_energy_and_null_read_their_own_numbers() -> None:
    layers = [LayerBudget("a", 1.0, 30.0, 3, 99), LayerBudget("b", 9.0, 10.0, 50, 20)]
    assert allocate(layers, "energy", 8) == {"a": 12, "b": 4}
    assert allocate(layers, "null", 8) == {"a": 3, "b": 20}


def test_the_papers_rule_is_a_multiple_of_the_dimension() -> None:
    """✓ d · ⌊EffRank / mean⌋: zero below the mean."""
    layers = budgets([1.0, 3.0, 4.0, 12.0])  # mean 5
    assert list(allocate(layers, "floor", 16).values()) == [0, 0, 0, 32]
    assert list(allocate([replace(layer, limit=20) for layer in layers], "floor", 16).values()) == [0, 0, 0, 20]
    assert list(allocate(budgets([0.0, 0.0]), "floor", 16).values()) == [0, 0]


@pytest.mark.parametrize("rank", [0.1, 1 / 3, 7.7, 1e-12, 1e12])
@pytest.mark.parametrize("count", [1, 3, 10, 192])
def test_equal_ranks_are_uniform_by_every_rule(rank: float, count: int) -> None:
    for method in ("uniform", "floor", "proportional", "energy"):
        for budget in ("dimensions", "parameters"):
            assert set(allocate(budgets([rank] * count), method, 16, budget).values()) == {16}


def test_most_layers_of_lognormal_ranks_get_nothing_by_the_papers_rule() -> None:
    """✓ 57 to 70 per cent: Φ(σ/2) of them lie below the mean, σ from 0.35 to 1.05."""
    rng = np.random.default_rng(0)
    for sigma, share in ((0.35, 0.57), (1.05, 0.70)):
        found = allocate(budgets(list(rng.lognormal(3.0, sigma, 20000))), "floor", 16)
        assert np.mean([number == 0 for number in found.values()]) == pytest.approx(share, abs=0.015)


def test_nothing_is_allocated_among_no_layers() -> None:
    assert all(allocate([], method, 16) == {} for method in ALLOCATIONS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "best"}, "unknown allocation 'best'; choose one of uniform"),
        ({"layers": budgets([1.0]) * 2}, "listed twice"),
        ({"layers": budgets([math.nan])}, r"blocks.0: effective_rank must be finite"),
        ({"layers": budgets([-0.5])}, r"blocks.0: effective_rank must be finite and not negative"),
    ],
)
def test_what_cannot_be_allocated_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        allocate(**({"layers": budgets([1.0, 2.0]), "method": "uniform", "dimension": 4} | change))


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 90),
    columns=st.integers(1, 90),
    scale=st.sampled_from([1e-150, 1.0, 1e150]),
    seed=st.integers(0, 9),
)
def test_effective_ranks_are_ratios_of_norms(rows: int, columns: int, scale: float, seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((rows, columns))
    wanted = (np.linalg.norm(weight) / np.linalg.norm(weight, 2)) ** 2
    assert effective_rank(np.linalg.svd(weight * scale, compute_uv=False)) == pytest.approx(wanted, rel=1e-12)
    assert weight_effective_rank(weight) == pytest.approx(wanted, rel=1e-9)
    assert weight_effective_rank(weight.T.astype(np.float32)) == pytest.approx(wanted, rel=1e-5)


def test_effective_ranks_at_their_ends() -> None:
    assert weight_effective_rank(np.eye(70)) == pytest.approx(70)
    assert weight_effective_rank(np.outer(np.arange(70.0), np.arange(80.0))) == pytest.approx(1)
    assert weight_effective_rank(np.zeros((70, 80))) == effective_rank(np.zeros(3)) == effective_rank(np.zeros(0)) == 0
