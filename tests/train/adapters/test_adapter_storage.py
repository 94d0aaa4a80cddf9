"""Adapters come back exactly, in another process too; what does not fit or is damaged is refused by name."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import load_adapters
import peft
import pytest
import torch
from adapter_models import ADAPTER_MODES, MODES, adapted_model, outputs, small_config, small_model, train
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import training_runs as runs

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem
from megasynth_attr.core.files import sha256_of
from megasynth_train.adapters import Adapted, load_adapter, save_adapter
from megasynth_train.adapters import storage as adapter_storage
from megasynth_train.vggt.checkpoint import load_pretrained, weights_hash

RECORD = {"dataset": "texture_00", "fingerprint": "f" * 64}


@pytest.fixture(scope="session")
def trained() -> dict[str, Adapted]:
    """One trained adapter per mode."""
    return {mode: _trained(mode) for mode in MODES}


def _trained(mode: str) -> Adapted:
    adapted = adapted_model(mode, total_steps=4)
    train(adapted, 4)
    return adapted


@pytest.fixture(scope="session")
def folder(trained: dict[str, Adapted], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one saved adapter per mode; not to be changed."""
    out = tmp_path_factory.mktemp("adapters")
    for mode, adapted in trained.items():
        save_adapter(adapted, out / mode, RECORD)
    return out


@pytest.fixture(scope="session")
def elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What a new process predicts with the saved adapters."""
    file = tmp_path_factory.mktemp("elsewhere") / "outputs.safetensors"
    process = runs.start(load_adapters.main, folder, file, torch.get_num_threads())
    process.join(300)
    assert process.exitcode == 0
    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [*MODES, *(f"stock-{mode}" for mode in load_adapters.STOCK)])
def test_a_new_process_predicts_exactly_the_same(
    mode: str, trained: dict[str, Adapted], elsewhere: dict[str, Tensor]
) -> None:
    base = outputs(small_model())
    for name, expected in outputs(trained[mode.removeprefix("stock-")].model).items():
        assert torch.equal(elsewhere[f"{mode}.{name}"], expected)
        assert not torch.equal(expected, base[name])


@pytest.mark.parametrize("mode", MODES)
def test_a_loaded_adapter_is_the_saved_one(
    mode: str, trained: dict[str, Adapted], folder: Path, tmp_path: Path
) -> None:
    saved = trained[mode]
    global_state = torch.get_rng_state()
    loaded = load_adapter(small_model(), folder / mode)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert (loaded.settings, loaded.base, loaded.seed, loaded.total_steps) == (
        saved.settings,
        saved.base,
        saved.seed,
        saved.total_steps,
    )
    assert list(loaded.trainable) == list(saved.trainable)
    assert all(torch.equal(parameter, saved.trainable[name]) for name, parameter in loaded.trainable.items())
    assert all(torch.equal(tensor, saved.initial[name]) for name, tensor in loaded.initial.items())
    assert loaded.initial.keys() == saved.initial.keys()
    save_adapter(loaded, tmp_path / mode, RECORD)
    before, again = (json.loads((where / mode / "adapter.json").read_text()) for where in (folder, tmp_path))
    if mode == "adalora":  # masks are part of training, not of the adapter
        assert before.pop("ranks") and again.pop("ranks") == {}
    if mode == "full":  # the header of its one file has several entries, whose order is not fixed
        assert before.pop("files").keys() == again.pop("files").keys()
    assert before == again


def test_the_record_says_what_the_adapter_is(trained: dict[str, Adapted], folder: Path) -> None:
    record = json.loads((folder / "adalora" / "adapter.json").read_text())
    assert record["mode"] == "adalora" and record["seed"] == 5 and record["training"] == RECORD
    assert record["base"]["weights_sha256"] == weights_hash(small_model())
    assert record["base"]["config"]["width"] == small_config().width
    assert record["parameters"]["total"] == trained["adalora"].parameter_count()
    assert {"torch", "peft", "megasynth-attr"} <= record["versions"].keys()
    assert sum(record["ranks"].values()) == 4 * 32  # rank 4 on average over 32 linears
    written = {p.relative_to(folder / "adalora").as_posix() for p in (folder / "adalora").rglob("*") if p.is_file()}
    assert set(record["files"]) == written - {"adapter.json"}
    assert not any(path.name == "tmp" for path in (folder / "full").iterdir())


def test_the_whole_model_of_mode_full_is_an_ordinary_checkpoint(trained: dict[str, Adapted], folder: Path) -> None:
    loaded = load_pretrained(str(folder / "full" / "model.safetensors"))
    assert loaded.model.config == small_config()
    expected = trained["full"].model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())


@pytest.mark.parametrize("mode", ["pissa", "lora_xs", "adalora"])
def test_peft_alone_loads_both_adapters_of_a_mode(mode: str, trained: dict[str, Adapted], folder: Path) -> None:
    model = small_model()
    peft.PeftModel.from_pretrained(model, folder / mode)
    del model.peft_config
    peft.PeftModel.from_pretrained(model, folder / mode / "heads", adapter_name="heads")
    for name, layer in model.named_modules():
        if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
            layer.set_adapter(["default" if name.startswith("aggregator.") else "heads"])
    for name, expected in outputs(trained[mode].model).items():  # it repeats the decompositions, on this machine
        torch.testing.assert_close(outputs(model)[name], expected, rtol=1e-5, atol=1e-5)


def test_pissa_equals_plain_lora_of_twice_the_rank(trained: dict[str, Adapted], folder: Path) -> None:
    """W − s·B₀A₀ + s·BA, written out densely, gives the same predictions as PEFT's residual and adapter."""
    tensors = load_file(folder / "pissa" / "adapter_model.safetensors")
    start = load_file(folder / "pissa" / "initial.safetensors")
    model = load_adapter(small_model(), folder / "pissa").model
    for name, module in small_model().named_modules():
        key = f"base_model.model.{name}.lora_A.weight"
        if key in tensors:
            now = tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
            then = start[f"{name}.lora_B.default.weight"] @ start[f"{name}.lora_A.default.weight"]
            layer = model.get_submodule(name)
            dense = layer.base_layer.weight + layer.scaling["default"] * now
            torch.testing.assert_close(module.weight + 2 * (now - then), dense, rtol=1e-5, atol=1e-6)


