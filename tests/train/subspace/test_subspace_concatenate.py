"""Attributes beside each other: nested spans, dropped directions, and what is left alone."""

from __future__ import annotations

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megasynth_attr.core.errors import ConfigError
from megasynth_train.subspace.angles import principal_angles
from megasynth_train.subspace.concatenate import Concatenated, concatenate

Parts = list[tuple[str, np.ndarray, np.ndarray]]
NAMES = ("texture", "lighting", "geometry")


def random_parts(rng: np.random.Generator, m: int = 30, n: int = 24, sizes: tuple[int, ...] = (4, 3, 5)) -> Parts:
    return [
        (name, planted.frame(m, size, rng), planted.frame(n, size, rng))
        for name, size in zip(NAMES, sizes, strict=False)
    ]


def stacked(parts: Parts, side: int) -> np.ndarray:
    return np.hstack([part[side] for part in parts])


def slow_kept(parts: Parts, drop_below: float) -> list[int]:
    """Return the kept columns by plain least squares against the kept earlier ones, both sides, one after another."""
    kept: list[int] = []
    sides = stacked(parts, 1), stacked(parts, 2)
    for column in range(sides[0].shape[1]):
        outside = []
        for side in sides:
            vector = side[:, column]
            if kept:
                vector = vector - side[:, kept] @ np.linalg.lstsq(side[:, kept], vector, rcond=None)[0]
            outside.append(np.linalg.norm(vector) / (np.linalg.norm(side[:, column]) or 1.0))
        if min(outside) >= drop_below:
            kept.append(column)
    return kept


def check_orthonormal(found: Concatenated) -> None:
    size = found.left.shape[1]
    for side in (found.left, found.right):
        np.testing.assert_allclose(side.T @ side, np.eye(size), atol=1e-13)


def test_attributes_lie_side_by_side_with_nested_spans() -> None:
    parts = random_parts(np.random.default_rng(0))
    found = concatenate(parts, True, 1e-6)
    assert found.columns == {"texture": (0, 4), "lighting": (4, 7), "geometry": (7, 12)}
    assert found.dropped == 0
    np.testing.assert_array_equal(found.kept, np.arange(12))
    check_orthonormal(found)
    for count in (1, 2, 3):
        stop = found.columns[NAMES[count - 1]][1]
        for side, basis in ((1, found.left), (2, found.right)):
            angles = principal_angles(basis[:, :stop], stacked(parts[:count], side))
            np.testing.assert_allclose(angles, 0, atol=1e-13)
    np.testing.assert_allclose(found.left[:, :4], parts[0][1], atol=1e-14)  # signs too
    np.testing.assert_allclose(found.right[:, :4], parts[0][2], atol=1e-14)


def test_a_later_slice_is_what_its_attribute_adds() -> None:
    rng = np.random.default_rng(1)
    parts = random_parts(rng, sizes=(3, 3))
    found = concatenate(parts, True, 1e-6)
    first, second = parts[0][1], parts[1][1]
    added = second - first @ (first.T @ second)
    np.testing.assert_allclose(principal_angles(found.left[:, 3:], added), 0, atol=1e-13)
    assert principal_angles(found.left[:, 3:], second)[-1] > 0.05  # so it is not the attribute's own subspace


def test_plain_concatenation_keeps_columns_as_they_are() -> None:
    parts = random_parts(np.random.default_rng(2))
    found = concatenate([(name, 3 * left, right) for name, left, right in parts], False, 1e-6)
    np.testing.assert_array_equal(found.left, 3 * stacked(parts, 1))
    np.testing.assert_array_equal(found.right, stacked(parts, 2))
    doubled = concatenate([parts[0], ("lighting", *parts[0][1:])], False, 0.0)
    assert doubled.dropped == 0 and doubled.left.shape == (30, 8)
    assert concatenate([parts[0], ("lighting", *parts[0][1:])], False, 1e-6).left.shape == (30, 4)


def test_the_smallest_singular_value_says_how_close_attributes_come() -> None:
    """Two subspaces at angle θ have √(1 − cos θ); columns count at unit length, dropped ones too."""
    rng = np.random.default_rng(3)
    parts = random_parts(rng)
    found = concatenate([(name, left * 7, right) for name, left, right in parts], True, 0.9)
    assert found.dropped > 0
    for side, smallest in ((1, found.smallest_singular_out), (2, found.smallest_singular_in)):
        assert smallest == pytest.approx(np.linalg.svd(stacked(parts, side), compute_uv=False)[-1], abs=1e-13)
    two = concatenate(parts[:2], False, 0.0)
    theta = principal_angles(parts[0][1], parts[1][1])[0]
    assert two.smallest_singular_out == pytest.approx(np.sqrt(1 - np.cos(theta)), abs=1e-13)
    turn = planted.frame(30, 8, rng)
    apart = concatenate([("a", turn[:, :4], turn[:24, :4]), ("b", turn[:, 4:], turn[:24, 4:])], True, 1e-6)
    assert apart.smallest_singular_out == pytest.approx(1, abs=1e-13)


def test_a_repeated_attribute_is_dropped_whole() -> None:
    parts = random_parts(np.random.default_rng(4))
    again = ("again", parts[0][1] @ np.diag([1, -1, 1, 1]), parts[0][2])
    found = concatenate([*parts[:1], again, *parts[1:]], True, 1e-6)
    assert found.columns == {"texture": (0, 4), "again": (4, 4), "lighting": (4, 7), "geometry": (7, 12)}
    assert found.dropped == 4
    assert found.smallest_singular_out < 1e-15 * 30
    np.testing.assert_allclose(found.left, concatenate(parts, True, 1e-6).left, atol=1e-13)


