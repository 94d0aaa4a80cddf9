"""Methods that train M in a basis: the mined one, parts of it, and a random one of equal size for each seed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from compare_runs import settings, words, write_experiment, write_mining, write_tiny_basis

from megasynth_attr.core.errors import ConfigError, DatasetError, ExitCode, run_main
from megasynth_train.compare import __main__ as program
from megasynth_train.compare.__main__ import plan_text
from megasynth_train.compare.prepare import prepare
from megasynth_train.compare.run import compare
from megasynth_train.subspace.basis import Basis
from megasynth_train.subspace.basis_file import read_basis

LAYERS = 32  # 4 pairs of blocks of the tiny model, 4 linears each


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ray-cast datasets; not to be changed."""
    return write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as megasynth_train.mine leaves it, as far as a comparison reads it; not to be changed."""
    folder = tmp_path_factory.mktemp("mined")
    write_mining(folder, ("texture", "geometry"))
    return folder


@pytest.mark.slow
def test_mined_and_random_bases_are_compared(experiment: Path, mined: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = settings(experiment, out, "methods=[heads,subspace,random]", f"basis={mined}", "seeds=[0,1]", "steps=1")
    done = compare(given)
    assert not done.failed, [outcome.message for outcome in done.failed]
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    sizes = {row["method"]: row["parameters"] for row in rows}
    assert sizes["subspace"] == sizes["random"] and sizes["subspace"]["heads"] == sizes["heads"]["heads"]
    assert sizes["subspace"]["aggregator"] == LAYERS * 4**2
    like = read_basis(mined / "all.safetensors")
    bases = [read_basis(out / "bases" / f"random_{seed}.safetensors") for seed in (0, 1)]
    assert {(basis.record["like"], basis.record["seed"]) for basis in bases} == {(like.sha256, 0), (like.sha256, 1)}
    first, second = (basis.layers["aggregator.frame_blocks.0.attn.qkv"].left for basis in bases)
    assert not np.allclose(first, second)
    assert done.report.table.reference == "subspace"
    (out / "bases" / "random_0.safetensors").write_bytes(b"cut short")
    again = compare(given)  # what is trained is not trained again for a lost file that can be made again
    assert {outcome.status for outcome in again.outcomes} == {"done before"}
    assert read_basis(out / "bases" / "random_0.safetensors").sha256 == bases[0].sha256
    write_tiny_basis(tmp_path / "other.safetensors", seed=6)
    with pytest.raises(ConfigError, match=r"method subspace\.basis_sha256"):
        compare(settings(experiment, out, "methods=[subspace]", f"basis={tmp_path / 'other.safetensors'}", "steps=1"))


def test_parts_of_a_basis_train_less(experiment: Path, mined: Path, tmp_path: Path) -> None:
    methods = "methods=[subspace,subspace-block,only-texture,without-texture,random-without-texture,heads]"
    prepared = prepare(settings(experiment, tmp_path, methods, f"basis={mined}", "adapter.m_init=mean"))
    counts = {name: size.parameters["aggregator"] for name, size in prepared.sizes.items()}
    assert counts == {
        "subspace": LAYERS * 16, "subspace-block": LAYERS * 8, "only-texture": LAYERS * 4,
        "without-texture": LAYERS * 4, "random-without-texture": LAYERS * 4, "heads": 0,
    }  # fmt: skip
    starts = {m.name: m.adapter.m_init for m in prepared.methods if m.adapter is not None}
    assert starts["subspace"] == "mean" and starts["random-without-texture"] == starts["heads"] == "zeros"


def test_a_basis_that_does_not_fit_is_refused_before_anything_is_written(
    experiment: Path, mined: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    foreign = tmp_path / "foreign.safetensors"
    write_tiny_basis(foreign, "f" * 64)
    for word, error, message in (
        (f"basis={foreign}", ConfigError, "was mined from adapters of"),
        (f"basis={tmp_path / 'none'}", DatasetError, "does not exist"),
        ("basis=", ConfigError, "basis="),
    ):
        with pytest.raises(error, match=message):
            compare(settings(experiment, out, "methods=[subspace]", word))
    with pytest.raises(ConfigError, match="no attribute 'lighting'"):
        compare(settings(experiment, out, "methods=[without-lighting]", f"basis={mined}"))
    assert not out.exists()


def test_the_plan_counts_the_parameters_of_the_full_model(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words(
        experiment, tmp_path / "out", "model=vggt-1b", "methods=[full,lora-16,heads]", "plan=true", "steps=24000"
    )
    line = [word for word in line if not word.startswith(("adapter.head_rank", "rank", "data.width", "test.width"))]
    assert run_main(program.main, line) == ExitCode.DONE
    printed = capsys.readouterr().out.replace("\u202f", ",")
    assert "853,568,756" in printed and "16,336,192" in printed and "9 trainings of 24,000 steps" in printed


def inside(part: Basis, whole: Basis) -> float:
    """Return the smallest share of a direction of ``part`` that lies in ``whole``, over all layers and both sides."""
    shares = []
    for module, layer in part.layers.items():
        for own, others in ((layer.left, whole.layers[module].left), (layer.right, whole.layers[module].right)):
            span = np.linalg.qr(others.astype(np.float64))[0]
            shares.append(float(np.min(np.linalg.norm(span.T @ own, axis=0) ** 2)))
    return min(shares)


def test_what_is_left_out_does_not_depend_on_the_order_of_mining(experiment: Path, tmp_path: Path) -> None:
    names, found = ("texture", "geometry", "lighting"), []
    for place in range(3):
        order = (*names[1:][:place], "texture", *names[1:][place:])
        folder = tmp_path / str(place)
        folder.mkdir()
        write_mining(folder, order)
        out = tmp_path / f"out_{place}"
        prepared = prepare(
            settings(experiment, out, "methods=[without-texture,random-without-texture]", f"basis={folder}")
        )
        assert prepared.bases is not None and prepared.sizes["without-texture"].columns == 4
        assert not prepared.sizes["without-texture"].note
        left = read_basis(prepared.bases.mined_file(["geometry", "lighting"]))
        assert set(left.attributes) == {"geometry", "lighting"} and left.orthonormal
        for name in ("geometry", "lighting"):  # nothing of the others is lost
            assert inside(read_basis(folder / f"{name}.safetensors"), left) > 1 - 1e-5
        assert inside(read_basis(folder / "texture.safetensors"), left) < 0.99
        control = read_basis(prepared.bases.random_file(["geometry", "lighting"], 3))
        assert control.columns == left.columns and control.record["like"] == left.sha256
        assert {m: x.left.shape for m, x in control.layers.items()} == {m: x.left.shape for m, x in left.layers.items()}
        found.append(left)
    for other in found[1:]:
        assert inside(other, found[0]) > 1 - 1e-5 and inside(found[0], other) > 1 - 1e-5
    sliced = read_basis(tmp_path / "0" / "all.safetensors").select(["geometry", "lighting"])  # texture came first
    assert inside(read_basis(tmp_path / "0" / "geometry.safetensors"), sliced) < 0.99  # which is why it is not used


def test_a_choice_is_written_once_and_again_when_it_is_lost(
    experiment: Path, mined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (experiment, tmp_path / "out", "methods=[only-geometry]", f"basis={mined}")
    bases = prepare(settings(*words)).bases
    assert bases is not None and not (tmp_path / "out").exists()  # a plan writes nothing
    assert bases.mined_file([]) == mined / "all.safetensors"
    file = bases.mined_file(["geometry"])
    assert file == tmp_path / "out/bases/geometry.safetensors"
    before, written = file.read_bytes(), file.stat().st_mtime_ns
    bases.mined_file(["geometry"])
    assert file.stat().st_mtime_ns == written
    file.write_bytes(b"cut short")
    bases.mined_file(["geometry"])
    assert file.read_bytes() == before and "written anew" in "".join(capsys.readouterr())


def test_a_single_file_is_sliced_and_the_comparison_says_so(experiment: Path, mined: Path, tmp_path: Path) -> None:
    file = mined / "all.safetensors"
    methods = "methods=[subspace,without-texture,random-without-texture]"
    prepared = prepare(settings(experiment, tmp_path, methods, f"basis={file}"))
    assert prepared.bases is not None and prepared.bases.mined_file(["geometry"]) == file
    notes = {name: size.note for name, size in prepared.sizes.items() if size.note}
    assert list(notes) == ["without-texture"] and "single file" in notes["without-texture"]
    assert "(order: texture, geometry)" in notes["without-texture"] and notes["without-texture"] in plan_text(prepared)


@pytest.mark.parametrize("other", ["missing", "another mining", "not mined"])
def test_an_attributes_own_file_must_be_there_and_of_the_same_mining(
    experiment: Path, tmp_path: Path, other: str
) -> None:
    write_mining(tmp_path, ("texture", "geometry"))
    expected = "give the complete folder"
    if other == "missing":
        (tmp_path / "geometry.safetensors").unlink()
    elif other == "another mining":
        write_tiny_basis(tmp_path / "geometry.safetensors")
        expected = "not from the same mining run"
    else:
        write_tiny_basis(tmp_path / "all.safetensors")
        expected = "was not written by megasynth_train.mine"
    with pytest.raises(DatasetError, match=expected):
        prepare(settings(experiment, tmp_path / "out", "methods=[without-texture]", f"basis={tmp_path}"))


def test_matched_heads_train_as_many_numbers_as_the_subspace(experiment: Path, mined: Path, tmp_path: Path) -> None:
    words = ("methods=[heads-matched,mine]", "define.mine.like=heads-matched", "define.mine.lr=1e-2")
    prepared = prepare(settings(experiment, tmp_path, *words, f"basis={mined}"))
    whole = prepare(settings(experiment, tmp_path, "methods=[subspace,heads]", f"basis={mined}", "adapter.head_rank=1"))
    per_rank = whole.sizes["heads"].total
    target = prepare(settings(experiment, tmp_path, "methods=[subspace]", f"basis={mined}")).sizes["subspace"].total
    matched, mine = prepared.methods
    assert matched.adapter is not None and mine.adapter is not None and mine.optim.lr == 1e-2
    size = prepared.sizes["heads-matched"]
    assert size.parameters == {"aggregator": 0, "heads": per_rank * matched.adapter.head_rank, "encoder": 0}
    assert abs(size.total - target) <= per_rank / 2 and mine.adapter.head_rank == matched.adapter.head_rank
    for count in (size.total, target):
        assert f"{count:,}".replace(",", "\u202f") in size.note
    with pytest.raises(ConfigError, match="is computed; use like=heads"):
        words = ("methods=[mine]", "define.mine.like=heads-matched", "define.mine.adapter.head_rank=3")
        prepare(settings(experiment, tmp_path, *words, f"basis={mined}"))
    with pytest.raises(ConfigError, match="heads-matched needs a basis"):
        prepare(settings(experiment, tmp_path, "methods=[heads-matched]"))


@pytest.mark.slow
def test_a_choice_is_trained_from_its_own_file_and_notes_reach_the_report(
    experiment: Path, mined: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    methods = "methods=[heads-matched,subspace-block,without-texture,random-without-texture]"
    given = settings(experiment, out, methods, f"basis={mined}", "seeds=[0]", "steps=1", "reference=without-texture")
    done = compare(given)
    assert not done.failed, [outcome.message for outcome in done.failed]
    record = json.loads((out / "comparison.json").read_text())
    file = out / "bases" / "geometry.safetensors"
    methods_of = record["manifest"]["methods"]
    assert methods_of["without-texture"]["basis_sha256"] == read_basis(file).sha256
    assert methods_of["random-without-texture"]["basis_sha256"] == read_basis(file).sha256
    assert sorted(path.name for path in (out / "bases").glob("*.safetensors")) == [
        "geometry.safetensors", "random_0_geometry.safetensors",
    ]  # fmt: skip
    for text in ((out / name).read_text() for name in ("comparison.md", "chapter.json", "index.html")):
        assert (
            "heads-matched: LoRA of rank" in text
            and "subspace-block: the columns of all attributes are orthonormal together" in text
        )
    again = compare(given)
    assert {outcome.status for outcome in again.outcomes} == {"done before"}
