"""The tuner on small models: its formula, its gradient, and everything PEFT does with adapters."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from adapter_models import basis_for
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.peft_types import register_peft_method
from safetensors.torch import load_file
from subspace_toys import LAYERS, Toy, inputs, toy
from torch import Tensor, nn
from torch._dynamo.utils import counters

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.adapters.subspace import SubspaceConfig, SubspaceLinear, SubspaceModel
from megasynth_train.adapters.subspace.model import register
from megasynth_train.subspace.basis import Basis, LayerBasis, random_basis
from megasynth_train.subspace.basis_file import write_basis

FIXTURES = Path(__file__).parents[2] / "fixtures"
WIDTHS = {"texture": 3, "pose": 2}


@pytest.fixture(scope="module")
def basis() -> Basis:
    return basis_for(toy(), WIDTHS, LAYERS)


@pytest.fixture(scope="module")
def file(basis: Basis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("basis") / "all.safetensors"
    write_basis(path, basis)
    return path


def wrap(model: nn.Module, file: Path, **changes: Any) -> peft.PeftModel:
    return peft.get_peft_model(model, SubspaceConfig(basis=str(file), **changes))


def set_m(model: nn.Module, adapter: str = "default", seed: int = 2) -> None:
    """Give every trained number of an adapter a value away from 0."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(f".{adapter}") or f".{adapter}." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=rng))


def test_the_formula_of_the_reference_fixture() -> None:
    """y = x Wᵀ + b + s · x Aᵀ Mᵀ Bᵀ with the fixture's A and B, which are our Bᵀ and A."""
    stored = load_file(FIXTURES / "adapter.safetensors")
    scale = stored["scaling"].item()
    left, right = stored["B_out_basis"].numpy(), stored["A_in_basis"].numpy().T
    size = left.shape[1]
    layer = LayerBasis(np.ascontiguousarray(left), np.ascontiguousarray(right), np.ones(size, np.float32))
    basis = Basis({"0": layer}, {"0": {"all": (0, size)}}, ("all",), {}, {})
    linear = nn.Linear(32, 96)
    linear.load_state_dict({"weight": stored["W"], "bias": stored["bias"]})
    config = SubspaceConfig(scale=scale)
    config.opened = basis
    model = peft.get_peft_model(nn.Sequential(linear), config)
    layer_now = model.base_model.model[0]
    layer_now.lora_M["default"].data.copy_(stored["M"])
    torch.testing.assert_close(model(stored["x"]), stored["y"], rtol=1e-5, atol=1e-5)
    expected = scale * stored["B_out_basis"] @ stored["M"] @ stored["A_in_basis"]
    torch.testing.assert_close(layer_now.get_delta_weight("default"), expected)


@pytest.mark.parametrize("mask", ["full", "block_diagonal"])
@pytest.mark.parametrize("norm", ["orthonormal", "sqrt_sigma"])
def test_the_gradient_is_that_of_the_formula(mask: str, norm: str, basis: Basis, file: Path) -> None:
    """dL/dM = s · Aᵀ (dL/dW) B, inside the blocks."""
    model = wrap(toy(), file, mask=mask, basis_norm=norm, scale=1.5)
    plain = toy()
    for some in (model, plain):
        some(inputs()).square().sum().backward()
    for name in LAYERS:
        layer, known = model.base_model.model.get_submodule(name), basis.layers[name]
        roots = np.sqrt(known.scales) if norm == "sqrt_sigma" else np.ones(5, np.float32)
        weight = plain.get_submodule(name).weight.grad.numpy()
        expected = 1.5 * (known.left * roots).T @ weight @ (known.right * roots)
        if mask == "block_diagonal":
            expected[:3, 3:] = expected[3:, :3] = 0
        np.testing.assert_allclose(layer.lora_M["default"].grad.numpy(), expected, rtol=1e-4, atol=1e-5)
        assert np.abs(expected).max() > 0  # M = 0 at the start, and it learns all the same


