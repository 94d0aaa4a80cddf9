"""mode=subspace of a VGGT: what is counted, recorded, left out and refused."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_models import adapted_model, basis_file, basis_for, outputs, small_model, train

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.adapters import adapt, load_adapter, save_adapter, trainable_counts
from megasynth_train.adapters.targets import find_targets
from megasynth_train.subspace.basis import Basis, LayerBasis, random_basis
from megasynth_train.subspace.basis_file import read_basis, write_basis
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.model import VGGT

VGGT_1B = named_config("vggt-1b", point_head=False)
HEADS = 3_753_280
TWO, FOUR = ("texture", "pose"), ("texture", "pose", "light", "camera")


def shapes_of(attributes: tuple[str, ...], width: int) -> Basis:
    """Return a basis for vggt-1b that has shapes and takes no memory."""
    with torch.device("meta"):
        model = VGGT(VGGT_1B)
    size = width * len(attributes)
    columns = {name: (i * width, (i + 1) * width) for i, name in enumerate(attributes)}

    def nothing(*shape: int) -> np.ndarray:
        return np.broadcast_to(np.float32(0), shape)

    layers = {}
    for module in find_targets(model).aggregator:
        outputs, inputs = model.get_submodule(module).weight.shape
        layers[module] = LayerBasis(nothing(outputs, size), nothing(inputs, size), nothing(size))
    return Basis(layers, dict.fromkeys(layers, columns), attributes, {}, {})


@pytest.mark.parametrize(
    ("attributes", "width", "mask", "expected"),
    [
        (TWO, 16, "full", 3_949_888),
        (FOUR, 64, "full", 16_336_192),
        (FOUR, 64, "block_diagonal", HEADS + 192 * 4 * 64**2),
        (TWO, 32, "full", HEADS + 192 * 64**2),
    ],
)
def test_trained_parameters_of_vggt_1b(attributes: tuple[str, ...], width: int, mask: str, expected: int) -> None:
    start = time.process_time()
    rows = trainable_counts(VGGT_1B, AdapterSettings(mode="subspace", mask=mask), basis=shapes_of(attributes, width))
    assert sum(row.parameters for row in rows) == expected
    assert sum(row.parameters for row in rows if row.part in ("camera head", "depth head")) == HEADS
    assert time.process_time() - start < 20  # nothing is allocated or initialised


def test_block_diagonal_counts_what_is_free() -> None:
    free, blocks = adapted_model("subspace"), adapted_model("subspace", mask="block_diagonal")
    assert free.parameter_count() - blocks.parameter_count() == 32 * (5 * 5 - 3 * 3 - 2 * 2)
    start = {name: p.detach().clone() for name, p in blocks.trainable.items()}
    train(blocks, 2)
    m = blocks.trainable["aggregator.frame_blocks.0.attn.qkv.lora_M.default"].detach()
    assert torch.count_nonzero(m[:3, 3:]) == torch.count_nonzero(m[3:, :3]) == 0 and bool((m[:3, :3] != 0).all())
    assert all(not torch.equal(p, start[name]) for name, p in blocks.trainable.items())


def test_layers_without_columns_stay_as_they_are_and_it_is_said(tmp_path: Path) -> None:
    """As after the paper's allocation, which gives most layers nothing."""
    model, whole = small_model(), read_basis(basis_file())
    kept = [name for name in whole.layers if "frame_blocks" in name and "fc1" not in name]
    some = Basis(
        {name: whole.layers[name] for name in kept},
        {name: whole.columns[name] for name in kept},
        whole.attributes,
        whole.base,
        whole.record,
    )
    write_basis(tmp_path / "some.safetensors", some)
    settings = AdapterSettings(mode="subspace", basis=str(tmp_path / "some.safetensors"), targets=r".*(qkv|fc1|proj)")
    adapted = adapt(model, settings, total_steps=1)
    in_basis = {name.partition(".lora_M")[0] for name in adapted.trainable if ".lora_M." in name}
    assert in_basis == {name for name in kept if not name.endswith("fc2")}
    assert not any(".global_blocks." in name or "frame_blocks.0.mlp" in name for name in adapted.trainable)
    assert any(name.startswith("camera_head") and ".lora_A." in name for name in adapted.trainable)
    first, second = adapted.notes
    assert first.startswith("16 of 24 aggregator layers have no columns in the basis")
    assert second.startswith("adapter.targets leaves 4 of 12 layers of the basis unused")
    save_adapter(adapted, tmp_path / "adapter", {})
    expected = outputs(adapted.model)
    assert all(
        torch.equal(value, expected[name])
        for name, value in outputs(load_adapter(small_model(), tmp_path / "adapter").model).items()
    )


