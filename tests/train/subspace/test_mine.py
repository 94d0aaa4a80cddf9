"""The whole program on small written clusters: what it finds, where it puts it, and that it finds it again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from written_cluster import ATTRIBUTES, RANK, layers, random_adapter, write_adapter, write_cluster

from megasynth_attr.core.command.program import parse
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.pages.words import short
from megasynth_train import mine
from megasynth_train.mine import MineSettings, MiningResult
from megasynth_train.subspace.analysis import read_analysis
from megasynth_train.subspace.angles import principal_angles
from megasynth_train.subspace.basis_file import read_basis
from megasynth_train.subspace.core import Update
from megasynth_train.subspace.figures import summary
from megasynth_train.subspace.figures.numbers import pair_numbers
from megasynth_train.subspace.null_angles import Chance
from megasynth_train.subspace.updates import open_cluster

DIMENSION = 2
FAST = ("dimension=2", "workers=1", "run.figures=false", "run.progress=false")


def settings(cluster: Path, out: Path, *words: str) -> MineSettings:
    given = {word.partition("=")[0]: word for word in (*FAST, f"cluster={cluster}", f"out={out}", *words)}
    return parse(MineSettings, list(given.values()), mine.HELP)


def mined(cluster: Path, out: Path, *words: str) -> MiningResult:
    return mine.run(settings(cluster, out, *words))


def contents(out: Path) -> dict[str, bytes]:
    """Return what is in a folder, without what differs from run to run."""
    found = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.suffix == ".safetensors"}
    analysis = replace(read_analysis(out), seconds=0.0)
    return found | {"analysis": repr(analysis).encode()}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two attributes of four adapters that share subspaces of RANK dimensions; not to be changed."""
    return write_cluster(tmp_path_factory.mktemp("clusters") / "cluster")


