"""The parts of the program one by one: halves, names of layers, files of layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from safetensors.numpy import save
from written_cluster import random_adapter

from megasynth_attr.core.errors import DatasetError
from megasynth_train.subspace.analysis import LayerKey, layer_key
from megasynth_train.subspace.evidence import Turn
from megasynth_train.subspace.half_splits import draw_halves
from megasynth_train.subspace.layer_file import METADATA, is_whole, layer_file, read_layer_basis, read_rows, write_layer
from megasynth_train.subspace.mine_layer import LayerTask, MinedLayer, mine_layer
from megasynth_train.subspace.settings import MiningSettings
from megasynth_train.subspace.spectrum import FrameBank

MODULE = "aggregator.frame_blocks.3.attn.qkv"


@limits(max_examples=20, deadline=None)
@given(count=st.integers(0, 15), splits=st.integers(0, 4), seed=st.integers(0, 99))
def test_halves_are_disjoint_equal_and_their_own(count: int, splits: int, seed: int) -> None:
    texture = [f"{number}" for number in range(count)]
    halves = draw_halves({"texture": texture, "other": "abc"}, splits, seed)
    assert ("texture" in halves) == (count >= 2)
    for first, second in halves.get("texture", ()):
        assert len(first) == len(second) == count // 2
        assert not set(first) & set(second) and set(first) | set(second) <= set(range(count))
    assert draw_halves({"texture": texture}, splits, seed).get("texture") == halves.get("texture")
    assert len(halves["other"]) == splits


def test_halves_differ_between_draws_and_attributes() -> None:
    halves = draw_halves(dict.fromkeys("ab", "abcdefghijklmnopqrst"), 3, 0)
    assert len({draw for draws in halves.values() for draw in draws}) == 6
    assert halves["a"][0] == ((0, 2, 7, 8, 9, 10, 12, 13, 15, 19), (1, 3, 4, 5, 6, 11, 14, 16, 17, 18))  # as in 0.1.0


def test_seeds_of_one_dataset_are_in_the_same_half() -> None:
    halves = draw_halves({"a": "xxyyz", "alone": "xx"}, 20, 0)
    assert halves.keys() == {"a"}
    groups = {"x": (0, 1), "y": (2, 3), "z": (4,)}
    drawn = {frozenset(part) for draw in halves["a"] for part in draw}
    assert drawn == {frozenset(group) for group in groups.values()}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (MODULE, ("frame", "qkv", 3)),
        ("aggregator.global_blocks.23.mlp.fc1", ("global", "fc1", 23)),
        ("model.aggregator.global_blocks.0.attn.proj", ("global", "proj", 0)),
        ("aggregator.global_blocks.7.ls1", ("global", "ls1", 7)),
        ("camera_head.trunk.2.attn.qkv", ("other", "qkv", 2)),
        ("depth_head.norm", ("other", "norm", 0)),
        ("head", ("other", "head", 0)),
    ],
)
def test_layer_keys(module: str, expected: tuple[str, str, int]) -> None:
    assert layer_key(module) == LayerKey(module, *expected)


def small_layer(dimension: int = 2) -> MinedLayer:
    rng, settings = np.random.default_rng(0), MiningSettings(null_draws=3)
    updates = {name: [random_adapter(rng, {MODULE: (9, 6)})[MODULE] for _ in range(4)] for name in ("a", "b")}
    halves, datasets = draw_halves(dict.fromkeys("ab", "wxyz"), 1, 0), dict.fromkeys("ab", tuple("wxyz"))
    task = LayerTask(settings, {"a": dimension, "b": dimension}, halves, datasets, Turn())
    return mine_layer(MODULE, updates, task, FrameBank(settings.null_draws, 0))


def test_a_layer_file_gives_back_what_was_written(tmp_path: Path) -> None:
    mined, path = small_layer(), layer_file(tmp_path, MODULE)
    assert not is_whole(path)
    write_layer(path, mined)
    assert is_whole(path) and read_rows(path) == mined.rows
    for name, basis in mined.bases.items():
        stored = read_layer_basis(path, name)
        assert stored is not None
        for part, array in basis.tensors().items():
            np.testing.assert_array_equal(stored.tensors()[part], array)
    assert read_layer_basis(path, "c") is None
    for metadata in (None, {}, {METADATA: "[" * 10**5}, {METADATA: "7"}):
        path.write_bytes(save({"a/left": np.zeros((2, 2))}, metadata))
        assert not is_whole(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_whole(path)
    with pytest.raises(DatasetError, match="run the same command again"):
        read_rows(path)


def test_more_columns_than_there_are_inputs_are_dropped() -> None:
    mined = small_layer(dimension=5)
    assert [row.dimension for row in mined.rows.layers] == [5, 5]
    assert mined.rows.concatenation.dimension == 6 and mined.rows.concatenation.dropped == 4
    assert mined.rows.columns == {"a": (0, 5), "b": (5, 6)}
    assert mined.rows.concatenation.smallest_singular_in == 0
    left = mined.bases["all"].left
    np.testing.assert_allclose(left.T @ left, np.eye(6), atol=1e-5)


def test_a_layer_without_dimensions_has_rows_and_no_basis() -> None:
    mined = small_layer(dimension=0)
    assert not mined.bases and mined.rows.columns == {}
    assert all(row.extractors == () and row.spectrum for row in mined.rows.layers)
    assert mined.rows.pairs[0].angles_out_deg == () and mined.rows.splits[0].angles_in_deg == ()