def test_the_mean_is_where_the_adapter_starts(basis: Basis, file: Path) -> None:
    for norm in ("orthonormal", "sqrt_sigma"):
        model = wrap(toy(), file, m_init="mean", basis_norm=norm, scale=3.0)
        for name in LAYERS:
            known = basis.layers[name]
            expected = known.left @ known.mean @ known.right.T
            found = model.base_model.model.get_submodule(name).get_delta_weight("default").detach().numpy()
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_only_m_is_trained_and_only_m_is_stored(file: Path, tmp_path: Path) -> None:
    model = wrap(toy(), file)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"base_model.model.{name}.lora_M.default" for name in LAYERS
    }
    model.save_pretrained(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name: list(t.shape) for name, t in stored.items()} == {
        f"base_model.model.{name}.lora_M": [5, 5] for name in LAYERS
    }
    assert not any(key.endswith((".lora_A.default.weight", "lora_B.default.weight")) for key in model.state_dict())


def test_blocks_stay_exactly_zero_under_adamw(file: Path) -> None:
    model = wrap(toy(), file, mask="block_diagonal", m_init="mean")
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    start = model.base_model.model.first.lora_M["default"].detach().clone()
    for _ in range(5):
        optimiser.zero_grad()
        model(inputs()).square().sum().backward()
        optimiser.step()
    m = model.base_model.model.first.lora_M["default"].detach()
    assert torch.count_nonzero(m[:3, 3:]) == torch.count_nonzero(m[3:, :3]) == 0
    assert bool((m[:3, :3] != start[:3, :3]).all()) and bool((m[3:, 3:] != start[3:, 3:]).all())


@pytest.mark.parametrize("options", [{}, {"mask": "block_diagonal", "m_init": "mean"}, {"basis_norm": "sqrt_sigma"}])
def test_saved_and_loaded_by_peft_alone(options: dict[str, str], file: Path, tmp_path: Path) -> None:
    model = wrap(toy(), file, attributes=["pose"], target_modules=r"first|second|last|conv", r=2, **options)
    set_m(model)
    model.save_pretrained(tmp_path / "adapter")
    expected = model(inputs())
    for lean_memory in (False, True):
        loaded = peft.PeftModel.from_pretrained(toy(), tmp_path / "adapter", low_cpu_mem_usage=lean_memory)
        assert torch.equal(loaded(inputs()), expected)
    kinds = {n: type(m) for n, m in loaded.base_model.model.named_modules() if hasattr(m, "lora_A")}
    assert kinds["first"] is SubspaceLinear and kinds["conv"] is peft.tuners.lora.Conv2d
    assert (
        loaded.peft_config["default"].attributes == ["pose"] and loaded.peft_config["default"].peft_type == "SUBSPACE"
    )