@pytest.fixture(scope="module")
def whole(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> MiningResult:
    """Mined in one go; not to be changed."""
    return mined(cluster, tmp_path_factory.mktemp("subspaces") / "out")


def test_files_and_rows(whole: MiningResult, cluster: Path) -> None:
    names = {path.name for path in whole.out.iterdir()}
    files = {"geometry.safetensors", "texture.safetensors", "all.safetensors", "analysis.json", "settings.json"}
    assert names == files | {"done.json", ".lock"}  # nothing of the work is left
    assert not whole.already_done and whole.report is None
    assert whole.bases == {name: whole.out / f"{name}.safetensors" for name in ATTRIBUTES}
    analysis, modules = whole.analysis, sorted(layers())
    assert analysis == read_analysis(whole.out)
    assert analysis.attributes == ATTRIBUTES and len(analysis.adapters) == 8
    assert [(row.layer.module, row.attribute) for row in analysis.layers] == [
        (m, a) for m in modules for a in ATTRIBUTES
    ]
    assert [(row.layer.module, row.first, row.second) for row in analysis.pairs] == [(m, *ATTRIBUTES) for m in modules]
    assert len(analysis.splits) == len(modules) * 2 * 3  # two draws, two attributes and their pair
    assert [row.layer.module for row in analysis.concatenation] == modules
    for row in analysis.layers:
        assert (row.outputs, row.inputs) == layers()[row.layer.module]
        assert [found.extractor for found in row.extractors] == ["irls", "joint", "svd", "hosvd", "grassmann"]
        assert len(row.spectrum) == len(row.null_upper) == min(row.outputs, row.inputs, 4 * RANK)
        assert row.dimension == DIMENSION
    record = json.loads((whole.out / "settings.json").read_text())
    assert record["settings"]["mining"]["dimension"] == DIMENSION and record["settings"]["cluster"] == [str(cluster)]


def test_it_finds_the_planted_subspaces(whole: MiningResult, cluster: Path) -> None:
    found = open_cluster(cluster)
    for attribute in ATTRIBUTES:
        basis = read_basis(whole.bases[attribute])
        for module in found.modules:
            update = found.updates(module)[f"{attribute}_00"]
            for side, truth in ((basis.layers[module].left, update.left), (basis.layers[module].right, update.right)):
                assert np.degrees(principal_angles(side, truth)).max() < 1e-3  # float32 files
    for row in whole.analysis.layers:
        assert row.extractors[0].energy_inside == pytest.approx([1.0] * 4, abs=1e-9)
    for split in whole.analysis.splits:
        if split.first == split.second:
            assert max(split.angles_out_deg + split.angles_in_deg) < 1e-3
        else:
            assert min(split.angles_out_deg + split.angles_in_deg) > 1


def test_the_basis_of_all_against_dense_matrices(whole: MiningResult, cluster: Path) -> None:
    found, basis = open_cluster(cluster), read_basis(whole.concatenated)
    assert basis.attributes == ATTRIBUTES and basis.orthonormal
    single = read_basis(whole.bases["geometry"])
    for module, layer in basis.layers.items():
        assert basis.columns[module] == {"geometry": (0, 2), "texture": (2, 4)}
        np.testing.assert_allclose(layer.left[:, :2], single.layers[module].left, atol=1e-6)
        updates = found.updates(module)
        expected = np.zeros((4, 4))
        for name, (start, end) in basis.columns[module].items():
            dense = np.mean([u.left @ u.right.T for key, u in updates.items() if key.startswith(name)], axis=0)
            expected[start:end, start:end] = layer.left[:, start:end].T @ dense @ layer.right[:, start:end]
        np.testing.assert_allclose(layer.mean, expected, atol=1e-5)
    assert basis.record["extractor"] == "irls" and len(basis.record["adapters"]) == 8
    assert basis.record["ranks"][module] == {"geometry": 2, "texture": 2}
    assert str(cluster) not in str(basis.record)  # where the adapters lay is no property of the basis


def test_pairs_against_dense_matrices(whole: MiningResult, cluster: Path) -> None:
    found = open_cluster(cluster)
    bases = {name: read_basis(path) for name, path in whole.bases.items()}
    for row in whole.analysis.pairs:
        one, other = (bases[name].layers[row.layer.module] for name in ATTRIBUTES)
        shares = []
        for name, update in found.updates(row.layer.module).items():
            dense = update.left @ update.right.T
            if name.startswith("geometry"):
                shares.append(np.linalg.norm(other.left.T @ dense @ other.right) ** 2 / np.linalg.norm(dense) ** 2)
        assert row.energy_first_in_second == pytest.approx(np.mean(shares), rel=1e-4)
        cosines = np.linalg.svd(one.left.T @ other.left, compute_uv=False)
        np.testing.assert_allclose(np.cos(np.radians(row.angles_out_deg)), cosines, atol=1e-5)
        assert all(small <= large for small, large in pairwise(row.angles_in_deg))


def test_a_second_call_finds_everything_done(whole: MiningResult, cluster: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.out.iterdir()}
    again = mined(cluster, whole.out, "workers=2")
    assert again.already_done and again.analysis == whole.analysis
    assert {path: path.stat().st_mtime_ns for path in whole.out.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_results_do_not_depend_on_the_number_of_processes(
    whole: MiningResult, cluster: Path, tmp_path: Path, workers: int
) -> None:
    mined(cluster, tmp_path / "out", f"workers={workers}")
    assert contents(tmp_path / "out") == contents(whole.out)


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (("dimension=1",), "mining.dimension is 2 there and 1 now"),
        (("attributes=[texture]",), "adapters.geometry_00 is present there and absent now"),
        (("mining.seed=3",), "mining.seed is 0 there and 3 now"),
        (("modules=.*qkv",), "attn.proj is present there and absent now"),
    ],
)
def test_other_settings_change_nothing(
    whole: MiningResult, cluster: Path, words: tuple[str, ...], difference: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.out.iterdir()}
    with pytest.raises(ConfigError, match="choose another out=") as raised:
        mined(cluster, whole.out, *words)
    assert difference in str(raised.value)
    assert {path: path.stat().st_mtime_ns for path in whole.out.iterdir()} == before


def test_another_adapter_changes_nothing(whole: MiningResult, cluster: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(cluster, tmp_path / "cluster"))
    shutil.rmtree(changed / "texture_03")
    write_adapter(changed / "texture_03", random_adapter(np.random.default_rng(9), layers()))
    with pytest.raises(ConfigError, match=r"adapters\.texture_03\.sha256"):
        mined(changed, whole.out)


