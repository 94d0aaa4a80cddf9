"""The released code's file of predefined spaces, read and written; its arithmetic with what was read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_bases import LAYERS, small_basis

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.subspace.basis_file import read_basis, write_basis
from megasynth_train.subspace.paper_scheme import export_paper, import_paper

FIXTURE = load_file(Path(__file__).parents[2] / "fixtures" / "adapter.safetensors")
QKV = "aggregator.global_blocks.17.attn.qkv"


def write(path: Path, **changes: np.ndarray | None) -> Path:
    """Write the fixture's basis under the released code's keys; a change of None leaves a key out."""
    tensors = {
        "global_blocks.attn.qkv.17.A": FIXTURE["A_in_basis"],
        "global_blocks.attn.qkv.17.B": FIXTURE["B_out_basis"],
        **{name.replace("__", "."): array for name, array in changes.items()},
    }
    save_file({name: np.require(array, requirements="C") for name, array in tensors.items() if array is not None}, path)
    return path


def test_an_imported_basis_has_the_papers_arithmetic(tmp_path: Path) -> None:
    """y = x Wᵀ + b + s · x Aᵀ Mᵀ Bᵀ (its A and B) = x (W + s · A M Bᵀ)ᵀ + b (ours), against outputs stored with it."""
    layer = import_paper(write(tmp_path / "space")).layers[QKV]
    assert layer.left.shape == (96, 6) and layer.right.shape == (32, 6) and (layer.scales == 1).all()
    update = FIXTURE["scaling"] * layer.left @ FIXTURE["M"] @ layer.right.T
    y = FIXTURE["x"] @ (FIXTURE["W"] + update).T + FIXTURE["bias"]
    np.testing.assert_allclose(y, FIXTURE["y"], rtol=1e-5, atol=1e-5)
    without = FIXTURE["x"] @ FIXTURE["W"].T + FIXTURE["bias"]
    assert np.abs(without - FIXTURE["y"]).max() > 0.1


@pytest.mark.parametrize("orthonormal", [True, False])
def test_what_is_exported_is_imported(orthonormal: bool, tmp_path: Path) -> None:
    basis = small_basis(orthonormal=orthonormal)
    export_paper(basis, tmp_path / "space")
    tensors = load_file(tmp_path / "space")
    assert set(tensors) == {
        f"{stem}.{side}"
        for stem in ("frame_blocks.attn.qkv.0", "global_blocks.mlp.fc2.0", "global_blocks.attn.proj.11")
        for side in "AB"
    }
    assert tensors["frame_blocks.attn.qkv.0.A"].shape == (5, 7) and tensors["frame_blocks.attn.qkv.0.B"].shape == (
        18,
        5,
    )
    if not orthonormal:
        with pytest.raises(DatasetError, match=r"is not orthonormal; orthonormalise=true"):
            import_paper(tmp_path / "space")
        return
    again = import_paper(tmp_path / "space", base={"weights_sha256": "c" * 64})
    assert again.layers.keys() == basis.layers.keys() and again.attributes == ("all",)
    assert again.base == {"weights_sha256": "c" * 64}
    for module, layer in basis.layers.items():
        np.testing.assert_array_equal(again.layers[module].left, layer.left)
        np.testing.assert_array_equal(again.layers[module].right, layer.right)
        assert again.columns[module] == {"all": (0, layer.dimension)}
    write_basis(tmp_path / "b", again)
    export_paper(read_basis(tmp_path / "b"), tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == (tmp_path / "space").read_bytes()


def test_columns_become_attributes_in_equal_parts(tmp_path: Path) -> None:
    basis = import_paper(write(tmp_path / "space"), attributes=("texture", "lighting", "camera"))
    assert basis.columns[QKV] == {"texture": (0, 2), "lighting": (2, 4), "camera": (4, 6)}
    np.testing.assert_array_equal(basis.select(["lighting"]).layers[QKV].left, FIXTURE["B_out_basis"][:, 2:4])
    with pytest.raises(ConfigError, match=r"the 6 columns of .* cannot be divided equally among 4 attributes"):
        import_paper(tmp_path / "space", attributes=("a", "b", "c", "d"))


def test_orthonormalising_keeps_the_span(tmp_path: Path) -> None:
    mixing = np.random.default_rng(0).standard_normal((6, 6))
    crooked = (FIXTURE["B_out_basis"] @ mixing).astype(np.float32)
    layer = import_paper(
        write(tmp_path / "space", global_blocks__attn__qkv__17__B=crooked), orthonormalise=True
    ).layers[QKV]
    np.testing.assert_allclose(layer.left.T @ layer.left, np.eye(6), atol=1e-5)
    projected = layer.left @ (layer.left.T @ FIXTURE["B_out_basis"])
    np.testing.assert_allclose(projected, FIXTURE["B_out_basis"], atol=1e-5)
    np.testing.assert_array_equal(layer.right, FIXTURE["A_in_basis"].T)  # was orthonormal, stays as it is
    crooked[:, 3] = crooked[:, 0]
    with pytest.raises(DatasetError, match="linearly dependent"):
        import_paper(write(tmp_path / "space", global_blocks__attn__qkv__17__B=crooked), orthonormalise=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"decoder__attn__qkv__17__A": np.ones((2, 3), np.float32)},
            r"decoder\.attn\.qkv\.17\.A is of Pi3, not of a VGGT",
        ),
        ({"global_blocks__attn__qkv__17__C": np.ones(3, np.float32)}, r"17\.C is not in the paper's scheme"),
        ({"global_blocks__attn__qkv__17__B": None}, "has only A; both A and B are needed"),
        ({"global_blocks__attn__qkv__17__B": FIXTURE["B_out_basis"][:, :5]}, r"A \(6, 32\) and B \(96, 5\)"),
        (
            {"global_blocks__attn__qkv__17__B": FIXTURE["B_out_basis"] * np.nan},
            "holds NaN or infinite numbers; download the file",
        ),
        ({"global_blocks__attn__qkv__17__A": FIXTURE["A_in_basis"][0]}, r"A \(32,\) and B"),
        ({"global_blocks__attn__qkv__17__A": np.float32(3)}, r"A \(\) and B \(96, 6\)"),
        ({"global_blocks__attn__qkv__17__B": np.float32(3)}, r"A \(6, 32\) and B \(\)"),
        ({"global_blocks__attn__qkv__17__A": None, "global_blocks__attn__qkv__17__B": None}, "holds no tensors"),
    ],
)
def test_files_that_are_no_such_space_are_refused(changes: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        import_paper(write(tmp_path / "space", **changes))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "space").read_bytes()
    (tmp_path / "space").write_bytes(content[:-1])
    with pytest.raises(DatasetError, match="cannot be read as safetensors"):
        import_paper(tmp_path / "space")
    with pytest.raises(DatasetError, match="does not exist"):
        import_paper(tmp_path / "none")


def test_layers_without_a_name_there_are_refused(tmp_path: Path) -> None:
    basis = small_basis(layers={**LAYERS, "camera_head.trunk.0.mlp.fc1": ((6, 6), {"texture": 1})})
    with pytest.raises(ConfigError, match=r"camera_head\.trunk\.0\.mlp\.fc1 has no name in the paper's scheme"):
        export_paper(basis, tmp_path / "space")
    assert not (tmp_path / "space").exists()