@pytest.mark.parametrize("safe", [False, True])
def test_merging_and_taking_it_back(safe: bool, file: Path) -> None:
    model = wrap(toy(), file)
    set_m(model)
    base, expected = toy()(inputs()), model(inputs())
    model.merge_adapter(safe_merge=safe)
    torch.testing.assert_close(model(inputs()), expected, rtol=1e-6, atol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(model(inputs()), expected, rtol=1e-6, atol=1e-5)
    with model.disable_adapter():
        torch.testing.assert_close(model(inputs()), base, rtol=1e-6, atol=1e-5)
    merged = model.merge_and_unload(safe_merge=safe)
    assert not any(isinstance(module, SubspaceLinear) for module in merged.modules())
    torch.testing.assert_close(merged(inputs()), expected, rtol=1e-6, atol=1e-5)


def test_the_merged_weight_is_exact_to_rounding(basis: Basis, file: Path) -> None:
    model = wrap(toy(), file)
    set_m(model)
    m = model.base_model.model.first.lora_M["default"].detach().double().numpy()
    known = basis.layers["first"]
    dense = toy().first.weight.detach().double().numpy() + 2.0 * known.left @ m @ known.right.T
    merged = model.merge_and_unload().first.weight.detach().numpy()
    assert np.abs(merged - dense).max() <= 1e-6 * np.abs(dense).max()


def test_several_adapters_each_in_a_basis_of_its_own(basis: Basis, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    write_basis(other, random_basis(basis_for(toy(), {"light": 4}, ("second",)), seed=3))
    model = wrap(toy(), file, target_modules=r"first|second", r=2)
    model.add_adapter("other", SubspaceConfig(basis=str(other), target_modules=r"first|second", r=2))
    set_m(model)
    set_m(model, "other", seed=5)
    layer = model.base_model.model.first
    assert "other" not in layer.lora_M and layer.lora_B["other"].weight.shape == (12, 2)  # the second has no first
    both = {}
    for name, path in (("default", file), ("other", other)):
        alone = wrap(toy(), path, target_modules=r"first|second", r=2)
        set_m(alone, seed=2 if name == "default" else 5)
        model.set_adapter(name)
        both[name] = alone(inputs())
        assert torch.equal(model(inputs()), both[name])
        trained = {n.rpartition("default")[0] for n, p in alone.named_parameters() if p.requires_grad}
        assert {n.rpartition(name)[0] for n, p in model.named_parameters() if p.requires_grad} == trained
    names = ["default", "other", "__base__"] * 2
    model.eval()
    mixed = model(inputs(), adapter_names=names)
    expected = torch.stack([(both | {"__base__": toy()(inputs())})[name][i] for i, name in enumerate(names)])
    torch.testing.assert_close(mixed, expected)
    model.delete_adapter("default")
    assert torch.equal(model(inputs()), both["other"])
    with pytest.raises(ConfigError, match="export them to plain LoRA"):
        model.add_weighted_adapter(["other"], [1.0], "sum")


def test_disabling_keeps_the_basis_frozen_and_scaling_scales(file: Path) -> None:
    model = wrap(toy(), file)
    set_m(model)
    expected, base = model(inputs()), toy()(inputs())
    with model.disable_adapter():
        assert torch.equal(model(inputs()), base)
    assert [n for n, p in model.named_parameters() if p.requires_grad and ".lora_M." not in n] == []
    assert torch.equal(model(inputs()), expected)
    for layer in (model.base_model.model.first, model.base_model.model.second):
        layer.scale_layer(0.0)
    assert torch.equal(model(inputs()), base)
    for layer in (model.base_model.model.first, model.base_model.model.second):
        layer.unscale_layer()
    torch.testing.assert_close(model(inputs()), expected)


def test_a_copy_is_independent_and_a_bf16_base_leaves_the_basis_alone(basis: Basis, file: Path) -> None:
    model = wrap(toy(), file)
    twin = copy.deepcopy(model)
    set_m(twin)
    assert torch.equal(model(inputs()), toy()(inputs())) and not torch.equal(twin(inputs()), model(inputs()))
    half = toy().to(torch.bfloat16)
    wrapped = wrap(half, file)
    layer = wrapped.base_model.model.first
    assert layer.lora_M["default"].dtype == torch.float32
    np.testing.assert_array_equal(layer.left("default").numpy(), basis.layers["first"].left)
    set_m(wrapped)
    found = wrapped(inputs().to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), twin(inputs()), rtol=0.1, atol=0.3)


def test_bf16_autocast_and_gradients_in_float32(file: Path) -> None:
    model = wrap(toy(), file)
    set_m(model)
    expected = model(inputs())
    with torch.autocast("cpu", torch.bfloat16):
        found = model(inputs())
    found.float().square().sum().backward()
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.3)
    assert model.base_model.model.first.lora_M["default"].grad.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["full", "block_diagonal"])