def test_a_result_that_is_damaged_or_missing_is_named(whole: MiningResult, cluster: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole.out, tmp_path / "out"))
    file = out / "texture.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DatasetError, match=r"texture\.safetensors is damaged.*remove .*done\.json"):
        mined(cluster, out)
    file.unlink()
    with pytest.raises(DatasetError, match=r"texture\.safetensors is missing"):
        mined(cluster, out)
    (out / "done.json").unlink()  # as the message says
    mined(cluster, out)
    assert contents(out) == contents(whole.out)


def test_layers_that_got_fewer_dimensions_than_asked_are_counted(
    whole: MiningResult, cluster: Path, tmp_path: Path
) -> None:
    def notes(result: MiningResult) -> list[str]:
        return [note for note in result.analysis.notes if note.startswith("dimension=")]

    assert notes(whole) == []
    many = mined(cluster, tmp_path / "many", "modules=.*frame_blocks.*", "dimension=3")  # planted: RANK directions
    assert len(notes(many)) == 1 and "4 of 4 layers have fewer dimensions for some attribute (2)" in notes(many)[0]
    assert {row.dimension for row in many.analysis.layers} == {RANK}


def test_nothing_stays_of_an_unfinished_run_with_other_attributes(
    whole: MiningResult, cluster: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole.out, tmp_path / "out"))
    (out / "done.json").unlink()  # all but finished
    (out / "report").mkdir()
    for name in ("report/index.html", "chapter.json", "notes.txt", "my.safetensors"):
        (out / name).write_text("of the run before, or the user's own")
    mined(cluster, out)  # the same again: what it does not write itself may stay
    assert (out / "report").exists() and (out / "geometry.safetensors").exists()
    (out / "done.json").unlink()
    result = mined(cluster, out, "attributes=[texture]")
    assert not result.already_done and result.analysis.attributes == ("texture",)
    assert {path.name for path in out.iterdir()} == {
        *("texture.safetensors", "all.safetensors", "analysis.json", "settings.json", "done.json", ".lock"),
        *("notes.txt", "my.safetensors"),
    }


@pytest.mark.slow
def test_allocations_end_in_basis_files(cluster: Path, tmp_path: Path) -> None:
    results = {
        name: mined(cluster, tmp_path / name, f"allocation={name}") for name in ("floor", "proportional", "null")
    }
    for name, result in results.items():
        for attribute, path in result.bases.items():
            basis = read_basis(path)
            rows = [row for row in result.analysis.layers if row.attribute == attribute]
            assert {row.layer.module: basis.dimension(row.layer.module) for row in rows} == {
                row.layer.module: row.dimension for row in rows
            }, name
            assert all(bool(row.extractors) == bool(row.dimension) for row in rows)
        assert "Attribute" in summary(result.analysis)
    floor = [row.dimension for row in results["floor"].analysis.layers]
    assert 0 in floor and max(floor) > 0
    empty = [row for row in results["floor"].analysis.pairs if not row.angles_out_deg]
    assert empty and all(None in (row.energy_first_in_second, row.energy_second_in_first) for row in empty)
    proportional = [row.dimension for row in results["proportional"].analysis.layers]
    assert sum(proportional) == DIMENSION * len(proportional)
    for row in results["null"].analysis.layers:
        assert row.dimension == row.significant_normalised


@pytest.mark.slow
def test_ranks_of_the_base_weights(cluster: Path, tmp_path: Path) -> None:
    words = ("allocation=floor", "mining.allocate_from=base", "modules=.*frame_blocks.*")
    with pytest.raises(ConfigError, match="allocate_from=base needs the base model"):
        mined(cluster, tmp_path / "out", *words)
    result = mined(cluster, tmp_path / "out", *words, "model=vggt-tiny")
    ranks = {row.layer.module: row.effective_rank for row in result.analysis.layers}
    assert len(set(ranks.values())) == 4 and all(rank > 10 for rank in ranks.values())  # dense random weights
    updates = mined(cluster, tmp_path / "updates", "allocation=floor", "modules=.*frame_blocks.*")
    assert all(row.effective_rank <= 4 * RANK for row in updates.analysis.layers)


