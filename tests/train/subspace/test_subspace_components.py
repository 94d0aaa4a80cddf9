"""Components of variance are those that were planted, and datasets, not adapters, are exchanged."""

import numpy as np
import pytest

from megasynth_train.subspace.components import PARTS, dataset_means, variance_components
from megasynth_train.subspace.sharing import label_test

SHARES = {"common": 0.1, "attribute": 0.15, "dataset": 0.2, "seed": 0.05, "own": 0.5}
LABELS = [(a, f"{a}_{d}", s) for a in "abcd" for d in range(6) for s in range(3)]


def planted(shares, rng, size=2000):
    """Return the inner products of unit vectors whose parts have these squared lengths, and their labels."""
    parts = {}

    def part(name, label):
        return parts.setdefault((name, label), rng.standard_normal(size) / np.sqrt(size)) * np.sqrt(shares[name])

    vectors = [
        part("common", "")
        + part("attribute", attribute)
        + part("dataset", dataset)
        + part("seed", seed)
        + part("own", (dataset, seed))
        for attribute, dataset, seed in LABELS
    ]
    vectors = np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T, *zip(*LABELS, strict=True)


def test_planted_components_are_recovered_and_add_up_to_one():
    found = variance_components(*planted(SHARES, np.random.default_rng(0)))
    assert found.values == pytest.approx(SHARES, abs=0.02)
    assert sum(found.values.values()) == pytest.approx(1)


def test_parts_that_share_nothing_are_exactly_zero_and_exact_overlaps_have_no_error():
    attributes, datasets, seeds = map(np.array, zip(*LABELS, strict=True))
    exact = 0.1 + 0.3 * (attributes[:, None] == attributes) + 0.2 * (datasets[:, None] == datasets)
    found = variance_components(np.where(np.eye(len(LABELS)), 1.0, exact), attributes, datasets, seeds)
    assert found.values == pytest.approx({"common": 0.1, "attribute": 0.3, "dataset": 0.2, "seed": 0, "own": 0.4})
    assert found.errors == pytest.approx(dict.fromkeys(SHARES, 0), abs=1e-12)


def test_the_error_is_that_of_other_datasets():
    rng = np.random.default_rng(1)
    runs = [variance_components(*planted(SHARES, rng, size=60)) for _ in range(15)]
    for part in ("attribute", "dataset"):
        spread = np.std([run.values[part] for run in runs], ddof=1)
        assert np.mean([run.errors[part] for run in runs]) == pytest.approx(spread, rel=0.5)


def test_what_one_seed_cannot_tell_apart_is_not_a_number():
    matrix, attributes, datasets, seeds = planted(SHARES, np.random.default_rng(2))
    one = np.array(seeds) == 0
    labels = (np.array(of)[one] for of in (attributes, datasets, seeds))
    found = variance_components(matrix[np.ix_(one, one)], *labels)
    assert {part for part in PARTS if np.isnan(found.values[part])} == {"dataset", "seed"}
    assert found.values["attribute"] == pytest.approx(SHARES["attribute"], abs=0.03)


def test_dataset_means_are_those_of_a_double_loop():
    rng = np.random.default_rng(3)
    matrix, datasets = rng.random((5, 5)), ["x", "y", "x", "z", "y"]
    means, names = dataset_means(matrix, datasets)
    assert names == ["x", "y", "z"]
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            cells = [(a, b) for a in range(5) for b in range(5) if (datasets[a], datasets[b]) == (one, other)]
            values = [matrix[a, b] for a, b in cells if a != b]
            np.testing.assert_equal(means[i, j], np.mean(values) if values else np.nan)


def test_p_values_of_datasets_without_an_effect_are_uniform_and_those_of_adapters_are_not():
    rng = np.random.default_rng(4)
    shares = SHARES | {"attribute": 0.0, "dataset": 0.35}
    of_datasets, of_adapters = [], []
    for run in range(100):
        matrix, attributes, datasets, _ = planted(shares, rng, size=60)
        means, names = dataset_means(matrix, datasets)
        of_datasets.append(label_test(means, [name[0] for name in names], 100, rng).p_value)
        if run < 10:
            of_adapters.append(label_test(matrix, attributes, 100, rng).p_value)
    assert np.mean(np.array(of_datasets) <= 0.1) == pytest.approx(0.1, abs=0.08)
    assert np.mean(of_datasets) == pytest.approx(0.5, abs=0.08)
    assert np.mean(np.array(of_adapters) <= 0.1) > 0.9  # seeds of a dataset stay together in its attribute
