"""Pairwise overlaps against dense projections, and a label test that finds what is there and nothing else."""

import numpy as np
import pytest
from planted import dense, frame, random_update, random_updates, zero_update

from megasynth_train.subspace.core import Update, core_coordinates
from megasynth_train.subspace.sharing import label_test, overlaps


def projection(matrix, rank):
    left = np.linalg.svd(matrix)[0][:, :rank]
    return left @ left.T


def test_overlaps_are_those_of_dense_projections():
    rng = np.random.default_rng(0)
    updates = [random_update(30, 20, rank, rng) for rank in (2, 3, 3)] + [zero_update(30, 20, 2, rng)]
    found = overlaps(core_coordinates(updates), 30, 20)
    matrices = [dense(update) for update in updates]
    for i, rank_i in enumerate((2, 3, 3)):
        for j, rank_j in enumerate((2, 3, 3)):
            small = min(rank_i, rank_j)
            out = np.trace(projection(matrices[i], rank_i) @ projection(matrices[j], rank_j)) / small
            inner = np.trace(projection(matrices[i].T, rank_i) @ projection(matrices[j].T, rank_j)) / small
            np.testing.assert_allclose([found.out[i, j], found.inner[i, j]], [out, inner], atol=1e-12)
    assert not found.out[3].any() and not found.coherence[3].any()
    np.testing.assert_allclose(found.out_chance[0, 1], 3 / 30)
    np.testing.assert_allclose(found.inner_chance[1, 2], 3 / 20)


def test_random_adapters_overlap_as_much_as_chance_says():
    rng = np.random.default_rng(1)
    found = overlaps(core_coordinates(random_updates(40, 64, 48, 4, rng)), 64, 48)
    pairs = np.triu_indices(40, 1)
    assert found.out[pairs].mean() == pytest.approx(4 / 64, rel=0.05)
    assert found.inner[pairs].mean() == pytest.approx(4 / 48, rel=0.05)


def test_the_label_test_is_the_count_of_all_relabellings():
    rng = np.random.default_rng(2)
    matrix = rng.random((4, 4))
    matrix = matrix + matrix.T
    # a and b twice each: three distinct ways to pair four adapters
    pairings = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    scores = [np.mean([matrix[p] for p in pairs]) for pairs in pairings]
    expected = np.mean([score >= scores[0] - 1e-12 for score in scores])
    result = label_test(matrix, ["a", "a", "b", "b"], 6000, rng)
    assert result.within == pytest.approx(scores[0])
    assert result.p_value == pytest.approx(expected, abs=0.03)


def test_false_alarms_are_as_rare_as_they_claim():
    rng = np.random.default_rng(3)
    labels = ["a"] * 4 + ["b"] * 4
    values = []
    for _ in range(150):
        found = overlaps(core_coordinates(random_updates(8, 24, 24, 2, rng)), 24, 24)
        values.append(label_test(found.out, labels, 100, rng).p_value)
    assert np.mean(np.array(values) <= 0.1) == pytest.approx(0.1, abs=0.07)


def test_a_shared_column_space_is_found_on_its_side_alone():
    rng = np.random.default_rng(4)
    updates = []
    for _ in range(2):
        shared = frame(40, 2, rng)
        updates += [Update(np.hstack([shared, frame(40, 2, rng)]), rng.standard_normal((30, 4))) for _ in range(5)]
    found = overlaps(core_coordinates(updates), 40, 30)
    labels = ["a"] * 5 + ["b"] * 5
    assert label_test(found.out, labels, 1000, rng).p_value < 0.02
    assert label_test(found.inner, labels, 1000, rng).p_value > 0.02


@pytest.mark.parametrize("labels", [["a", "a"], ["a", "b"]])
def test_labels_that_allow_no_comparison_are_refused(labels):
    with pytest.raises(ValueError, match="two labels"):
        label_test(np.eye(2), labels, 10, np.random.default_rng(0))