def test_one_adapter_zero_updates_and_more_dimensions_than_there_are(tmp_path: Path) -> None:
    cluster, rng = tmp_path / "cluster", np.random.default_rng(1)
    moved, still = "aggregator.frame_blocks.0.attn.proj", "aggregator.frame_blocks.1.attn.proj"
    shapes = {moved: (5, 7), still: (5, 7)}
    write_adapter(cluster / "single_00", random_adapter(rng, shapes))
    for number in range(3):
        other = random_adapter(rng, shapes)
        zero = [still] if number else [moved, still]
        for module in zero:
            other[module] = Update(np.zeros_like(other[module].left), other[module].right)
        write_adapter(cluster / f"half_{number:02d}", other)
    result = mined(cluster, tmp_path / "out", "dimension=100", "attributes=[single,half]")
    rows = {(row.layer.module, row.attribute): row for row in result.analysis.layers}
    single, half, nothing = rows[moved, "single"], rows[moved, "half"], rows[still, "half"]
    assert single.dimension == RANK and half.dimension == 2 * RANK  # as many as the updates that moved have
    assert single.coherence == ((1.0,),) and single.significant == 0
    assert half.norms[0] == half.extractors[0].energy_inside[0] == 0.0
    assert nothing.norms == (0.0,) * 3 and nothing.dimension == 0 and not nothing.extractors
    assert still not in read_basis(result.bases["half"]).layers
    assert {(row.first, row.second) for row in result.analysis.splits} == {("half", "half")}  # one cannot be halved
    pairs = {row.layer.module: row for row in result.analysis.pairs}
    assert pairs[still].energy_first_in_second is None and pairs[still].energy_second_in_first is None
    assert "1 of 2" in summary(result.analysis) and read_analysis(result.out) == result.analysis
    (pair,) = pair_numbers(result.analysis, Chance())
    assert len(pair.layers) == 1 and pair.of_layers == 2
    energies = (pairs[moved].energy_first_in_second, pairs[moved].energy_second_in_first)
    assert pair.layers[0].energy == pytest.approx(np.mean(energies))  # no made-up 0 of the layer that did not move
    assert f"×{short(pair.layers[0].energy_ratio)}" in summary(result.analysis)
    assert any("half_00 left the base model unchanged" in note for note in result.analysis.notes)
    (note,) = (note for note in result.analysis.notes if note.startswith("dimension=100"))
    assert "2 of 2 layers have fewer dimensions for some attribute (0 to 2)" in note and note in summary(
        result.analysis
    )
    assert read_basis(result.concatenated).dimension(moved) <= 5


def test_a_setting_that_is_new_does_not_invalidate_what_is_done(
    whole: MiningResult, cluster: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole.out, tmp_path / "out"))
    done = json.loads((out / "done.json").read_text())
    del done["identity"]["mining"]["drop_below"]  # as if it had been unknown then
    (out / "done.json").write_text(json.dumps(done))
    assert mined(cluster, out).already_done
    with pytest.raises(ConfigError, match=r"mining\.drop_below is 1e-06 there and 0\.5 now"):
        mined(cluster, out, "mining.drop_below=0.5")


def test_only_files_of_mining_are_removed(whole: MiningResult, cluster: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole.out, tmp_path / "out"))
    own = out / "layers" / f"{sorted(layers())[0]}.safetensors"  # killed between done.json and the end
    theirs = [out / "layers" / "mine.txt", out / "tmp" / "draft.txt", out / "layers" / "tmp" / "a" / "b"]
    for file in (own, *theirs):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("years of work")
    assert mined(cluster, out).already_done
    assert not own.exists() and all(file.exists() for file in theirs)
    (out / "done.json").unlink()
    mined(cluster, out, "dimension=1")  # begins anew
    assert {path.name for path in (out / "layers").iterdir()} == {"mine.txt", "tmp"}
    assert all(file.exists() for file in theirs)


@pytest.mark.slow
def test_figures_may_come_later(whole: MiningResult, cluster: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole.out, tmp_path / "out"))
    result = mined(cluster, out, "run.figures=true")
    assert result.already_done and result.report == out / "report" / "index.html"
    assert result.report.is_file() and (out / "chapter.json").is_file()
    drawn = result.report.stat().st_mtime_ns
    assert mined(cluster, out, "run.figures=true").report == result.report
    assert result.report.stat().st_mtime_ns == drawn
