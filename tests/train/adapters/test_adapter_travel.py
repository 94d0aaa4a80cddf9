"""Adapters move between programs: older versions of PEFT, the released code's patched one, a base cast to bf16."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from adapter_models import adapted_model, basis_file, outputs, small_model, train
from safetensors.torch import load_file, save_file
from torch import Tensor

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.adapters import adapt, load_adapter, save_adapter
from megasynth_train.adapters.subspace import SubspaceConfig
from megasynth_train.adapters.subspace.export import export_folder
from megasynth_train.subspace.basis_file import read_basis
from megasynth_train.subspace.peft_folder import open_adapter
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.model import VGGT
from megasynth_train.vggt.precision import store_frozen_in_bf16

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PATCHED, PLAIN = "aggregator.frame_blocks.0.attn.qkv", "camera_head.trunk.0.mlp.fc1"
# the fields of LoraConfig in PEFT 0.13.2, which refuses all others
KNOWN_TO_PEFT_013 = {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode"),
    *("init_lora_weights", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha"),
    *("lora_dropout", "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r", "rank_pattern"),
    *("revision", "target_modules", "task_type", "use_dora", "use_rslora"),
}


def rank_in_peft_013(config: dict[str, object], module: str) -> int:
    """Return a layer's rank as PEFT 0.13 looks it up: a pattern needs a dot before it, else the whole name counts."""
    patterns = config["rank_pattern"]
    assert isinstance(patterns, dict)
    key = next((key for key in patterns if re.match(rf".*\.{key}$", module)), module)
    return int(patterns.get(key, config["r"]))


def close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


