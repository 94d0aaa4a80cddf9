"""The update read from a folder is what the adapted torch model does, for every method."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch
from small_bases import small_basis
from stored_adapters import (
    METHODS,
    QKV,
    cluster_of,
    dense_update,
    edit_config,
    edit_record,
    edit_tensors,
    small_model,
    store,
    tiny_base,
    weight_of,
)

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.adapters import load_adapter
from megasynth_train.adapters.subspace import SubspaceConfig
from megasynth_train.subspace.basis_file import write_basis
from megasynth_train.subspace.core import core_coordinates
from megasynth_train.subspace.peft_updates import INITIAL, VECTORS, WEIGHTS, BaseWeights, is_zero, pattern_value
from megasynth_train.subspace.updates import open_cluster

# PiSSA's residual weight is stored in float32, so the model itself is that far from its own factors
TOLERANCE = dict.fromkeys(METHODS, 1e-11) | {"pissa": 3e-6}


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
def test_an_update_is_what_the_adapted_model_adds(method: str, adapters: Path, tmp_path: Path) -> None:
    shutil.copytree(adapters / f"{method}_00", tmp_path / "texture_00")
    cluster = open_cluster(tmp_path, base=tiny_base() if method == "dora" else None)
    model = load_adapter(small_model(), tmp_path / "texture_00").model
    assert len(cluster.modules) == 32 and not any("head" in module for module in cluster.modules)
    for module in cluster.modules:
        update = cluster.updates(module)["texture_00"]
        assert update.left.dtype == update.right.dtype == np.float64
        assert (len(update.left), len(update.right)) == cluster.shapes[module] == tiny_base().weight(module).shape
        found = update.left @ update.right.T
        if method == "dora":  # the magnitudes' part has full rank and is left out on purpose
            found = found + (cluster.stored[0].row_scales[module] - 1)[:, None] * tiny_base().weight(module)
        assert relative_error(found, dense_update(model, module)) < TOLERANCE[method]
    row = cluster.adapters[0]
    assert (row.name, row.attribute, row.mode, row.seed) == ("texture_00", "texture", method, 5)
    assert row.rank == (6 if method == "adalora" else 4)
    width = {"pissa": 8, "adalora": 6}.get(method, 4)
    assert cluster.updates(QKV)["texture_00"].left.shape[1] <= width
    assert cluster.base["weights_sha256"] == tiny_base().sha256


def test_what_dora_leaves_out_is_said(adapters: Path, tmp_path: Path) -> None:
    cluster = open_cluster(cluster_of(tmp_path / "c", {"texture_00": adapters / "dora_00"}), base=tiny_base())
    model = load_adapter(small_model(), adapters / "dora_00").model
    shares = []
    for module in cluster.modules:
        dense, update = dense_update(model, module), cluster.updates(module)["texture_00"]
        shares.append(np.linalg.norm(dense - update.left @ update.right.T) / np.linalg.norm(dense))
    assert f"{np.median(shares):.2g} in the median layer and {max(shares):.2g} at most" in cluster.notes[0]
    with pytest.raises(ConfigError, match=r"mode=dora: .* depend on the base weights"):
        open_cluster(tmp_path / "c")
    other = small_model(seed=4)
    with pytest.raises(
        ConfigError, match=r"the given base has aaaaaaaaaaaa; give the checkpoint they were trained from"
    ):
        open_cluster(tmp_path / "c", base=BaseWeights("a" * 64, lambda module: weight_of(other, module)))


def test_masked_ranks_of_adalora_are_left_out(adapters: Path, tmp_path: Path) -> None:
    shutil.copytree(adapters / "adalora_00", tmp_path / "texture_00")

    def mask(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors[f"base_model.model.{QKV}.lora_E"][[0, 2, 3]] = 0
        return tensors

    before = open_cluster(tmp_path).updates(QKV)["texture_00"]
    edit_tensors(tmp_path / "texture_00", mask)
    after = open_cluster(tmp_path).updates(QKV)["texture_00"]
    np.testing.assert_array_equal(after.left, before.left[:, [1, 4, 5]])
    np.testing.assert_array_equal(after.right, before.right[:, [1, 4, 5]])


def test_a_layer_of_adalora_without_any_rank_is_a_zero_update(adapters: Path, tmp_path: Path) -> None:
    shutil.copytree(adapters / "adalora_00", tmp_path / "texture_00")

    def cut(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for part, axis in (("lora_A", 0), ("lora_B", 1), ("lora_E", 0)):
            name = f"base_model.model.{QKV}.{part}"
            tensors[name] = np.take(tensors[name], [], axis)
        return tensors

    edit_tensors(tmp_path / "texture_00", cut)
    cluster = open_cluster(tmp_path)
    update = cluster.updates(QKV)["texture_00"]
    assert is_zero(update) and (len(update.left), len(update.right)) == cluster.shapes[QKV]
    assert update.left.shape[1] == update.right.shape[1] == 1
    assert core_coordinates([update]).room == 0 and cluster.idle == ()


def test_what_was_trained_beside_the_layers_is_said(tmp_path: Path) -> None:
    config = LoraConfig(
        r=2, target_modules=r"aggregator\.frame_blocks\.0\.attn\.(qkv|proj)", bias="lora_only",
        modules_to_save=["frame_blocks.1.mlp.fc1"],
    )  # fmt: skip
    get_peft_model(small_model(), config).save_pretrained(tmp_path / "texture_00")
    cluster = open_cluster(tmp_path)
    assert set(cluster.modules) == {QKV, QKV.replace("qkv", "proj")}
    (note,) = [note for note in cluster.notes if "not part of the mined updates" in note]
    names = ["attn.proj.base_layer.bias", "attn.qkv.base_layer.bias", "1.mlp.fc1.bias", "1.mlp.fc1.weight"]
    assert note.startswith("texture_00: 4 trained tensors") and all(name in note for name in names)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("stored", [None, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_adapters_of_peft_alone(rslora: bool, stored: torch.dtype | None, tmp_path: Path) -> None:
    """Ranks and alphas by pattern, as PEFT itself applies them; tensors in types that NumPy does not have."""
    config = LoraConfig(
        r=4, lora_alpha=6, use_rslora=rslora,
        target_modules=r"aggregator\.frame_blocks\.\d\.(attn\.(qkv|proj)|mlp\.fc1)",
        rank_pattern={"attn.qkv": 3, r"0\.mlp\.fc1": 2}, alpha_pattern={r"frame_blocks\.1\.attn\.proj": 10, "fc1": 1},
        init_lora_weights=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        view = get_peft_model(small_model(), config)
    view.save_pretrained(tmp_path / "geometry_3")
    if stored is not None:
        file = tmp_path / "geometry_3" / "adapter_model.safetensors"
        rounded = {name: tensor.to(stored) for name, tensor in load_torch(file).items()}
        save_torch({name: tensor.float() for name, tensor in rounded.items()}, file)
        view = PeftModel.from_pretrained(small_model(), tmp_path / "geometry_3")
        save_torch(rounded, file)
    if rslora:  # saved from a model inside DistributedDataParallel
        file = tmp_path / "geometry_3" / "adapter_model.safetensors"
        start = "base_model.model."
        save_torch({name.replace(start, f"{start}module."): t for name, t in load_torch(file).items()}, file)
    cluster = open_cluster(tmp_path)
    assert len(cluster.modules) == 12 and cluster.base == {"base_model_name_or_path": None}
    ranks = {module: cluster.updates(module)["geometry_3"].left.shape[1] for module in cluster.modules}
    assert ranks[QKV] == 3 and ranks["aggregator.frame_blocks.0.mlp.fc1"] == 2 and max(ranks.values()) == 4
    for module in cluster.modules:
        update = cluster.updates(module)["geometry_3"]
        error = relative_error(update.left @ update.right.T, dense_update(view.base_model.model, module))
        assert error < 1e-11
    row = cluster.adapters[0]
    assert (row.attribute, row.mode, row.rank, row.seed) == ("geometry", "rslora" if rslora else "lora", 4, None)
    assert [
        "the seeds of geometry_3 are not" in cluster.notes[0],
        "do not record their base model" in cluster.notes[1],
    ] == [
        True,
        True,
    ]


@pytest.mark.parametrize("norm", ["orthonormal", "sqrt_sigma"])
@pytest.mark.parametrize("attributes", [None, ["geometry"]])
def test_an_adapter_in_a_basis(norm: str, attributes: list[str] | None, tmp_path: Path) -> None:
    sizes = {module: tiny_base().weight(module).shape for module in (QKV, "aggregator.global_blocks.3.mlp.fc2")}
    widths = {"texture": 2, "geometry": 3}
    layers = {module: (shape, widths) for module, shape in sizes.items()}
    base = {"weights_sha256": tiny_base().sha256}
    write_basis(tmp_path / "b.safetensors", dataclasses.replace(small_basis(layers=layers), base=base))
    config = SubspaceConfig(
        basis=str(tmp_path / "b.safetensors"), attributes=attributes, basis_norm=norm, scale=1.5, r=2, lora_alpha=8,
        target_modules=r"aggregator\.(frame_blocks\.0|global_blocks\.3)\.(attn\.qkv|mlp\.fc2)",
    )  # fmt: skip
    view = get_peft_model(small_model(), config)
    rng = np.random.default_rng(0)
    for name, parameter in view.named_parameters():
        if parameter.requires_grad:  # M, and the plain LoRA of the layers that the basis lacks
            parameter.data = torch.tensor(rng.standard_normal(parameter.shape), dtype=torch.float32)
            assert "lora_" in name
    view.save_pretrained(tmp_path / "cluster" / "texture_0")
    cluster = open_cluster(tmp_path / "cluster")
    assert len(cluster.modules) == 4 and cluster.adapters[0].mode == "subspace"
    for module in cluster.modules:
        update = cluster.updates(module)["texture_0"]
        assert relative_error(update.left @ update.right.T, dense_update(view.base_model.model, module)) < 1e-6
        assert update.left.shape[1] == ((3 if attributes else 5) if module in sizes else 2)
    write_basis(tmp_path / "b.safetensors", small_basis(1, layers=layers))
    with pytest.raises(DatasetError, match="was trained in another basis"):
        open_cluster(tmp_path / "cluster")
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(DatasetError, match=r"the basis of .*texture_0 is no longer at .*b\.safetensors"):
        open_cluster(tmp_path / "cluster")


def test_a_cluster_in_order(adapters: Path, tmp_path: Path) -> None:
    names = ("texture_01", "lighting_00", "texture_00", "geometry_00")
    folder = cluster_of(tmp_path / "c", {name: adapters / "lora_00" for name in names})
    edit_record(folder / "geometry_00" / "adapter", seed=9)
    cluster = open_cluster(folder)
    assert cluster.attributes == ("geometry", "lighting", "texture")
    assert [row.name for row in cluster.adapters] == ["geometry_00", "lighting_00", "texture_00", "texture_01"]
    assert cluster.modules == tuple(sorted(cluster.modules)) and cluster.of_attribute("texture") == names[2::-2]
    assert cluster.notes == (
        "lighting_00, texture_00, texture_01 started from the same seed 5: they share their initial row space, "
        "which shows in spectra and angles whatever they learned",
    )
    some = open_cluster(folder, ["texture", "geometry"], r"aggregator\..*\.qkv")
    assert some.attributes == ("texture", "geometry") and len(some.modules) == 8
    assert [row.name for row in some.adapters] == ["texture_00", "texture_01", "geometry_00"]
    assert {row.adapter for row in some.drift} == {row.name for row in some.adapters} and len(some.drift) == 24
    drift = json.loads((adapters / "lora_00" / "drift.json").read_text())["layers"]
    expected = next(layer for layer in drift if layer["module"] == QKV)
    row = next(row for row in some.drift if row.layer.module == QKV)
    assert (row.relative_change, row.largest_angle_deg) == (expected["relative_change"], expected["angles_deg"][0])
    assert (row.layer.attention, row.layer.kind, row.layer.depth) == ("frame", "qkv", 0)
    heads = open_cluster(folder, ["geometry"], r"camera_head\.trunk\.0\.mlp\..*|depth_head.*")
    assert heads.modules == ("camera_head.trunk.0.mlp.fc1", "camera_head.trunk.0.mlp.fc2")  # no convolutions


def test_a_cluster_travels_to_a_process_without_torch(adapters: Path, tmp_path: Path) -> None:
    cluster = open_cluster(cluster_of(tmp_path / "c", {"t_0": adapters / "pissa_00", "t_1": adapters / "adalora_00"}))
    (tmp_path / "cluster.pickle").write_bytes(pickle.dumps(cluster))
    script = f"""
