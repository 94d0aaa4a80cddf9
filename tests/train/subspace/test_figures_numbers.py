"""The numbers behind the figures: against the definitions, against random subspaces, and at the edges."""

from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
from synthetic_analysis import make_analysis, tiny

from megasynth_train.subspace.figures.evidence import ALIKE, alike_numbers
from megasynth_train.subspace.figures.layout import file_stem, places, quantiles
from megasynth_train.subspace.figures.numbers import attribute_numbers, pair_numbers, split_numbers
from megasynth_train.subspace.figures.spectra import over_chance
from megasynth_train.subspace.figures.tables import adapter_numbers, kind_numbers, write_tables
from megasynth_train.subspace.figures.words import findings, what_was_mined
from megasynth_train.subspace.null_angles import Chance


@pytest.fixture(scope="module")
def unrelated():
    """Two attributes whose bases are random subspaces."""
    return make_analysis(("a", "b"), depth=6, width=96, adapters=4, rank=4, dimension=8, within=0.0)


@pytest.fixture(scope="module")
def related():
    """Half of the directions in common."""
    return make_analysis(("a", "b"), depth=6, width=96, adapters=4, rank=4, dimension=8, within=0.6, shared=0.5)


def closer_share(pair):
    """The share of layers and sides whose λ_min is below the chance median; by chance 0.5."""
    return np.mean([r < 1 for layer in pair.layers for r in (layer.lambda_out_ratio, layer.lambda_in_ratio)])


def test_random_bases_are_as_close_as_chance(unrelated):
    (pair,) = pair_numbers(unrelated, Chance())
    assert len(pair.layers) == 2 * 6 * 4
    for field in ("lambda_out_ratio", "lambda_in_ratio"):
        assert pair.over_layers(field).median == pytest.approx(1, abs=0.05)
    assert pair.over_layers("energy_ratio").median == pytest.approx(1, abs=0.1)
    assert pair.over_layers("joint").median == pytest.approx(pair.over_layers("joint_chance").median, rel=0.15)
    assert 0.3 < closer_share(pair) < 0.7
    for numbers in split_numbers(unrelated):
        assert numbers.out.median == pytest.approx(numbers.out_chance.median, rel=0.3)


def test_shared_directions_are_seen(related):
    (pair,) = pair_numbers(related, Chance())
    assert pair.over_layers("lambda_out_ratio").high < 0.25
    assert pair.over_layers("joint").low > 0.7 > pair.over_layers("joint_chance").high
    assert closer_share(pair) == 1
    row, layer = related.pairs[0], next(x for x in pair.layers if x.layer == related.pairs[0].layer)
    assert layer.lambda_out == pytest.approx(1 - np.cos(np.radians(row.angles_out_deg[0])), rel=1e-12)
    assert layer.joint == pytest.approx(
        np.cos(np.radians(row.angles_out_deg[0])) * np.cos(np.radians(row.angles_in_deg[0]))
    )


def test_chance_depends_on_the_sizes_only():
    one, other = Chance(), Chance()
    other.angles(500, 7, 9)  # what was drawn before does not matter
    assert np.array_equal(one.angles(60, 4, 6), other.angles(60, 6, 4))
    assert one.angles(60, 4, 6).shape == (100, 4)
    assert one.smallest(60, 40, 40) == 0  # they must intersect


def test_bases_that_fill_the_space_are_no_finding():
    analysis = make_analysis(("a", "b"), depth=1, width=8, adapters=2, rank=8, dimension=8)
    (pair,) = pair_numbers(analysis, Chance())
    assert {layer.lambda_in_ratio for layer in pair.layers if layer.layer.kind == "qkv"} == {1.0}


def test_coherence_and_its_chance():
    analysis = tiny()
    first = attribute_numbers(analysis)[0]
    rows = [row for row in analysis.layers if row.attribute == first.name]
    off = [np.asarray(row.coherence)[~np.eye(3, dtype=bool)].mean() for row in rows]
    assert first.coherence.median == pytest.approx(np.median(off))
    # ⟨dW, U dW' Vᵀ⟩ of random rotations has this standard deviation
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 6, 5))
    turned = [
        np.linalg.qr(rng.standard_normal((6, 6)))[0] @ y @ np.linalg.qr(rng.standard_normal((5, 5)))[0]
        for _ in range(3000)
    ]
    cos = [np.sum(x * t) / np.linalg.norm(x) / np.linalg.norm(t) for t in turned]
    assert np.std(cos) == pytest.approx((6 * 5) ** -0.5, rel=0.06)
    assert first.coherence_chance == pytest.approx(np.median([(r.outputs * r.inputs) ** -0.5 for r in rows]))


def test_zero_updates_have_no_cosine():
    analysis = tiny()
    row = analysis.layers[0]
    cosines = np.asarray(row.coherence) * np.outer([0, 1, 1], [0, 1, 1])
    row = dataclasses.replace(row, norms=(0.0, *row.norms[1:]), coherence=tuple(map(tuple, cosines.tolist())))
    found = alike_numbers(dataclasses.replace(analysis, layers=(row,)))
    assert found[ALIKE[1]][row.attribute].median == pytest.approx(cosines[1, 2])