@pytest.fixture
def patched(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Write an adapter as the released code does, with one layer in a basis; return it and dW of every layer."""
    rng, tensors, updates = np.random.default_rng(4), {}, {}
    modules = dict(small_model().named_modules())
    for module, parts in ((PATCHED, ("lora_A.0", "lora_B.0", "lora_B.1")), (PLAIN, ("lora_A", "lora_B"))):
        m, n = modules[module].weight.shape
        sizes = ((5, n), (5, 5), (m, 5)) if module == PATCHED else ((2, n), (m, 2))
        values = [rng.normal(size=size).astype(np.float32) for size in sizes]
        for part, value in zip(parts, values, strict=True):
            tensors[f"{PREFIX}{module}.{part}.weight"] = torch.tensor(value)
        product = values[-1].astype(np.float64)
        for value in reversed(values[:-1]):
            product = product @ value
        updates[module] = 2.0 * product  # alpha / r
    folder = tmp_path / "texture_0"
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    options = {"apply_svd_lora": False, "pattern_svd_lora": "qkv", "use_predefined_space": "/data/space.safetensors"}
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [PATCHED, PLAIN], **options}
    (folder / CONFIG).write_text(json.dumps(config))
    return folder, updates


@pytest.mark.filterwarnings("error:Unexpected keyword")
def test_the_released_codes_adapter_predicts_exports_and_is_mined(
    patched: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folder, updates = patched
    expected = small_model()
    with torch.no_grad():
        for module, update in updates.items():
            expected.get_submodule(module).weight += torch.tensor(update, dtype=torch.float32)
    close(outputs(load_adapter(small_model(), folder).model), outputs(expected), 1e-4)
    export_folder(folder, tmp_path / "lora")
    model = small_model()
    peft.PeftModel.from_pretrained(model, tmp_path / "lora")
    close(outputs(model), outputs(expected), 1e-4)
    mined = open_adapter(folder, "texture_0", "texture", lambda module: module == PATCHED).update(PATCHED)
    np.testing.assert_allclose(mined.left @ mined.right.T, updates[PATCHED], rtol=1e-6, atol=1e-6)


def test_a_damaged_patched_adapter_is_refused(patched: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, _ = patched
    tensors, key = load_file(folder / WEIGHTS), f"{PREFIX}{PATCHED}.lora_B.0.weight"
    save_file({name: value for name, value in tensors.items() if name != key}, folder / WEIGHTS)
    with pytest.raises(DatasetError, match=r"qkv lacks one of lora_A\.0, lora_B\.0 and lora_B\.1"):
        load_adapter(small_model(), folder)
    with pytest.raises(DatasetError, match="qkv lacks"):
        open_adapter(folder, "texture_0", "texture", lambda module: True)
    save_file(tensors | {key: torch.zeros(4, 5)}, folder / WEIGHTS)
    with pytest.raises(DatasetError, match=r"do not fit together \(.*\(4, 5\)"):
        load_adapter(small_model(), folder)
    save_file(tensors, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"init_lora_weights": "olora"}))
    with pytest.raises(ConfigError, match="olora changes the base weight"):
        load_adapter(small_model(), folder)


@pytest.mark.parametrize("mode", ["subspace", "lora"])
def test_an_export_is_known_to_peft_013_and_predicts_the_same(mode: str, tmp_path: Path) -> None:
    adapted = adapted_model(mode)
    train(adapted, 1)
    save_adapter(adapted, tmp_path / "mine", {})
    export_folder(tmp_path / "mine", tmp_path / "lora")
    config = json.loads((tmp_path / "lora" / CONFIG).read_text())
    assert config.keys() <= KNOWN_TO_PEFT_013
    for key, tensor in load_file(tmp_path / "lora" / WEIGHTS).items():
        if module := re.fullmatch(r"base_model\.model\.(.+)\.lora_A\.weight", key):
            assert rank_in_peft_013(config, module[1]) == len(tensor)
    loaded = load_adapter(small_model(), tmp_path / "lora")
    assert not loaded.notes  # the base model is recorded, and is this one
    close(outputs(loaded.model), outputs(adapted.model))
    merged = peft.PeftModel.from_pretrained(small_model(), tmp_path / "lora").merge_and_unload()
    close(outputs(merged), outputs(adapted.model), 1e-4)
    with pytest.raises(DatasetError, match="was made for a base model with weights"):
        load_adapter(small_model(seed=8), tmp_path / "lora")


def test_an_export_names_modules_without_what_newer_pefts_know(tmp_path: Path) -> None:
    options = {"target_modules": ["qkv", "fc1"], "exclude_modules": ["fc1"], "task_type": "FEATURE_EXTRACTION"}
    view = peft.get_peft_model(small_model(), peft.LoraConfig(r=2, init_lora_weights=False, **options))
    view.save_pretrained(tmp_path / "stock")
    export_folder(tmp_path / "stock", tmp_path / "lora")
    config = json.loads((tmp_path / "lora" / CONFIG).read_text())
    assert config.keys() <= KNOWN_TO_PEFT_013 and config["task_type"] is None
    model = small_model()
    peft.PeftModel.from_pretrained(model, tmp_path / "lora")
    close(outputs(model), outputs(view.base_model.model))


def test_three_lines_and_a_basis_that_moved(tmp_path: Path) -> None:
    shutil.copy(basis_file(), tmp_path / "all.safetensors")
    view = peft.get_peft_model(small_model(), SubspaceConfig(basis=str(tmp_path / "all.safetensors"), m_init="mean"))
    view.save_pretrained(tmp_path / "three")
    expected = outputs(view.base_model.model)
    (tmp_path / "all.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(DatasetError, match="say where it is with basis=FILE"):
        load_adapter(small_model(), tmp_path / "three")
    loaded = load_adapter(small_model(), tmp_path / "three", str(tmp_path / "moved.safetensors"))
    assert not loaded.notes
    close(outputs(loaded.model), expected)
    with pytest.raises(DatasetError, match="was made for a base model with weights"):
        load_adapter(small_model(seed=8), tmp_path / "three", str(tmp_path / "moved.safetensors"))


@pytest.mark.parametrize("mode", ["lora", "subspace", "pissa", "widened lora"])
def test_a_base_cast_to_bf16_attaches_and_says_what_is_not_checked(mode: str, tmp_path: Path) -> None:
    adapted = adapted_model(mode.removeprefix("widened "))
    train(adapted, 3)
    save_adapter(adapted, tmp_path / "mine", {})

    def base(**changes: int) -> VGGT:
        model = small_model(**changes).requires_grad_(False)
        if mode.startswith("widened"):
            return model.bfloat16().float()  # as a checkpoint in bf16 is loaded
        store_frozen_in_bf16(model.aggregator)
        return model

    loaded = load_adapter(base(), tmp_path / "mine")
    assert "rounded to 16 bits" in loaded.notes[0] and "is not checked" in loaded.notes[0]
    with torch.autocast("cpu", torch.bfloat16):  # which rounds weights anyway, but not those of the heads
        found, expected = outputs(loaded.model), outputs(adapted.model)
    close(found, expected, 0.02 if mode.startswith("widened") else 1e-3)
    with pytest.raises(DatasetError, match="was made for a model of width 24"):
        load_adapter(base(width=48), tmp_path / "mine")


def test_three_lines_on_a_base_cast_to_bf16() -> None:
    attributes = read_basis(basis_file()).attributes
    with pytest.warns(UserWarning, match="rounded to 16 bits"):
        peft.get_peft_model(small_model().bfloat16(), SubspaceConfig(basis=str(basis_file()), attributes=attributes))
    with pytest.raises(ConfigError, match="this model's weights are"):
        peft.get_peft_model(small_model(seed=8), SubspaceConfig(basis=str(basis_file())))


def test_an_adapter_is_trained_in_a_basis_on_a_base_that_was_read_from_16_bits(tmp_path: Path) -> None:
    def widened(**changes: int) -> VGGT:
        return small_model(**changes).bfloat16().float()

    settings = AdapterSettings(mode="subspace", basis=str(basis_file()))
    adapted = adapt(widened(), settings, total_steps=3)
    assert "rounded to 16 bits" in adapted.notes[0]
    train(adapted, 3)
    save_adapter(adapted, tmp_path / "mine", {})
    loaded = load_adapter(widened(), tmp_path / "mine")
    assert "rounded to 16 bits" in loaded.notes[0]
    close(outputs(loaded.model), outputs(adapted.model), 0.0)
    with pytest.raises(DatasetError, match="was made for a model"):  # that of the basis, not of training
        load_adapter(small_model(), tmp_path / "mine")
    export_folder(tmp_path / "mine", tmp_path / "plain")
    assert not load_adapter(widened(), tmp_path / "plain").notes
    with pytest.raises(ConfigError, match="this model's weights are"):
        adapt(small_model(seed=8), settings, total_steps=3)
