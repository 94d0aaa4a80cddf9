"""``python -m megasynth_train.basis``: what it prints, writes and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file
from small_bases import small_basis

from megasynth_attr.core.errors import ConfigError, DatasetError, run_main
from megasynth_train.adapters.subspace.opening import check_base
from megasynth_train.basis import main
from megasynth_train.subspace.basis import random_basis
from megasynth_train.subspace.basis_file import read_basis, write_basis
from megasynth_train.subspace.paper_scheme import export_paper
from megasynth_train.training.base_model import base_model
from megasynth_train.training.settings import ModelSettings
from megasynth_train.vggt.checkpoint import weights_hash


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a small basis."""
    write_basis(tmp_path / "all.safetensors", small_basis())
    return tmp_path / "all.safetensors"


def test_show(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([f"show={file}"])
    text = capsys.readouterr().out
    for part in (
        "texture, geometry",
        "3, 1 more have no dimensions",
        "irls",
        "vggt-tiny",
        "a" * 64,
        small_basis().sha256,
    ):
        assert part in text
    assert "51 parameters" in text  # 5² + 1² + 5²
    lines = [line.split() for line in text.splitlines()]
    assert ["attention", "kind", "layers", "outputs", "inputs", "D", "texture", "geometry"] in lines
    assert ["frame", "qkv", "1", "18", "7", "5", "2", "3"] in lines
    assert ["global", "fc2", "1", "9", "12", "1", "0", "1"] in lines


def test_random_select_and_the_way_to_the_paper_and_back(file: Path, tmp_path: Path) -> None:
    main([f"random={file}", "seed=7", f"out={tmp_path / 'random'}"])
    assert read_basis(tmp_path / "random").sha256 == random_basis(small_basis(), 7).sha256
    main([f"select={file}", "attributes=geometry", f"out={tmp_path / 'g'}"])
    assert read_basis(tmp_path / "g").sha256 == small_basis().select(["geometry"]).sha256
    main([f"to_paper={file}", f"out={tmp_path / 'space'}"])
    assert load_file(tmp_path / "space")["global_blocks.mlp.fc2.0.A"].shape == (1, 12)
    main([f"from_paper={tmp_path / 'space'}", f"out={tmp_path / 'again'}"])
    assert not (tmp_path / "tmp").exists()  # where files were written
    again = read_basis(tmp_path / "again")
    assert again.attributes == ("all",) and again.layers.keys() == small_basis().layers.keys()


def test_a_basis_of_the_paper_is_bound_to_the_model_named_and_the_user_is_told_if_to_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model=vggt-tiny", "model.seed=5"]
    model = base_model(ModelSettings(size="vggt-tiny", seed=5), [])
    module = "aggregator.global_blocks.0.attn.qkv"
    outputs, inputs = model.get_submodule(module).weight.shape
    fitting = small_basis(layers={module: ((outputs, inputs), {"texture": 2})}, attributes=("texture",))
    export_paper(fitting, tmp_path / "space")
    main([f"from_paper={tmp_path / 'space'}", f"out={tmp_path / 'free'}"])
    assert "free is not bound to a base model" in capsys.readouterr().err
    assert read_basis(tmp_path / "free").base == {}
    main([f"from_paper={tmp_path / 'space'}", f"out={tmp_path / 'bound'}", *words])
    assert capsys.readouterr().err == ""
    bound = read_basis(tmp_path / "bound")
    assert bound.base["size"] == "vggt-tiny" and bound.base["weights_sha256"] == weights_hash(model)
    check_base(bound, weights_hash(model), "b")
    with pytest.raises(ConfigError, match="b was mined from adapters of vggt-tiny"):
        check_base(bound, "0" * 64, "b")
    export_paper(small_basis(), tmp_path / "foreign")
    with pytest.raises(ConfigError, match="it is for another model"):
        main([f"from_paper={tmp_path / 'foreign'}", f"out={tmp_path / 'none'}", *words])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no action is given: give exactly one of show="),
        (["show=FILE", "random=FILE"], "show and random are given"),
        (["show=FILE", "out=x"], "out= does not apply to show=, only to from_paper, random, select, to_paper"),
        (["random=FILE", "attributes=texture", "out=x"], "attributes= does not apply to random="),
        (["select=FILE", "seed=1", "out=x"], "seed= does not apply to select="),
        (["random=FILE", "model=vggt-tiny", "out=x"], "model= does not apply to random="),
        (["random=FILE"], "out= is missing"),
        (["select=FILE", "out=NEW"], "choose at least one attribute"),
        (["select=FILE", "attributes=textures", "out=NEW"], "did you mean texture"),
        (["to_paper=FILE", "out=FILE"], "exists already; name another, or remove it"),
        (["shw=FILE"], "did you mean show"),
    ],
)
def test_wrong_words_are_explained_and_nothing_is_written(words: list[str], message: str, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=message):
        main([word.replace("FILE", str(file)).replace("NEW", str(file.parent / "new")) for word in words])
    assert file.read_bytes() == before and not (file.parent / "new").exists()


def test_an_attribute_without_dimensions_is_not_selected(tmp_path: Path) -> None:
    file, out = tmp_path / "all", tmp_path / "none"
    write_basis(file, small_basis(layers={"aggregator.frame_blocks.0.attn.qkv": ((6, 6), {"texture": 2})}))
    with pytest.raises(ConfigError, match="geometry has no dimensions in any layer of"):
        main([f"select={file}", "attributes=geometry", f"out={out}"])
    assert not out.exists()


def test_a_damaged_file_is_an_input_error(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DatasetError):
        main([f"show={file}"])
    assert run_main(main, [f"show={file}"]) == 2
    assert capsys.readouterr().err.startswith("DatasetError: ")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "from_paper=" in text and "examples:" in text and "usage: python -m megasynth_train.basis" in text