def test_it_compiles_without_a_break(mask: str, file: Path) -> None:
    model = wrap(toy(), file, mask=mask, target_modules=r"first|second|conv", r=2)
    set_m(model)
    expected = model(inputs())
    model.zero_grad()
    expected.square().sum().backward()
    gradient = model.base_model.model.first.lora_M["default"].grad.clone()
    compiled = torch.compile(model.base_model.model, backend="aot_eager", fullgraph=True)
    model.zero_grad()
    found = compiled(inputs())
    found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model.base_model.model.first.lora_M["default"].grad, gradient)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_machine_code_of_a_layer_gives_the_same_numbers(file: Path) -> None:
    torch._dynamo.reset()
    counters.clear()
    model = wrap(toy(), file, mask="block_diagonal", scale=1.5)
    set_m(model)
    layer = model.base_model.model.first
    compiled = torch.compile(layer, backend="inductor", fullgraph=True)

    def run(module: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.randn(5, 32, generator=torch.Generator().manual_seed(7)).requires_grad_()
        layer.zero_grad()
        out = module(x)
        out.square().sum().backward()
        return out.detach(), layer.lora_M["default"].grad.clone(), x.grad

    for found, expected in zip(run(compiled), run(layer), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1 and counters["inductor"]


def test_plain_layers_are_pefts_own_lora(file: Path) -> None:
    """Outside the basis nothing differs from stock LoRA with the same seed."""
    found = []
    for config in (
        SubspaceConfig(basis=str(file), target_modules=r"last|conv", r=2, lora_alpha=4),
        peft.LoraConfig(target_modules=r"last|conv", r=2, lora_alpha=4),
    ):
        torch.manual_seed(4)
        with pytest.warns(UserWarning, match="leaves 2 of the 2") if config.peft_type == "SUBSPACE" else nullcontext():
            model = peft.get_peft_model(toy(), config)
        set_m(model)
        found.append(model(inputs()))
    assert torch.equal(*found)


def test_registration_is_idempotent_and_refuses_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    assert PEFT_TYPE_TO_CONFIG_MAPPING["SUBSPACE"] is SubspaceConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING["SUBSPACE"] is SubspaceModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING["SUBSPACE"] == "lora_"
    monkeypatch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, "SUBSPACE", peft.LoraModel)
    with pytest.raises(RuntimeError, match="another method named SUBSPACE"):
        register()


def test_what_is_relied_on_of_peft() -> None:
    """The pinned version's inner interfaces; a new minor version must be looked at before it is allowed."""
    assert peft.__version__.startswith("0.21.")
    assert {"init", "forward", "merge_safe", "merge_unsafe", "unmerge"} <= vars(
        peft.tuners.lora.layer.LoraVariant
    ).keys()
    assert isinstance(vars(peft.LoraModel)["_create_new_module"], staticmethod)
    assert "SUBSPACE" not in list(peft.PeftType)
    with pytest.raises(ValueError, match="Unknown PEFT type SUBSPACE_2"):  # why register() exists
        register_peft_method(name="subspace_2", config_cls=SubspaceConfig, model_cls=SubspaceModel, prefix="lora_")


def test_no_task_type_so_that_images_go_in_as_they_are(file: Path, tmp_path: Path) -> None:
    """With one, PEFT would wrap the forward pass and pass input_ids."""
    model = wrap(toy(), file)
    assert type(model) is peft.PeftModel and model.peft_config["default"].task_type is None
    assert model.forward(x=inputs()).shape == (6, 3)
    model.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["task_type"] is None


Spoil = Callable[[Basis, Toy], tuple[Basis, Toy]]


def _renamed(basis: Basis, model: Toy) -> tuple[Basis, Toy]:
    return (
        Basis({"third": basis.layers["first"]}, {"third": basis.columns["first"]}, basis.attributes, {}, basis.record),
        model,
    )


def _resized(basis: Basis, model: Toy) -> tuple[Basis, Toy]:
    model.first = nn.Linear(32, 14)
    return basis, model


def _convolution(basis: Basis, model: Toy) -> tuple[Basis, Toy]:
    model.second = nn.Conv2d(12, 10, 1)
    return basis, model


def _of_another_base(basis: Basis, model: Toy) -> tuple[Basis, Toy]:
    record = {"weights_sha256": "a" * 64, "size": "vggt-1b"}
    return Basis(basis.layers, basis.columns, basis.attributes, record, basis.record), model


def _without_mean(basis: Basis, model: Toy) -> tuple[Basis, Toy]:
    return random_basis(basis, 0), model


def _with_zero(basis: Basis, model: Toy) -> tuple[Basis, Toy]:
    layers = {n: LayerBasis(x.left, x.right, np.zeros(5, np.float32), x.mean) for n, x in basis.layers.items()}
    return Basis(layers, basis.columns, basis.attributes, {}, basis.record), model


def _adapted_already(basis: Basis, model: Toy) -> tuple[Basis, Toy]:
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["first"]))
    return basis, model


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (_renamed, {}, "third, which this model lacks"),
        (_resized, {}, "first of 12 outputs and 32 inputs, here it has 14 and 32"),
        (_convolution, {}, "second, which is a Conv2d"),
        (_of_another_base, {}, "adapters of vggt-1b with weights aaaaaaaaaaaa, but this model's weights are"),
        (_without_mean, {"m_init": "mean"}, "holds no mean of first"),
        (_with_zero, {"basis_norm": "sqrt_sigma"}, "singular value 0"),
        (_adapted_already, {}, "first already has an adapter of another method"),
    ],
)
@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_what_does_not_fit_is_refused_before_the_model_is_touched(
    spoil: Spoil, options: dict[str, Any], message: str, basis: Basis, tmp_path: Path
) -> None:
    spoilt, model = spoil(basis, toy())
    write_basis(tmp_path / "spoilt.safetensors", spoilt)
    before = [(name, type(module)) for name, module in model.named_modules()]
    with pytest.raises(ConfigError, match=message):
        wrap(model, tmp_path / "spoilt.safetensors", **options)
    assert [(name, type(module)) for name, module in model.named_modules()] == before


