"""Clusters of several seeds, means that are removed before mining, and what the program says outside the sample."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import dense
from test_mine import mined, settings
from written_cluster import BLOCK, layers, random_adapter, write_adapter, write_cluster

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train import mine
from megasynth_train.subspace.analysis import layer_key
from megasynth_train.subspace.basis_file import read_basis
from megasynth_train.subspace.centre import centred
from megasynth_train.subspace.core import Update, core_coordinates
from megasynth_train.subspace.evidence import mean_cosine, reported, turns
from megasynth_train.subspace.extract import Options
from megasynth_train.subspace.held_out import held_out, same
from megasynth_train.subspace.held_out import mined as miner
from megasynth_train.subspace.updates import open_cluster

DATASETS = ("geometry_00", "geometry_01", "texture_00", "texture_01", "texture_02")
SHAPES = {name: shape for name, shape in layers().items() if "frame" in name}


def seeds(folder: Path, count: int = 2) -> list[Path]:
    """Write ``count`` clusters of the same datasets: an update is its dataset's, with something of its seed's."""
    rng = np.random.default_rng(0)
    data = {name: random_adapter(rng, SHAPES) for name in DATASETS}
    folders = [folder / f"loras_{number}" for number in range(count)]
    for out in folders:
        for name, common in data.items():
            own = random_adapter(rng, SHAPES)
            mixed = {
                m: Update(common[m].left + 0.3 * own[m].left, common[m].right + 0.3 * own[m].right) for m in SHAPES
            }
            write_adapter(out / name / "adapter", mixed)
        write_manifest(out, {name: f"content of {name}" for name in DATASETS})
    return folders


def write_manifest(cluster: Path, contents: dict[str, str]) -> None:
    entries = {name: {"attribute": name[:-3], "content_sha256": content} for name, content in contents.items()}
    record = {"format": "megasynth-attr cluster 1", "identity": {}, "adapters": entries}
    (cluster / "cluster.json").write_text(json.dumps(record))


def test_several_clusters_are_one_whose_adapters_know_their_datasets(tmp_path: Path) -> None:
    first, second = seeds(tmp_path)
    both, one = open_cluster([first, second]), open_cluster(first)
    assert both.of_attribute("geometry") == ("geometry_00", "geometry_00+1", "geometry_01", "geometry_01+1")
    assert both.datasets("geometry") == ("geometry_00", "geometry_00", "geometry_01", "geometry_01")
    assert {row.dataset == row.name for row in one.adapters} == {True}
    assert "datasets of" not in " ".join(both.notes)
    named = mine._identity(settings(first, tmp_path / "out").mining, one)["adapters"]["geometry_00"]
    assert named.keys() == {"attribute", "sha256"}  # as before there were several
    grouped = mine._identity(settings(first, tmp_path / "out").mining, both)["adapters"]["geometry_00+1"]
    assert grouped["dataset"] == "geometry_00"
    write_manifest(second, {name: "" if name == "geometry_00" else f"content {name}" for name in DATASETS})
    other = open_cluster([first, second])  # equal names are not equal data
    assert other.datasets("geometry") == ("geometry_00", "geometry_00+1", "geometry_01", "geometry_01+1")
    assert "the datasets of geometry_00+1 are not recorded" in " ".join(other.notes)


def test_an_adapter_that_left_its_cluster_still_knows_its_dataset(tmp_path: Path) -> None:
    stored = Path(__file__).parents[2] / "fixtures" / "v0_1" / "cluster"
    shutil.copytree(stored, tmp_path / "moved", ignore=lambda _, names: [n for n in names if n == "cluster.json"])
    both = open_cluster([stored, tmp_path / "moved"])
    assert both.datasets("texture") == ("texture_00", "texture_00", "texture_01", "texture_01")
    assert not any("datasets" in note for note in both.notes)


def test_clusters_that_do_not_belong_together(tmp_path: Path) -> None:
    (cluster,) = seeds(tmp_path, count=1)
    found = mine.run
    with pytest.raises(DatasetError, match=r"geometry_00 and geometry_00\+1 are the same file; leave one out"):
        found(settings(cluster, tmp_path / "out", f"cluster=[{cluster},{cluster}]"))
    (cluster / "geometry_01" / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(ConfigError, match=rf"1 of 10 adapters in {cluster} are not finished: geometry_01\+1"):
        found(settings(cluster, tmp_path / "out", f"cluster=[{seeds(tmp_path / 'b', 1)[0]},{cluster}]"))
    with pytest.raises(ConfigError, match=rf"cluster={tmp_path}/other holds no adapter of geometry; leave it out"):
        write_cluster(tmp_path / "other", attributes=["texture"])
        open_cluster([cluster, tmp_path / "other"], ["geometry"])
    with pytest.raises(ConfigError, match="lies inside cluster="):
        found(settings(cluster, cluster / "out", f"cluster=[{tmp_path},{cluster}]"))
    assert not (tmp_path / "out").exists()


def test_the_program_reports_what_the_functions_find(tmp_path: Path) -> None:
    folders = seeds(tmp_path)
    words = ",".join(str(folder) for folder in folders)
    result = mined(folders[0], tmp_path / "out", f"cluster=[{words}]", "mining.centre=grand", "mining.splits=0")
    cluster, options = open_cluster(folders), Options(tolerance=1e-6)
    module = next(name for name in cluster.modules if name.endswith("mlp.fc1"))
    rows = {(row.attribute, row.basis): row for row in result.analysis.held_out if row.layer.module == module}
    updates = cluster.updates(module)
    for attribute in cluster.attributes:
        datasets = cluster.datasets(attribute)
        core = core_coordinates([updates[name] for name in cluster.of_attribute(attribute)])
        others = np.eye(len(datasets)) == 0
        tables = {"adapter": others, "dataset": ~same(datasets), "seeds": same(datasets) & others}
        for basis, used in tables.items():
            found, row = held_out(core, used, miner(2, "irls", options)), rows[attribute, basis]
            assert row.out == pytest.approx(found.out.mean(), abs=2e-3)  # single precision, settled to 1e-6
            assert row.inner == pytest.approx(found.inner.mean(), abs=2e-3)
            assert (row.out_chance, row.inner_chance) == pytest.approx((2 / 48, 2 / 12))
            assert row.adapters == len(datasets)  # the only layer of its kind leaves out all
        assert rows[attribute, "seeds"].out > 0.5 > rows[attribute, "dataset"].out
        basis = read_basis(result.bases[attribute]).layers[module]
        mean = np.mean([dense(updates[name]) for name in cluster.of_attribute(attribute)], axis=0)
        # m_init=mean: of the updates as they are, though the grand mean was removed to find the basis
        np.testing.assert_allclose(basis.mean, basis.left.T @ mean @ basis.right, atol=1e-4)
    pair = next(row for row in result.analysis.pairs if row.layer.module == module)
    expected = mean_cosine(
        *([updates[name] for name in cluster.of_attribute(attribute)] for attribute in cluster.attributes)
    )
    assert pair.coherence == pytest.approx(expected, rel=1e-6)
    assert any("the bases of geometry and texture share these directions" in note for note in result.analysis.notes)
    assert mined(
        folders[0], tmp_path / "out", f"cluster=[{words}]", "mining.centre=grand", "mining.splits=0"
    ).already_done
    with pytest.raises(ConfigError, match=r"mining\.centre is \"grand\" there and \"none\" now"):
        mined(folders[0], tmp_path / "out", f"cluster=[{words}]", "mining.splits=0")


@pytest.mark.parametrize("centre", ["attribute", "grand"])
def test_removed_means_against_dense_matrices(centre: str) -> None:
    rng = np.random.default_rng(1)
    updates = {
        name: [random_adapter(rng, {"x": (9, 7)})["x"] for _ in range(count)] for name, count in (("a", 3), ("b", 5))
    }
    updates["b"][4] = Update(np.zeros((9, 2)), rng.standard_normal((7, 2)))
    means = {name: np.mean([dense(update) for update in of], axis=0) for name, of in updates.items()}
    found = centred({name: core_coordinates(of) for name, of in updates.items()}, centre)
    for name, of in updates.items():
        mean = means[name] if centre == "attribute" else (means["a"] + means["b"]) / 2
        core = found[name]
        for update, x in zip(of, core.cores, strict=True):
            np.testing.assert_allclose(core.left @ x @ core.right.T, dense(update) - mean, atol=1e-12)
        np.testing.assert_allclose(core.norms, [np.linalg.norm(dense(update) - mean) for update in of], rtol=1e-9)


def test_equal_updates_have_nothing_left_of_them_without_their_mean() -> None:
    update = random_adapter(np.random.default_rng(2), {"x": (9, 7)})["x"]
    assert centred({"a": core_coordinates([update] * 3)}, "attribute")["a"].room == 0


def test_means_that_cannot_be_removed_are_refused(tmp_path: Path) -> None:
    cluster = write_cluster(tmp_path / "cluster", count=1)
    with pytest.raises(ConfigError, match=r"extractor=irls looks for .* one of joint, hosvd, grassmann"):
        mined(cluster, tmp_path / "out", "mining.centre=attribute")
    with pytest.raises(ConfigError, match="geometry has one adapter, which is its mean"):
        mined(cluster, tmp_path / "out", "mining.centre=attribute", "extractor=joint")
    with pytest.raises(ConfigError, match=r"centre=grand needs two attributes"):
        mined(cluster, tmp_path / "out", "mining.centre=grand", "attributes=[texture]")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("depth", "count", "rounds"), [(24, 10, 1), (2, 7, 1), (4, 4, 3), (1, 3, 2), (24, 1, 1)])
def test_everyone_has_its_turn_in_every_kind_of_layer(depth: int, count: int, rounds: int) -> None:
    found = turns([layer_key(module) for module in layers(depth)], rounds)
    for kind in BLOCK:
        left_out = [i for module, turn in found.items() if module.endswith(kind) for i in turn.of(count)]
        times = np.bincount(left_out, minlength=count)
        assert times.min() >= min(rounds, depth) * 2 and times.max() <= 2 * depth
        assert len(left_out) <= 2 * (count * rounds + depth)
    assert all(len(set(turn.of(count))) == len(turn.of(count)) for turn in found.values())


@pytest.mark.parametrize(("depth", "most", "depths"), [(24, 4, [0, 8, 15, 23]), (3, 4, [0, 1, 2]), (5, 0, range(5))])
def test_the_report_looks_at_every_kind_of_layer_evenly_in_depth(depth: int, most: int, depths: Sequence[int]) -> None:
    keys = [layer_key(module) for module in layers(depth)]
    found = reported(keys, most)
    assert found == {key.module for key in keys if key.depth in depths}


def test_bases_do_not_depend_on_how_much_is_reported(tmp_path: Path) -> None:
    cluster = write_cluster(tmp_path / "cluster", depth=2)
    whole, few = (
        mined(cluster, tmp_path / str(most), f"mining.report_layers={most}", "dimension=2") for most in (0, 1)
    )
    modules = {row.layer.module for row in few.analysis.layers}
    sample = reported([layer_key(module) for module in modules], 1)
    assert {row.layer.module for row in whole.analysis.splits} == modules > sample
    assert few.analysis.splits == tuple(row for row in whole.analysis.splits if row.layer.module in sample)
    for one, other in zip(whole.analysis.layers, few.analysis.layers, strict=True):
        used = one.extractors if one.layer.module in sample else one.extractors[:1]
        assert other == replace(one, extractors=used)
    for attribute, path in few.bases.items():
        one, other = (read_basis(file) for file in (whole.bases[attribute], path))
        for module, layer in one.layers.items():
            for name, tensor in layer.tensors().items():
                np.testing.assert_array_equal(other.layers[module].tensors()[name], tensor)
