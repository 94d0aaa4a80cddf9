"""Clusters and adapters that cannot be mined are refused, and what is wrong with them is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from stored_adapters import (
    QKV,
    edit_config,
    edit_record,
    edit_tensors,
    store,
    write_manifest,
)

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.subspace.peft_updates import WEIGHTS
from megasynth_train.subspace.updates import open_cluster


def test_numbers_that_are_no_floating_point_are_refused(pair: Path) -> None:
    name = f"base_model.model.{QKV}.lora_A.weight"
    edit_tensors(pair / "texture_01" / "adapter", lambda tensors: tensors | {name: tensors[name].astype(np.int8)})
    cluster = open_cluster(pair)
    with pytest.raises(DatasetError, match=r"qkv\.lora_A\.weight holds numbers of type I8"):
        cluster.updates(QKV)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model-00001-of-00002.safetensors"])
def test_weights_that_mining_cannot_read_are_named(adapters: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(adapters / "lora_00", tmp_path / "texture_00")
    (tmp_path / "texture_00" / "adapter.json").unlink()
    (tmp_path / "texture_00" / WEIGHTS).rename(tmp_path / "texture_00" / name)
    with pytest.raises(ConfigError, match=rf"holds its weights as {name}; .* save it again with save_pretrained"):
        open_cluster(tmp_path)


def test_an_empty_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="lists no adapters"):
        open_cluster(write_manifest(tmp_path / "c", {}))
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(
            ConfigError, match=r"holds no adapters: give the folder of python -m megasynth_train\.cluster"
        ):
            open_cluster(folder)


def test_unfinished_adapters_are_named_unless_they_are_not_wanted(pair: Path) -> None:
    write_manifest(pair, {"texture_00": "texture", "texture_01": "texture", "geometry_00": "geometry"})
    with pytest.raises(
        ConfigError, match=r"1 of 3 adapters in .* are not finished: geometry_00; run the same python -m"
    ):
        open_cluster(pair)
    assert len(open_cluster(pair, ["texture"]).adapters) == 2
    with pytest.raises(
        ConfigError, match=r"attributes=textur: .* \(did you mean texture\?\); it has geometry, texture"
    ):
        open_cluster(pair, ["textur"])


def test_a_name_that_tells_no_attribute_is_refused(adapters: Path, tmp_path: Path) -> None:
    shutil.copytree(adapters / "lora_00", tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"mine does not name its attribute; rename it <attribute>_<number>"):
        open_cluster(tmp_path)


def test_other_base_models_are_refused(pair: Path) -> None:
    edit_record(pair / "texture_01" / "adapter", base={"size": "", "config": {}, "weights_sha256": "b" * 64})
    with pytest.raises(
        DatasetError, match=rf"texture_01 was trained from a model with weights {'b' * 64}, texture_00 from"
    ):
        open_cluster(pair)


def test_other_base_names_of_peft_are_refused(pair: Path) -> None:
    for name, base in (("texture_00", "one"), ("texture_01", "other")):
        (pair / name / "adapter" / "adapter.json").unlink()
        edit_config(pair / name / "adapter", base_model_name_or_path=base)
    with pytest.raises(
        DatasetError, match=r"from base_model_name_or_path=other, texture_00 from base_model_name_or_path=o"
    ):
        open_cluster(pair)
    edit_config(pair / "texture_01" / "adapter", base_model_name_or_path="one")
    assert open_cluster(pair).base == {"base_model_name_or_path": "one"}


def test_missing_layers_are_named(pair: Path) -> None:
    edit_tensors(pair / "texture_01" / "adapter", lambda t: {n: a for n, a in t.items() if QKV not in n})
    with pytest.raises(DatasetError, match=rf"texture_01/adapter does not adapt {QKV}, which texture_00 does"):
        open_cluster(pair)
    assert QKV not in open_cluster(pair, modules=r"aggregator\.frame_blocks\.[1-3]\..*").modules


def test_a_selection_of_layers_that_fits_nothing(pair: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"modules=qkv matches none of the linear layers it adapts: aggregator\.frame"
    ):
        open_cluster(pair, modules="qkv")
    with pytest.raises(ConfigError, match="not a regular expression"):
        open_cluster(pair, modules="((")


def test_other_shapes_are_named(pair: Path) -> None:
    def wider(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        key = f"base_model.model.{QKV}.lora_B.weight"
        return {**tensors, key: np.vstack([tensors[key], tensors[key]])}

    edit_tensors(pair / "texture_01" / "adapter", wider)
    with pytest.raises(DatasetError, match=rf"{QKV} is 144 × 24 in .*texture_01/adapter, 72 × 24 in texture_00"):
        open_cluster(pair)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named(value: float, pair: Path) -> None:
    def poison(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors[f"base_model.model.{QKV}.lora_A.weight"][1, 2] = value
        return tensors

    edit_tensors(pair / "texture_01" / "adapter", poison)
    with pytest.raises(
        DatasetError, match=rf"texture_01/adapter/adapter_model.safetensors: .*{QKV}.lora_A.weight holds NaN"
    ):
        open_cluster(pair).updates(QKV)


def test_damage_is_named(pair: Path) -> None:
    adapter = pair / "texture_01" / "adapter"
    content = bytearray((adapter / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (adapter / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(DatasetError, match=r"texture_01/adapter/adapter_model.safetensors is damaged: its checksum"):
        open_cluster(pair)
    (adapter / "adapter_model.safetensors").write_bytes(content[:1000])
    edit_record(adapter)
    with pytest.raises(DatasetError, match="cannot be read as safetensors"):
        open_cluster(pair)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter.json").unlink()
    with pytest.raises(ConfigError, match="adapters of type None cannot be read"):
        open_cluster(pair)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "adapters of type IA3 cannot be read"),
        ({"init_lora_weights": "olora"}, "init_lora_weights=olora changes the base weight"),
        ({"init_lora_weights": "pissa_niter_4"}, r"initial.safetensors, which holds them, is missing"),
        ({"use_qalora": True}, "adapters with use_qalora cannot be read"),
    ],
)
def test_methods_that_cannot_be_read_off_are_refused(changes: dict[str, object], message: str, pair: Path) -> None:
    (pair / "texture_00" / "adapter" / "adapter.json").unlink()
    edit_config(pair / "texture_00" / "adapter", **changes)
    with pytest.raises(ConfigError, match=message):
        open_cluster(pair)


def test_a_rank_that_is_not_the_configured_one_is_refused(pair: Path) -> None:
    edit_config(pair / "texture_01" / "adapter", r=8)
    with pytest.raises(
        DatasetError, match=r"attn.proj does not fit its own adapter_config.json.*rank is 4, configured is 8"
    ):
        open_cluster(pair).updates(QKV)


@pytest.mark.parametrize(("mode", "message"), [("heads", "adapts no layer of the aggregator"), ("full", "all weights")])
def test_full_training_and_heads_alone_have_no_subspaces(mode: str, message: str, tmp_path: Path) -> None:
    store(tmp_path / "texture_00", mode, moved=0.0)
    with pytest.raises(ConfigError, match=message):
        open_cluster(tmp_path)
