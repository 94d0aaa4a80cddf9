"""A basis comes back bit for bit or is refused by name; its hash is that of its content; selections and random ones."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from small_bases import EMPTY, LAYERS, small_basis

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_train.subspace.basis import Basis, random_basis
from megasynth_train.subspace.basis_file import METADATA, read_basis, write_basis

QKV = next(iter(LAYERS))


def replaced(basis: Basis, module: str, **arrays: np.ndarray | None) -> Basis:
    """Return ``basis`` with other arrays in one layer."""
    layers = {**basis.layers, module: dataclasses.replace(basis.layers[module], **arrays)}
    return dataclasses.replace(basis, layers=layers)


def assert_equal(first: Basis, second: Basis) -> None:
    assert first.layers.keys() == second.layers.keys()
    for module, layer in first.layers.items():
        other = second.layers[module].tensors()
        assert layer.tensors().keys() == other.keys()
        for name, array in layer.tensors().items():
            assert array.dtype == other[name].dtype == np.float32
            np.testing.assert_array_equal(array, other[name])
    assert (first.attributes, dict(first.base)) == (second.attributes, dict(second.base))
    assert first.columns == second.columns and first.sha256 == second.sha256


@pytest.mark.parametrize("orthonormal", [True, False])
@pytest.mark.parametrize("mean", [True, False])
def test_what_is_written_is_read(orthonormal: bool, mean: bool, tmp_path: Path) -> None:
    basis = small_basis(orthonormal=orthonormal, mean=mean)
    write_basis(tmp_path / "new" / "b.safetensors", basis)
    found = read_basis(tmp_path / "new" / "b.safetensors")
    assert_equal(found, basis)
    assert found.record == basis.record and found.orthonormal is orthonormal
    assert list(found.columns[QKV]) == ["texture", "geometry"]  # not as JSON sorts them
    assert found.dimension(QKV) == 5 and found.dimension(EMPTY) == 0 and found.record["ranks"][EMPTY] == {}


def test_equal_bases_are_equal_files(tmp_path: Path) -> None:
    basis = small_basis()
    turned = dataclasses.replace(basis, layers=dict(reversed(basis.layers.items())))
    strided = replaced(basis, QKV, left=np.asfortranarray(basis.layers[QKV].left))
    for name, one in (("a", basis), ("b", turned), ("c", strided)):
        write_basis(tmp_path / name, one)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    basis = small_basis()
    nudged = basis.layers[QKV].left.copy()
    nudged[3, 2] = np.nextafter(nudged[3, 2], 1, dtype=np.float32)
    others = [
        replaced(basis, QKV, left=nudged),
        replaced(basis, QKV, right=-basis.layers[QKV].right),
        replaced(basis, QKV, scales=basis.layers[QKV].scales * 2),
        replaced(basis, QKV, mean=None),
        dataclasses.replace(basis, columns={**basis.columns, QKV: {"texture": (0, 3), "geometry": (3, 5)}}),
    ]
    assert len({basis.sha256, *(other.sha256 for other in others)}) == 6
    assert dataclasses.replace(basis, record={}, base={}).sha256 == basis.sha256


@pytest.mark.parametrize("orthonormal", [True, False])
def test_a_selection_is_the_columns_of_its_attributes(orthonormal: bool, tmp_path: Path) -> None:
    basis = small_basis(orthonormal=orthonormal)
    texture, geometry = basis.select(["texture"]), basis.select(["geometry"])
    assert texture.attributes == ("texture",) and set(texture.layers) == set(LAYERS) - {
        "aggregator.global_blocks.0.mlp.fc2"
    }
    assert set(geometry.layers) == set(LAYERS)
    for name, part in (("texture", texture), ("geometry", geometry)):
        for module, layer in part.layers.items():
            start, end = basis.columns[module][name]
            whole = basis.layers[module]
            assert whole.mean is not None and layer.mean is not None
            np.testing.assert_array_equal(layer.left, whole.left[:, start:end])
            np.testing.assert_array_equal(layer.right, whole.right[:, start:end])
            np.testing.assert_array_equal(layer.scales, whole.scales[start:end])
            np.testing.assert_array_equal(layer.mean, whole.mean[start:end, start:end])
            assert part.columns[module] == {name: (0, end - start)}
    assert basis.select(["geometry", "texture"]) is basis
    assert basis.select(["texture"]).select(["texture"]).sha256 == texture.sha256 != basis.sha256
    assert texture.record["ranks"][QKV] == {"texture": 2} and texture.record["selected_from"] == basis.sha256
    write_basis(tmp_path / "t", texture)
    assert_equal(read_basis(tmp_path / "t"), texture)


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no attribute textur \(did you mean texture\?\); it has texture, geometry"):
        small_basis().select(["textur"])
    with pytest.raises(ConfigError, match="at least one attribute"):
        small_basis().select([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": ("texture", "texture")}, "different names"),
        ({"attributes": ("geometry", "texture")}, "has columns of texture, geometry"),
        ({"columns": {}}, "columns are given for 0 layers"),
    ],
)
def test_what_does_not_go_together_is_no_basis(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small_basis(), **change)


@pytest.mark.parametrize("columns", [{"texture": (0, 2)}, {"texture": (0, 2), "geometry": (3, 5)}, {"texture": (0, 6)}])
def test_columns_divide_the_layer(columns: dict[str, tuple[int, int]]) -> None:
    basis = small_basis()
    with pytest.raises(ValueError, match=r"do not divide 0\.\.5"):
        dataclasses.replace(basis, columns={**basis.columns, QKV: columns})


def test_arrays_that_do_not_fit_are_no_layer() -> None:
    basis = small_basis()
    layer = basis.layers[QKV]
    for arrays in (
        {"right": layer.right[:, :4]},
        {"scales": layer.scales[:4]},
        {"mean": np.ones((5, 4), np.float32)},
        {"left": layer.left.astype(np.float64)},
        {"left": layer.left[:, 0]},
    ):
        with pytest.raises(ValueError, match=r"attn\.qkv\.[ABS]|attn\.qkv\.mean"):
            replaced(basis, QKV, **arrays)


def test_columns_that_are_not_orthonormal_are_not_written(tmp_path: Path) -> None:
    basis = small_basis()
    left = basis.layers[QKV].left.copy()
    left[:, 4] = left[:, 0]
    with pytest.raises(ValueError, match=r"columns 0 to 4 of aggregator.frame_blocks.0.attn.qkv.A are not orthonormal"):
        write_basis(tmp_path / "b", replaced(basis, QKV, left=left))
    within = dataclasses.replace(basis, record={**basis.record, "orthonormal": False})
    write_basis(tmp_path / "b", replaced(within, QKV, left=left))  # each attribute's own columns are orthonormal
    right = basis.layers[QKV].right.copy()
    right[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"attn.qkv holds NaN"):
        write_basis(tmp_path / "b", replaced(basis, QKV, right=right))
    assert_equal(read_basis(tmp_path / "b"), replaced(within, QKV, left=left))


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 0.999), data=st.data())
def test_no_truncated_or_altered_file_is_read(share: float, data: st.DataObject, tmp_path_factory: object) -> None:
    folder: Path = tmp_path_factory.mktemp("damage")  # type: ignore[attr-defined]
    write_basis(folder / "b", small_basis())
    content = (folder / "b").read_bytes()
    (folder / "short").write_bytes(content[: int(share * len(content))])
    with pytest.raises(DatasetError, match="short"):
        read_basis(folder / "short")
    header = 8 + int.from_bytes(content[:8], "little")
    altered = bytearray(content)
    altered[data.draw(st.integers(header, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "altered").write_bytes(altered)
    with pytest.raises(DatasetError, match=r"altered.*(checksum|NaN)"):
        read_basis(folder / "altered")


def _metadata(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    tensors = load_file(file)
    text = json.loads(_text(file))
    change(text)
    save_file(tensors, file, {METADATA: json.dumps(text)})


def _text(file: Path) -> str:
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return str(header["__metadata__"][METADATA])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.update(format="megasynth-attr basis 9"), "expected format 'megasynth-attr basis 1'"),
        (lambda text: text.pop("columns"), "its metadata: field 'columns' is missing"),
        (
            lambda text: text["columns"].update({QKV: {"texture": [0, 1e308]}}),
            r"columns.*: expected int, found 1e\+308",
        ),
        (lambda text: text.update(base=[]), "base: expected a table"),
        (lambda text: text.update(record=3), "record: expected a table"),
        (lambda text: text["record"].update(ranks=["texture"]), "its record: ranks: expected a table"),
        (lambda text: text["record"].update(ranks={QKV: {"texture": "two"}}), "expected int, found 'two'"),
        (lambda text: text.update(attributes=[["texture"]]), r"attributes\[0\]: expected str"),
        (lambda text: text.update(columns={}), "columns are given for 0 layers"),
        (lambda text: text.update(attributes=["geometry", "texture"]), "do not divide"),
        (lambda text: text.update(attributes=["texture"]), "has columns of"),
        (lambda text: text["columns"].update({QKV: 3}), "is damaged"),
        (lambda text: text.pop("sha256"), "checksum"),
    ],
)
def test_damaged_metadata_is_named(change: Callable[[dict[str, object]], object], message: str, tmp_path: Path) -> None:
    file = tmp_path / "b.safetensors"
    write_basis(file, small_basis())
    _metadata(file, change)
    with pytest.raises(DatasetError, match=message) as caught:
        read_basis(file)
    assert str(file) in str(caught.value)


def test_other_files_are_no_bases(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"does not exist; name a basis file"):
        read_basis(tmp_path / "missing")
    with pytest.raises(DatasetError, match="is a folder"):
        read_basis(tmp_path)
    save_file({"frame_blocks.attn.qkv.0.A": np.ones((2, 3), np.float32)}, tmp_path / "paper")
    with pytest.raises(DatasetError, match=r"is not a basis of this project.*from_paper="):
        read_basis(tmp_path / "paper")
    (tmp_path / "text").write_text("attributes: texture")
    with pytest.raises(DatasetError, match="cut short or something else"):
        read_basis(tmp_path / "text")
    write_basis(tmp_path / "b", small_basis())
    half = {name: array.astype(np.float16) for name, array in load_file(tmp_path / "b").items()}
    save_file(half, tmp_path / "half", {METADATA: _text(tmp_path / "b")})
    with pytest.raises(DatasetError, match="is F16, expected F32"):
        read_basis(tmp_path / "half")
    more = {**load_file(tmp_path / "b"), f"{QKV}.C": np.ones(3, np.float32)}
    save_file(more, tmp_path / "more", {METADATA: _text(tmp_path / "b")})
    with pytest.raises(DatasetError, match=r"attn.qkv.C is not a tensor of a basis"):
        read_basis(tmp_path / "more")


def write_again_and_again(file: Path) -> None:
    """Be a process that writes two bases in turn until it is killed."""
    bases = [small_basis(0), small_basis(1)]
    while True:
        for basis in bases:
            write_basis(file, basis)


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "b.safetensors"
    expected = {small_basis(0).sha256, small_basis(1).sha256}
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["megasynth_train.subspace.basis_file"])
    for delay in (0.0, 0.005, 0.013, 0.031):
        process = processes.Process(target=write_again_and_again, args=(file,))
        process.start()
        while not file.exists():
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.join()
        assert read_basis(file).sha256 in expected
        file.unlink()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "b.safetensors"
    old = small_basis(0)
    write_basis(file, old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(EnvironmentProblem, match=r"the basis cannot be written to .*b\.safetensors.*limit"):
            write_basis(file, small_basis(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_basis(file).sha256 == old.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"]


@pytest.mark.parametrize("orthonormal", [True, False])
def test_a_random_basis_has_the_shapes_of_the_other(orthonormal: bool, tmp_path: Path) -> None:
    like = small_basis(orthonormal=orthonormal)
    made = random_basis(like, seed=3)
    assert made.columns == like.columns and made.attributes == like.attributes and made.base == like.base
    assert made.orthonormal is orthonormal and made.record["like"] == like.sha256 and made.record["seed"] == 3
    for module, layer in made.layers.items():
        assert (
            layer.left.shape == like.layers[module].left.shape and layer.right.shape == like.layers[module].right.shape
        )
        assert layer.mean is None and (layer.scales == 1).all()
        gram = layer.left.T.astype(np.float64) @ layer.left
        for start, end in made.blocks(module):
            np.testing.assert_allclose(gram[start:end, start:end], np.eye(end - start), atol=1e-6)
        if len(made.blocks(module)) > 1:
            assert np.abs(gram[:2, 2:]).max() > 1e-3  # frames of two attributes are independent
    write_basis(tmp_path / "r", made)
    assert_equal(read_basis(tmp_path / "r"), made)


def test_random_frames_depend_on_seed_and_layer_name_only() -> None:
    like = small_basis()
    assert random_basis(like, 3).sha256 == random_basis(small_basis(9), 3).sha256 != random_basis(like, 4).sha256
    fewer = small_basis(layers={QKV: LAYERS[QKV]})
    np.testing.assert_array_equal(random_basis(fewer, 3).layers[QKV].left, random_basis(like, 3).layers[QKV].left)
    twins = {f"aggregator.frame_blocks.{i}.attn.qkv": LAYERS[QKV] for i in range(2)}
    first, second = random_basis(small_basis(layers=twins), 3).layers.values()
    assert np.abs(first.left.T @ second.left).max() < 0.999
    assert not np.array_equal(first.left, first.right)


def test_random_attributes_may_have_more_columns_than_there_are_outputs() -> None:
    like = small_basis(orthonormal=False, layers={"aggregator.x": ((4, 5), {"texture": 3, "geometry": 3})})
    layer = random_basis(like, 0).layers["aggregator.x"]
    for start in (0, 3):
        part = layer.left[:, start : start + 3].astype(np.float64)
        np.testing.assert_allclose(part.T @ part, np.eye(3), atol=1e-6)


def test_random_frames_are_haar_distributed() -> None:
    """E[A Aᵀ] = D/m · 1 and no entry has a preferred sign; QR with positive diagonal of R alone would prefer one."""
    widths = {"texture": 2, "geometry": 1}
    many = {f"aggregator.frame_blocks.{i}.attn.qkv": ((6, 5), widths) for i in range(600)}
    lefts = np.stack([layer.left for layer in random_basis(small_basis(layers=many), 1).layers.values()])
    error = 4 / np.sqrt(600)
    assert np.abs(np.mean(lefts @ lefts.transpose(0, 2, 1), axis=0) - np.eye(6) * 3 / 6).max() < error
    assert np.abs(lefts.mean(axis=0)).max() < error
