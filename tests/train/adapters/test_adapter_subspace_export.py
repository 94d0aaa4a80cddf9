"""An exported adapter is a plain LoRA with the same predictions, where this project is not installed too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from adapter_models import adapted_model, basis_file, basis_for, outputs, small_model, train
from safetensors.torch import load_file
from subspace_toys import LAYERS, inputs, toy

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.adapters import save_adapter
from megasynth_train.adapters.subspace import SubspaceConfig
from megasynth_train.adapters.subspace.export import export_folder
from megasynth_train.export_lora import main
from megasynth_train.subspace.basis import Basis
from megasynth_train.subspace.basis_file import read_basis, write_basis


def trained_toy(file: Path, **options: object) -> peft.PeftModel:
    """Return a toy with M and plain LoRA away from 0, layers of different dimensions among them."""
    narrow, wide = basis_for(toy(), {"texture": 1}, LAYERS[:1]), basis_for(toy(), {"texture": 3, "pose": 2}, LAYERS[1:])
    attributes = ("texture", "pose")
    layers, columns = {**narrow.layers, **wide.layers}, {**narrow.columns, **wide.columns}
    write_basis(file, Basis(layers, columns, attributes, {}, {"orthonormal": True}))
    config = SubspaceConfig(basis=str(file), target_modules=r"first|second|conv|last", r=2, lora_alpha=3, **options)
    model = peft.get_peft_model(toy(), config)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    return model


@pytest.mark.parametrize(
    "options",
    [{}, {"mask": "block_diagonal"}, {"basis_norm": "sqrt_sigma", "scale": 0.7}, {"use_rslora": True}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_the_update_is_the_same(options: dict[str, object], tmp_path: Path) -> None:
    model = trained_toy(tmp_path / "b.safetensors", **options)
    model.save_pretrained(tmp_path / "mine")
    export_folder(tmp_path / "mine", tmp_path / "lora")
    stock = peft.PeftModel.from_pretrained(toy(), tmp_path / "lora")
    assert stock.peft_config["default"].peft_type == "LORA"
    for name in ("first", "second", "conv", "last"):
        mine, theirs = (m.base_model.model.get_submodule(name) for m in (model, stock))
        expected = mine.get_delta_weight("default").detach().numpy()
        found = theirs.get_delta_weight("default").detach().numpy()
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
        assert theirs.scaling["default"] == (1.0 if name in LAYERS else mine.scaling["default"])
    torch.testing.assert_close(stock(inputs()), model(inputs()), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_it_loads_where_this_project_is_not_installed(tmp_path: Path) -> None:
    model = trained_toy(tmp_path / "b.safetensors")
    model.save_pretrained(tmp_path / "mine")
    export_folder(tmp_path / "mine", tmp_path / "lora")
    program = Path(__file__).parent / "load_exported.py"
    found = tmp_path / "found.safetensors"
    # without PYTHONPATH, which is how this project would be found
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, str(program), str(tmp_path / "lora"), str(found)], check=True, env=environment)
    torch.testing.assert_close(load_file(found)["found"], model(inputs()), rtol=1e-5, atol=1e-5)
    assert "basis" not in json.loads((tmp_path / "lora" / "adapter_config.json").read_text())


def test_a_saved_adapter_of_a_vggt_is_exported_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapted = adapted_model("subspace", attributes=("texture",))
    train(adapted, 2)
    save_adapter(adapted, tmp_path / "adapter", {})
    main([f"adapter={tmp_path / 'adapter'}", f"out={tmp_path / 'lora'}"])
    assert str(tmp_path / "lora") in capsys.readouterr().out
    model, expected = small_model(), outputs(adapted.model)
    peft.PeftModel.from_pretrained(model, tmp_path / "lora")
    for name, value in outputs(model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    adapted.wrapped["default"].save_pretrained(tmp_path / "peft")  # by PEFT alone, without our record
    export_folder(tmp_path / "peft", tmp_path / "again")
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("lora", "again"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_what_cannot_be_exported_is_refused_and_nothing_is_overwritten(tmp_path: Path) -> None:
    save_adapter(adapted_model("lora"), tmp_path / "plain", {})
    with pytest.raises(ConfigError, match="is plain LoRA, which has no basis"):
        main([f"adapter={tmp_path / 'plain'}", f"out={tmp_path / 'lora'}", f"basis={basis_file()}"])
    with pytest.raises(ConfigError, match="out= is missing"):
        main([f"adapter={tmp_path / 'plain'}"])
    with pytest.raises(DatasetError, match="no adapter folder"):
        main([f"adapter={tmp_path / 'gone'}", f"out={tmp_path / 'lora'}"])
    save_adapter(adapted_model("subspace"), tmp_path / "mine", {})
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="exists already"):
        export_folder(tmp_path / "mine", tmp_path / "lora")
    assert [path.name for path in (tmp_path / "lora").iterdir()] == ["mine"]
    write_basis(tmp_path / "other.safetensors", read_basis(basis_file()).select(["pose"]))
    with pytest.raises(ConfigError, match="no attribute texture"):
        export_folder(tmp_path / "mine", tmp_path / "new", basis=str(tmp_path / "other.safetensors"))
    assert not (tmp_path / "new").exists()
    for mode, why in (("full", "nor LoRA"), ("adalora", "nor LoRA"), ("pissa", "changes the base weight")):
        save_adapter(adapted_model(mode), tmp_path / mode, {})
        with pytest.raises(ConfigError, match=why):
            export_folder(tmp_path / mode, tmp_path / "new")
