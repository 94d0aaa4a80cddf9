"""Folders that PEFT alone has written predict what PEFT's own model predicts; those that do not fit say so."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from adapter_models import outputs, small_model
from peft import AdaLoraConfig, LoHaConfig, LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.adapters import load_adapter
from megasynth_train.adapters.stock import stock_digest
from megasynth_train.adapters.subspace.export import export_folder

WEIGHTS = "adapter_model.safetensors"
CONFIGS = {
    "lora": LoraConfig(r=3, target_modules=["qkv", "fc1"], lora_alpha=5, lora_dropout=0.5, init_lora_weights=False),
    "dora": LoraConfig(r=3, target_modules=["qkv"], use_dora=True, init_lora_weights=False),
    "biases": LoraConfig(
        r=2, target_modules=["qkv"], bias="lora_only", modules_to_save=["pose_branch"], init_lora_weights=False
    ),
    "adalora": AdaLoraConfig(init_r=3, target_r=2, target_modules=["qkv"], total_step=10, init_lora_weights=False),
    "loha": LoHaConfig(r=2, target_modules=["qkv"], init_weights=False),
}


def stored(config: PeftConfig, folder: Path) -> dict[str, Tensor]:
    """Save an adapter with random weights by PEFT alone, and return what PEFT's model predicts."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        view = get_peft_model(small_model(), config)
        with torch.no_grad():
            for parameter in view.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn(parameter.shape)
    view.save_pretrained(folder)
    view.eval()
    return outputs(view.base_model.model)


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_it_predicts_what_pefts_own_model_predicts(kind: str, tmp_path: Path) -> None:
    expected = stored(CONFIGS[kind], tmp_path)
    adapted = load_adapter(small_model(), tmp_path)
    base = outputs(small_model())
    for name, found in outputs(adapted.model).items():
        assert torch.equal(found, expected[name]) and not torch.equal(found, base[name])
    assert "not recorded and not checked" in adapted.notes[0] and len(stock_digest(tmp_path)) == 64


@pytest.fixture
def lora(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    return tmp_path, stored(CONFIGS["lora"], tmp_path)


def in_shards(folder: Path, suffix: str) -> list[Path]:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    files = []
    for number, names in enumerate((list(tensors)[::2], list(tensors)[1::2]), start=1):
        file = folder / f"adapter_model-{number:05d}-of-00002.{suffix}"
        part = {name: tensors[name] for name in names}
        save_file(part, file) if suffix == "safetensors" else torch.save(part, file)
        files.append(file)
    return files


@pytest.mark.parametrize("form", ["bin", "shards of safetensors", "shards of bin", "wrapped"])
def test_every_form_of_pefts_files(lora: tuple[Path, dict[str, Tensor]], form: str) -> None:
    folder, expected = lora
    if form.startswith("shards"):
        in_shards(folder, form.rpartition(" ")[2])
    elif form == "bin":
        torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
        (folder / WEIGHTS).unlink()
    else:
        start = "base_model.model."
        wrapped = {
            name.replace(start, f"{start}module._orig_mod."): t for name, t in load_file(folder / WEIGHTS).items()
        }
        save_file(wrapped, folder / WEIGHTS)
    for name, found in outputs(load_adapter(small_model(), folder).model).items():
        assert torch.equal(found, expected[name])


def test_float8_is_widened(lora: tuple[Path, dict[str, Tensor]]) -> None:
    folder, _ = lora
    rounded = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file({name: tensor.float() for name, tensor in rounded.items()}, folder / WEIGHTS)
    expected = outputs(load_adapter(small_model(), folder).model)
    save_file(rounded, folder / WEIGHTS)
    for name, found in outputs(load_adapter(small_model(), folder).model).items():
        assert torch.equal(found, expected[name])


def test_what_does_not_fit_or_is_incomplete(lora: tuple[Path, dict[str, Tensor]]) -> None:
    folder, _ = lora
    with pytest.raises(ConfigError, match="is an adapter of type LORA, which has no basis"):
        load_adapter(small_model(), folder, "basis.safetensors")
    with pytest.raises(DatasetError, match=r"does not fit this model.*give the model it was trained from"):
        load_adapter(small_model(width=48), folder)
    tensors = load_file(folder / WEIGHTS)
    name = next(iter(tensors))
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, folder / WEIGHTS)
    with pytest.raises(DatasetError, match=r"does not fit this model: it lacks .*lora_"):
        load_adapter(small_model(), folder)
    for bad, why in ((tensors[name].to(torch.int8), "int8"), (tensors[name] * torch.nan, "NaN or infinite")):
        save_file(tensors | {name: bad}, folder / WEIGHTS)
        with pytest.raises(DatasetError, match=f"{why}.*"):
            load_adapter(small_model(), folder)
    save_file(tensors | {"base_model.model.wings.lora_A.weight": torch.zeros(3, 3)}, folder / WEIGHTS)
    with pytest.raises(DatasetError, match=r"does not fit this model: it holds .*wings"):
        load_adapter(small_model(), folder)
    in_shards(folder, "bin")[0].unlink()
    with pytest.raises(DatasetError, match=r"shard 1 of 2 is missing"):
        load_adapter(small_model(), folder)
    (folder / "adapter_model-00002-of-00002.bin").unlink()
    with pytest.raises(DatasetError, match=r"no weights beside it .*adapter_model\.bin"):
        load_adapter(small_model(), folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2}))
    with pytest.raises(ConfigError, match="type PREFIX_TUNING, which changes inputs"):
        load_adapter(small_model(), folder)
    config.write_text("{")
    with pytest.raises(DatasetError, match=r"adapter_config\.json is damaged"):
        load_adapter(small_model(), folder)


BAD_VALUES: tuple[tuple[dict[str, object], str], ...] = (
    ({"r": "3"}, "r='3' is no whole number"),
    ({"r": 3.0}, "r=3.0 is no whole number"),
    ({"rank_pattern": {"qkv": "5"}}, "r='5' is no whole number"),
    ({"rank_pattern": [1]}, "rank_pattern=[1] is no table"),
    ({"alpha_pattern": {"((": 3}}, "missing )"),
    ({"lora_alpha": float("nan")}, "lora_alpha=nan is no finite number"),
    ({"target_modules": "(("}, "missing )"),
    ({"target_modules": 5}, "not iterable"),
)


def test_values_that_peft_would_fail_on(lora: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    folder, _ = lora
    config, model = folder / "adapter_config.json", small_model()
    good = json.loads(config.read_text())
    for changes, why in BAD_VALUES:
        config.write_text(json.dumps(good | changes))
        for use in (partial(load_adapter, model, folder), partial(export_folder, folder, tmp_path / "out")):
            with pytest.raises(DatasetError, match=rf"adapter_config\.json is damaged .*{re.escape(why)}"):
                use()


def test_factors_of_another_rank_are_not_exported(lora: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    """PEFT scales by the rank in the configuration: taken from the tensors, it would be another adapter."""
    folder, _ = lora
    tensors = load_file(folder / WEIGHTS)
    cut = {name: (t[:2] if "lora_A" in name else t[:, :2]).contiguous() for name, t in tensors.items()}
    without = {name: tensor for name, tensor in tensors.items() if "lora_A" not in name}
    for damaged, why in ((cut, "is not of the rank 3"), (without, "lacks lora_A"), ({}, "holds no layer's lora_A")):
        save_file(damaged, folder / WEIGHTS)
        with pytest.raises(DatasetError, match=why):
            export_folder(folder, tmp_path / "out")