def test_a_direction_leaves_both_sides_and_what_follows_is_measured_without_it() -> None:
    """Column 2 is dependent in the outputs only; the inputs of column 3 lie in its dropped partner, so 3 must stay."""
    rng = np.random.default_rng(5)
    left, right = planted.frame(10, 4, rng), planted.frame(9, 4, rng)
    left[:, 2] = (left[:, 0] + left[:, 1]) / np.sqrt(2)
    right[:, 3] = right[:, 2]
    found = concatenate([("texture", left[:, :2], right[:, :2]), ("lighting", left[:, 2:], right[:, 2:])], True, 1e-6)
    np.testing.assert_array_equal(found.kept, [0, 1, 3])
    assert found.columns == {"texture": (0, 2), "lighting": (2, 3)}
    check_orthonormal(found)
    np.testing.assert_allclose(found.left, left[:, [0, 1, 3]], atol=1e-14)
    np.testing.assert_allclose(found.right, right[:, [0, 1, 3]], atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(3, 12), n=st.integers(3, 12), sizes=st.tuples(*[st.integers(0, 4)] * 3), copies=st.integers(0, 6),
    threshold=st.sampled_from([1e-6, 0.3]), seed=st.integers(0, 999),
)  # fmt: skip
def test_kept_columns_are_those_of_a_slow_search(
    m: int, n: int, sizes: tuple[int, ...], copies: int, threshold: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    parts: Parts = [
        (name, rng.standard_normal((m, d)), rng.standard_normal((n, d))) for name, d in zip(NAMES, sizes, strict=True)
    ]
    total = sum(sizes)
    for _ in range(copies if total else 0):  # one side of a column becomes another column's
        side = int(rng.integers(1, 3))
        of, to = (parts[int(rng.choice(np.flatnonzero(sizes)))][side] for _ in range(2))
        to[:, rng.integers(to.shape[1])] = of[:, rng.integers(of.shape[1])] * 5
    found = concatenate(parts, True, threshold)
    kept = slow_kept(parts, threshold)
    np.testing.assert_array_equal(found.kept, kept)
    assert found.dropped == total - len(kept)
    check_orthonormal(found)
    for side, basis in ((1, found.left), (2, found.right)):
        np.testing.assert_allclose(
            basis @ (basis.T @ stacked(parts, side)[:, kept]), stacked(parts, side)[:, kept], atol=1e-9
        )
    ends = np.cumsum(sizes)
    for name, start, stop in zip(NAMES, [0, *ends], ends, strict=False):
        first, last = found.columns[name]
        assert last - first == sum(start <= column < stop for column in kept)


def test_no_basis_has_more_columns_than_its_space_even_without_a_threshold() -> None:
    rng = np.random.default_rng(6)
    found = concatenate(random_parts(rng, m=8, n=40, sizes=(4, 3, 5)), True, 0.0)
    assert found.left.shape == (8, 8) and found.right.shape == (40, 8)
    assert found.columns == {"texture": (0, 4), "lighting": (4, 7), "geometry": (7, 8)}
    assert (found.dropped, found.smallest_singular_out) == (4, 0.0)
    assert found.smallest_singular_in > 0.1
    check_orthonormal(found)


def test_directions_nearly_inside_stay_above_the_threshold() -> None:
    rng = np.random.default_rng(7)
    turn = planted.frame(20, 3, rng)
    near = turn[:, 1] * np.cos(1e-5) + turn[:, 2] * np.sin(1e-5)
    parts = [("texture", turn[:, :2], turn[:, :2]), ("lighting", near[:, None], near[:, None])]
    kept = concatenate(parts, True, 1e-6)
    assert kept.dropped == 0
    np.testing.assert_allclose(kept.left[:, 2], turn[:, 2], atol=1e-9)
    assert concatenate(parts, True, 1e-4).dropped == 1


def test_attributes_without_dimensions_have_empty_slices() -> None:
    parts = random_parts(np.random.default_rng(8), sizes=(0, 3, 0))
    assert concatenate(parts, True, 1e-6).columns == {"texture": (0, 0), "lighting": (0, 3), "geometry": (3, 3)}
    none = concatenate(random_parts(np.random.default_rng(8), sizes=(0, 0)), True, 1e-6)
    assert none.left.shape == (30, 0) and none.right.shape == (24, 0)
    assert (none.dropped, none.smallest_singular_out, none.smallest_singular_in) == (0, 1.0, 1.0)


def test_zero_columns_are_dependent() -> None:
    left, right = np.eye(5, 3), np.eye(6, 3)
    left[:, 1] = 0
    found = concatenate([("texture", left, right)], True, 1e-6)
    np.testing.assert_array_equal(found.kept, [0, 2])
    assert found.smallest_singular_out == 0


def test_float32_bases_are_worked_on_in_float64() -> None:
    parts = [
        (name, left.astype(np.float32), right.astype(np.float32))
        for name, left, right in random_parts(np.random.default_rng(9))
    ]
    found = concatenate(parts, True, 1e-6)
    assert found.left.dtype == found.right.dtype == np.float64
    check_orthonormal(found)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "no bases"),
        ([("a", np.eye(4, 2), np.eye(5, 2))] * 2, "attribute a is given twice"),
        ([("a", np.eye(4, 2), np.eye(5, 3))], r"a: bases of \(4, 2\) and \(5, 3\)"),
        ([("a", np.eye(4, 2), np.eye(5, 2)), ("b", np.eye(3, 2), np.eye(5, 2))], r"b: bases of \(3, 2\)"),
    ],
)
def test_what_does_not_fit_together_is_refused(parts: Parts, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        concatenate(parts, True, 1e-6)