def test_the_heads_have_lora_of_their_own_rank() -> None:
    settings = AdapterSettings(mode="subspace", rank=4, basis=str(basis_file()))
    adapted = adapt(small_model(), settings, total_steps=1)
    assert len(adapted.trainable["camera_head.trunk.0.attn.qkv.lora_A.default.weight"]) == 16
    assert adapted.notes == () and adapted.undecayed == frozenset()


def test_the_record_names_the_basis(tmp_path: Path) -> None:
    adapted = adapted_model("subspace", attributes=("pose",), scale=0.5)
    save_adapter(adapted, tmp_path / "adapter", {})
    record = json.loads((tmp_path / "adapter" / "adapter.json").read_text())["basis"]
    assert record["path"] == str(basis_file()) and record["attributes"] == ["pose"]
    assert record["sha256"] == read_basis(basis_file()).select(["pose"]).sha256
    assert len(record["dimensions"]) == 32 and set(record["dimensions"].values()) == {2}
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 200_000


def test_a_basis_that_moved_must_be_named_and_be_the_same(tmp_path: Path) -> None:
    basis = Path(shutil.copy(basis_file(), tmp_path / "all.safetensors"))
    adapted = adapted_model("subspace", basis=str(basis), attributes=("pose",))
    train(adapted, 1)
    save_adapter(adapted, tmp_path / "adapter", {})
    moved = basis.rename(tmp_path / "moved.safetensors")
    with pytest.raises(DatasetError, match=r"is no longer at .*all\.safetensors; say where it is with basis=FILE"):
        load_adapter(small_model(), tmp_path / "adapter")
    found, expected = (
        outputs(model) for model in (load_adapter(small_model(), tmp_path / "adapter", str(moved)).model, adapted.model)
    )
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    write_basis(tmp_path / "pose.safetensors", read_basis(moved).select(["pose"]))  # the same columns, chosen before
    load_adapter(small_model(), tmp_path / "adapter", str(tmp_path / "pose.safetensors"))
    write_basis(moved, random_basis(read_basis(moved), 1))
    model = small_model()
    with pytest.raises(ConfigError, match="another basis than the one this adapter was trained in"):
        load_adapter(model, tmp_path / "adapter", str(moved))
    assert not any("lora_" in name for name, _ in model.named_parameters())


def test_a_basis_for_an_adapter_without_one_is_refused(tmp_path: Path) -> None:
    save_adapter(adapted_model("lora"), tmp_path / "adapter", {})
    with pytest.raises(ConfigError, match="mode=lora, which has no basis"):
        load_adapter(small_model(), tmp_path / "adapter", str(basis_file()))


def test_a_basis_of_another_base_model_names_both() -> None:
    settings = AdapterSettings(mode="subspace", basis=str(basis_file()))
    model = small_model(seed=4)
    with pytest.raises(ConfigError, match=r"was mined from adapters of a model with weights \w{12}, but this model's"):
        adapt(model, settings, total_steps=1)
    assert not any("lora_" in name for name, _ in model.named_parameters())


def test_a_basis_that_says_nothing_of_its_base_fits_by_its_shapes(tmp_path: Path) -> None:
    write_basis(tmp_path / "b.safetensors", basis_for(small_model(), {"texture": 2}))
    adapted_model("subspace", basis=str(tmp_path / "b.safetensors"))
    with pytest.raises(ConfigError, match="here it has"):
        adapt(
            small_model(width=48),
            AdapterSettings(mode="subspace", basis=str(tmp_path / "b.safetensors")),
            total_steps=1,
        )


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"mode": "lora", "basis": "some.safetensors"}, r"adapter\.basis is for mode=subspace; mode=lora"),
        ({"mode": "full", "mask": "block_diagonal"}, r"adapter\.mask is for mode=subspace"),
        ({"mode": "subspace", "basis": ""}, "basis is missing"),
        ({"mode": "subspace", "attributes": ("colour",)}, "no attribute colour"),
        ({"mode": "subspace", "targets": r"camera_head\..*"}, "use mode=heads"),
        ({"mode": "subspace", "train_encoder": True}, "train_encoder"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        adapted_model(**chosen)