def test_zero_dimensions_and_missing_layers_are_left_out():
    analysis = tiny()
    layers = list(analysis.layers)
    layers[0] = dataclasses.replace(layers[0], dimension=0)
    pairs = list(analysis.pairs)
    pairs[0] = dataclasses.replace(pairs[0], angles_out_deg=(), angles_in_deg=())
    changed = dataclasses.replace(analysis, layers=tuple(layers[:-1]), pairs=tuple(pairs[:-1]))
    (pair,) = pair_numbers(changed, Chance())
    assert len(pair.layers) == len(analysis.pairs) - 2
    assert [n.without for n in attribute_numbers(changed)] == [1, 0]


def test_places_keep_the_models_order_and_unknown_kinds():
    analysis = tiny(kinds=("fc2", "other_name", "qkv"))
    place = places(analysis)
    assert place.kinds == ("qkv", "fc2", "other_name")
    assert place.attentions == ("frame", "global")
    grid = place.grid((row.layer, row.layer.depth) for row in analysis.layers)
    assert grid.shape == (6, 2) and np.array_equal(grid, np.tile([0.0, 1.0], (6, 1)))
    assert np.isnan(place.grid([])).all()


def test_spectrum_over_chance_leaves_rounding_out():
    row = tiny().layers[0]
    row = dataclasses.replace(row, spectrum=(3.0, 1.0, 1e-17), null_upper=(1.5, 2.0, 1e-18))
    assert over_chance(row)[:2].tolist() == [2.0, 0.5]
    assert np.isnan(over_chance(row)[2])


def test_words_never_claim_what_one_adapter_cannot_show():
    analysis = make_analysis(("a", "b"), depth=1, width=48, adapters=1, rank=4, dimension=4)
    numbers = attribute_numbers(analysis)
    texts = findings(numbers, pair_numbers(analysis, Chance()), split_numbers(analysis))
    assert texts[0] == "A single adapter does not show what adapters share: every attribute has only one."
    assert not any("cosine" in text or "halves" in text for text in texts)
    assert what_was_mined(analysis, numbers) == "2 adapters of 2 attributes (1 each), mined in 8 layers."


def test_words_say_when_halves_find_nothing():
    analysis = tiny()  # halves of one attribute share directions, of two do not
    for silent in (True, False):
        splits = split_numbers(analysis)
        same = [n for n in splits if n.same]
        assert [n.name for n in same] == ["texture", "geometry"] and splits[-1].name == "texture – geometry"
        if not silent:  # cross halves exactly as close as those of one attribute
            splits = tuple(dataclasses.replace(n, out=same[0].out, inner=same[0].inner) for n in splits)
        text = " ".join(findings(attribute_numbers(analysis), (), splits))
        assert ("show no distinct subspaces" in text) != silent


def test_numbers_of_a_sample_of_layers_say_of_which():
    analysis = tiny()
    assert {n.energy_layers for n in attribute_numbers(analysis)} == {n.layers for n in split_numbers(analysis)}
    sample = analysis.layers[0].layer.module
    few = dataclasses.replace(
        analysis,
        layers=tuple(
            row if row.layer.module == sample else dataclasses.replace(row, extractors=row.extractors[:1])
            for row in analysis.layers
        ),
        splits=tuple(row for row in analysis.splits if row.layer.module == sample),
    )
    total = len({row.layer.module for row in analysis.layers})
    for before, after in zip(attribute_numbers(analysis), attribute_numbers(few), strict=True):
        assert (before.energy_layers, after.energy_layers) == (f"{total} layers", f"1 of {total} layers")
        assert after.basis_energy == before.basis_energy == before.energy["irls"]
        assert after.energy.keys() == before.energy.keys()
        assert {q.count for q in after.energy.values()} == {after.adapters}  # the same layers for all extractors
    assert f"In 1 of {total} layers, bases from two halves" in " ".join(findings((), (), split_numbers(few)))


def test_tables_hold_every_layer_and_pair(tmp_path):
    analysis = tiny()
    pairs, splits = pair_numbers(analysis, Chance()), split_numbers(analysis)
    names = [name for name, _ in write_tables(analysis, pairs, splits, tmp_path)]
    assert names == ["layers.csv", "pairs.csv", "halves.csv", "held_out.csv"]
    tables = {name: list(csv.DictReader((tmp_path / name).open(encoding="utf-8"))) for name in names}
    assert len(tables["layers.csv"]) == len(analysis.layers)
    assert len(tables["pairs.csv"]) == len(analysis.pairs)
    assert len(tables["held_out.csv"]) == len(analysis.held_out)
    assert float(tables["held_out.csv"][1]["out"]) == analysis.held_out[1].out
    assert float(tables["pairs.csv"][3]["lambda_out"]) == pairs[0].layers[3].lambda_out
    assert float(tables["layers.csv"][0]["effective_rank"]) == analysis.layers[0].effective_rank


def test_adapters_and_kinds():
    analysis = tiny()
    adapters = adapter_numbers(analysis)
    assert [a.number for a in adapters] == [1, 2, 3, 1, 2, 3]
    own = [row for row in analysis.layers if row.attribute == "geometry"]
    assert adapters[4].norm.median == pytest.approx(np.median([row.norms[1] for row in own]))
    kinds = kind_numbers(analysis, places(analysis).rows)
    assert sum(k.layers for k in kinds) == len(analysis.layers)
    assert {k.sizes for k in kinds if k.kind == "fc1"} == {"192 × 48"}


def test_small_helpers():
    assert quantiles([]).median is None
    assert quantiles([2.0]).low == 2.0
    assert file_stem("a/../b$", "", "ü") == "a-b_x_x"
