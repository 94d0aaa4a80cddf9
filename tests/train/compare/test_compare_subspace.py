"""Methods that train M in a basis: the mined one, parts of it, and a random one of equal size for each seed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from compare_runs import settings, words, write_experiment, write_tiny_basis

from megasynth_attr.errors import ConfigError, DatasetError, ExitCode, run_main
from megasynth_train.compare import __main__ as program
from megasynth_train.compare.run import compare
from megasynth_train.compare.trainings import prepare
from megasynth_train.subspace.basis_file import read_basis

LAYERS = 32  # 4 pairs of blocks of the tiny model, 4 linears each


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ray-cast datasets; not to be changed."""
    return write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as megasynth_train.mine leaves it, as far as a comparison reads it."""
    folder = tmp_path_factory.mktemp("mined")
    write_tiny_basis(folder / "all.safetensors")
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
    with pytest.raises(ConfigError, match="method subspace: basis_sha256"):
        compare(settings(experiment, out, "methods=[subspace]", f"basis={tmp_path / 'other.safetensors'}", "steps=1"))


def test_parts_of_a_basis_train_less(experiment: Path, mined: Path, tmp_path: Path) -> None:
    methods = "methods=[subspace,subspace-block,only-texture,without-texture,random-without-texture,heads]"
    prepared = prepare(settings(experiment, tmp_path, methods, f"basis={mined}", "adapter.m_init=mean"))
    counts = {name: parts["aggregator"] for name, parts in prepared.parameters.items()}
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