def test_a_wrong_or_missing_basis_is_never_a_silent_lora(basis: Basis, file: Path, tmp_path: Path) -> None:
    model = wrap(toy(), file)
    model.save_pretrained(tmp_path / "adapter")
    config = peft.PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    config.basis = str(tmp_path / "gone.safetensors")
    with pytest.raises(DatasetError, match=r"gone\.safetensors does not exist"):
        peft.PeftModel.from_pretrained(toy(), tmp_path / "adapter", config=config)
    write_basis(tmp_path / "random.safetensors", random_basis(basis, 0))
    config.basis = str(tmp_path / "random.safetensors")
    with pytest.raises(ConfigError, match=r"another basis than the one this adapter was trained in"):
        peft.PeftModel.from_pretrained(toy(), tmp_path / "adapter", config=config)
    with pytest.raises(ConfigError, match="no attribute texure"):
        wrap(toy(), file, attributes=["texure"])
    with pytest.raises(ConfigError, match="basis is missing"):
        peft.get_peft_model(toy(), SubspaceConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "diagonal"}, "mask=diagonal: must be one of full, block_diagonal"),
        ({"basis_norm": "raw"}, "basis_norm=raw"),
        ({"m_init": "random"}, "m_init=random"),
        ({"scale": 0.0}, "scale=0: must be at least 1e-06"),
        ({"use_dora": True}, "use_dora"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SubspaceConfig(**options)


def test_attributes_are_columns_of_the_whole(basis: Basis, file: Path) -> None:
    model = wrap(toy(), file, attributes=["pose"])
    layer = model.base_model.model.first
    left: Tensor = layer.left("default")
    np.testing.assert_array_equal(left.numpy(), basis.layers["first"].left[:, 3:])
    assert layer.lora_M["default"].shape == (2, 2)