def test_another_base_model_is_refused(folder: Path) -> None:
    other = small_model(seed=4)
    with pytest.raises(DatasetError, match=r"was made for a model of width 24 and 4 pairs .* this model is") as caught:
        load_adapter(other, folder / "lora")
    assert weights_hash(small_model())[:12] in str(caught.value) and weights_hash(other)[:12] in str(caught.value)
    assert not any("lora_" in name for name, _ in other.named_parameters())
    with pytest.raises(DatasetError, match="heads: depth"):
        load_adapter(small_model(camera_head=False), folder / "lora")
    with pytest.raises(DatasetError, match=r"set model\.size to match"):
        load_adapter(small_model(width=48), folder / "full")


def test_a_point_head_does_not_make_it_another_base_model(folder: Path) -> None:
    model = small_model()
    with_points = small_model(point_head=True)
    with_points.load_state_dict(model.state_dict(), strict=False)
    without = load_adapter(model, folder / "lora").trainable
    loaded = load_adapter(with_points, folder / "lora").trainable
    assert loaded.keys() == without.keys() and all(torch.equal(loaded[name], without[name]) for name in loaded)


def _damage_record(folder: Path) -> None:
    (folder / "adapter.json").write_text("{")


def _change_record(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "adapter.json").read_text()) | changes
    (folder / "adapter.json").write_text(json.dumps({key: value for key, value in record.items() if value != "forget"}))