import pickle, sys, numpy
cluster = pickle.load(open({str(tmp_path / "cluster.pickle")!r}, "rb"))
updates = cluster.updates({QKV!r})
assert "torch" not in sys.modules
numpy.savez({str(tmp_path / "there.npz")!r}, **{{name: u.left @ u.right.T for name, u in updates.items()}})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, env={"PYTHONPATH": ":".join(sys.path)})
    there = np.load(tmp_path / "there.npz")
    for name, update in cluster.updates(QKV).items():
        np.testing.assert_allclose(there[name], update.left @ update.right.T, rtol=0, atol=1e-15)


@pytest.mark.parametrize("method", ["lora", "pissa", "adalora", "lora_xs"])
def test_an_adapter_that_did_not_move_is_noted(method: str, tmp_path: Path) -> None:
    store(tmp_path / "texture_00", method, moved=0.0, targets=r"aggregator\.frame_blocks\.0\..*")
    cluster = open_cluster(tmp_path)
    assert "texture_00 left the base model unchanged: all updates are zero" in cluster.notes
    assert all(is_zero(cluster.updates(module)["texture_00"]) for module in cluster.modules)


def test_a_small_drift_from_pissas_start_keeps_its_digits(adapters: Path, tmp_path: Path) -> None:
    """‖dW‖ of two nearly equal products, through their factors, without cancellation."""
    shutil.copytree(adapters / "pissa_00", tmp_path / "texture_00")
    start = load_torch(tmp_path / "texture_00" / "initial.safetensors")

    def nudge(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for side in ("A", "B"):
            tensors[f"base_model.model.{QKV}.lora_{side}.weight"] = start[f"{QKV}.lora_{side}.default.weight"].numpy()
        tensors[f"base_model.model.{QKV}.lora_B.weight"] = np.nextafter(
            tensors[f"base_model.model.{QKV}.lora_B.weight"], np.float32(np.inf)
        )
        return tensors

    edit_tensors(tmp_path / "texture_00", nudge)
    update = open_cluster(tmp_path).updates(QKV)["texture_00"]
    b0 = start[f"{QKV}.lora_B.default.weight"].double().numpy()
    step = np.nextafter(b0.astype(np.float32), np.float32(np.inf)).astype(np.float64) - b0
    expected = 2 * step @ start[f"{QKV}.lora_A.default.weight"].double().numpy()
    assert relative_error(update.left @ update.right.T, expected) < 1e-12


def _identity_after(change: Callable[[Path], None], adapter: Path, copy: Path) -> str:
    cluster = cluster_of(copy, {"texture_00": adapter})
    change(cluster / "texture_00" / "adapter")
    return open_cluster(cluster).adapters[0].sha256


def _other_numbers(file: Path) -> None:
    save_file({name: array + 1 for name, array in load_file(file).items()}, file)
    edit_record(file.parent)


@pytest.mark.parametrize(("method", "name"), [("pissa", INITIAL), ("lora_xs", VECTORS), ("lora", WEIGHTS)])
def test_the_identity_of_an_adapter_covers_all_that_makes_its_updates(
    method: str, name: str, adapters: Path, tmp_path: Path
) -> None:
    stored = adapters / f"{method}_00"
    same = [_identity_after(lambda _: None, stored, tmp_path / copy) for copy in ("a", "b")]
    numbers = _identity_after(lambda adapter: _other_numbers(adapter / name), stored, tmp_path / "numbers")
    scale = "psoft_alpha" if method == "lora_xs" else "lora_alpha"
    scaled = _identity_after(lambda adapter: edit_config(adapter, **{scale: 3}), stored, tmp_path / "scaled")
    assert len({*same, numbers, scaled}) == 3


def test_patterns_fit_as_in_peft() -> None:
    patterns = {"attn.qkv": 3, r"0\.mlp\.fc1": 2, "fc1": 5}
    expected = {"a.0.attn.qkv": 3, "a.0.attn.qkvs": 1, "a.0.mlp.fc1": 2, "a.10.mlp.fc1": 5, "xfc1": 1, "fc1": 5}
    assert {module: pattern_value(patterns, module, 1) for module in expected} == expected
    assert pattern_value(None, "fc1", 1) == 1