def _flip_byte(folder: Path) -> None:
    content = bytearray((folder / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(content)


def _change_config(folder: Path, **changes: object) -> None:
    file = folder / "adapter_config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value != "forget"}))
    record = json.loads((folder / "adapter.json").read_text())
    record["files"]["adapter_config.json"] = sha256_of(file)  # as if somebody had made it so
    (folder / "adapter.json").write_text(json.dumps(record))


def _drop_heads(folder: Path) -> None:
    shutil.rmtree(folder / "heads")


@pytest.mark.parametrize(
    ("mode", "damage", "message"),
    [
        ("lora", _damage_record, "adapter.json is damaged"),
        ("lora", lambda folder: (folder / "adapter.json").unlink(), "adapter.json is missing"),
        ("lora", lambda folder: _change_record(folder, base="forget"), r"adapter\.json: field 'base' is missing"),
        (
            "lora",
            lambda folder: _change_record(folder, base={"size": 3}),
            "base: field 'config' is missing",
        ),
        (
            "lora",
            lambda folder: _change_record(folder, files=["a"]),
            "files: expected a table, found list",
        ),
        (
            "lora",
            lambda folder: _change_record(folder, adapters=3),
            "adapters: expected a list, found int",
        ),
        ("lora", lambda folder: _change_record(folder, adapters=[]), "damaged: its adapters lack default"),
        ("lora", lambda folder: _change_record(folder, adapters=["default", "../.."]), "adapter.json"),
        ("lora", _flip_byte, "adapter_model.safetensors is damaged"),
        ("pissa", lambda folder: (folder / "initial.safetensors").unlink(), "initial.safetensors is missing"),
        ("lora", lambda folder: _change_config(folder, target_modules="forget"), "adapter_config.json is damaged"),
        ("lora", lambda folder: _change_config(folder, target_modules="(("), "adapter_config.json is damaged"),
        ("lora", lambda folder: _change_config(folder, peft_type="nothing"), "adapter_config.json is damaged"),
        ("adalora", _drop_heads, r"heads.* is missing"),
        ("lora", shutil.rmtree, "no adapter folder"),
    ],
)
def test_damage_is_named(mode: str, damage: object, message: str, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder / mode, tmp_path / mode))
    assert callable(damage)
    damage(copy)
    with pytest.raises(DatasetError, match=message):
        load_adapter(small_model(), copy)


def test_an_adapter_of_an_older_version_has_defaults_for_newer_keys(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder / "lora", tmp_path / "lora"))
    record = json.loads((copy / "adapter.json").read_text())
    del record["settings"]["basis"]
    (copy / "adapter.json").write_text(json.dumps(record))
    assert load_adapter(small_model(), copy).settings == load_adapter(small_model(), folder / "lora").settings


def test_the_folder_of_a_run_names_its_adapter(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "lora", tmp_path / "run" / "adapter")
    with pytest.raises(DatasetError, match=rf"is no adapter: .* is adapter={tmp_path / 'run' / 'adapter'}"):
        load_adapter(small_model(), tmp_path / "run")


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
@pytest.mark.parametrize("mode", ["lora", "lora_xs"])
def test_tensors_that_do_not_fit_are_never_ignored(mode: str, change: str, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder / mode, tmp_path / mode))
    file = copy / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    if change == "missing":
        del tensors[name]
    elif change == "unknown":
        tensors[name + ".more"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(5, 7)
    save_file(tensors, file)
    record = json.loads((copy / "adapter.json").read_text())
    record["files"]["adapter_model.safetensors"] = sha256_of(file)  # as if somebody had made it so
    (copy / "adapter.json").write_text(json.dumps(record))
    expected = {"missing": "it lacks", "unknown": "has unknown", "shape": r"\(5, 7\) instead of"}[change]
    with pytest.raises(DatasetError, match=expected):
        load_adapter(small_model(), copy)


def test_saving_again_replaces_the_folder_whole(tmp_path: Path) -> None:
    adapted = adapted_model("lora")
    save_adapter(adapted, tmp_path / "a", {"run": 1})
    (tmp_path / "a" / "foreign").write_text("gone afterwards")
    train(adapted, 1)
    save_adapter(adapted, tmp_path / "a", {"run": 2})
    assert json.loads((tmp_path / "a" / "adapter.json").read_text())["training"] == {"run": 2}
    assert not (tmp_path / "a" / "foreign").exists()
    assert not (tmp_path / "tmp").exists()


def test_a_full_disk_leaves_the_saved_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = adapted_model("lora")
    save_adapter(adapted, tmp_path / "a", {"run": 1})

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(adapter_storage, "write_durably", full)
    with pytest.raises(EnvironmentProblem, match="disk is full"):
        save_adapter(adapted, tmp_path / "a", {"run": 2})
    monkeypatch.undo()
    assert json.loads((tmp_path / "a" / "adapter.json").read_text())["training"] == {"run": 1}
    load_adapter(small_model(), tmp_path / "a")
    assert not (tmp_path / "tmp").exists()


@pytest.mark.parametrize("mode", ADAPTER_MODES)
def test_training_goes_on_from_a_loaded_adapter(mode: str, folder: Path) -> None:
    loaded = load_adapter(small_model(), folder / mode)
    values = train(loaded, 2)
    assert values[0] != values[1]
