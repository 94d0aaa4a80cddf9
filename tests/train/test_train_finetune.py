"""From a command line to a saved result, and the errors on the way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import training_runs as runs
from safetensors.torch import load_file

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem, ExitCode, run_main
from megasynth_train.adapters import load_adapter
from megasynth_train.finetune import main, settings_identity
from megasynth_train.training.base_model import base_model
from megasynth_train.training.processes import make_accelerator
from megasynth_train.training.settings import ModelSettings, TrainSettings
from megasynth_train.vggt.checkpoint import save_model, weights_hash
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.initialise import random_model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_training_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that begins from a weights file."""
    folder = tmp_path_factory.mktemp("trained")
    save_model(random_model(named_config("vggt-tiny"), seed=3), folder / "base.safetensors")
    words = runs.words(data, folder / "run", "steps=4", f"checkpoint={folder / 'base.safetensors'}")
    assert run_main(main, words) == ExitCode.DONE
    return folder


def test_the_run_folder_holds_what_the_documentation_says(trained: Path, data: Path) -> None:
    out = trained / "run"
    assert {p.name for p in out.iterdir()} - {"best"} == {
        "settings.json", "metrics.jsonl", "checkpoints", "adapter", "done.json", ".lock",
    }  # fmt: skip
    settings = json.loads((out / "settings.json").read_text())
    assert settings["data"]["sources"] == [str(data)] and settings["optim"]["steps"] == 4
    done = json.loads((out / "done.json").read_text())
    assert done["step"] == 4 and done["result"] == "adapter"
    record = json.loads((out / "adapter" / "adapter.json").read_text())["training"]
    assert record["step"] == 4 and len(record["data_fingerprint"]) == 64 and record["scenes"]


def test_the_saved_adapter_predicts_what_the_trained_model_predicted(trained: Path) -> None:
    settings = runs.settings_of(trained, trained / "run", f"checkpoint={trained / 'base.safetensors'}")
    model = load_adapter(base_model(settings.model, []), trained / "run" / "adapter").model.eval()
    weights = load_file(trained / "run" / "checkpoints" / "step_00000004" / "weights.safetensors")
    parameters = dict(model.named_parameters())
    assert weights and all(torch.equal(parameters[name], tensor) for name, tensor in weights.items())
    images = torch.rand(1, 2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = base_model(settings.model, [])(images), model(images)
    assert not torch.allclose(before.depth, after.depth), "training has changed the prediction"


def test_the_base_model_is_the_files_and_otherwise_a_random_one_with_a_loud_note(trained: Path) -> None:
    notes: list[str] = []
    settings = runs.settings_of(trained, trained, f"checkpoint={trained / 'base.safetensors'}")
    expected = weights_hash(random_model(named_config("vggt-tiny", point_head=False), seed=3))
    loaded = base_model(settings.model, notes)
    assert loaded.point_head is None and len(notes) == 1 and "untrained parts are ignored" in notes[0]
    other = base_model(runs.settings_of(trained, trained, "model.seed=3").model, notes)
    assert "RANDOM" in notes[1]
    assert weights_hash(other) == expected
    # the heads are drawn one after the other, so only what comes before the point head is the same
    assert torch.equal(
        loaded.aggregator.camera_token, random_model(named_config("vggt-tiny"), 3).aggregator.camera_token
    )


def test_a_checkpoint_that_is_none_is_refused(data: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"no weights")
    with pytest.raises(DatasetError, match="wrong"):
        runs.train_here(data, tmp_path / "run", f"checkpoint={wrong}")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_best_model_is_saved_besides_the_last(data: Path, tmp_path: Path) -> None:
    # the rate explodes at the end: the best is not the last
    words = ("steps=6", "run.validate_every=2", "optim.warmup=1", "optim.lr_start=1e-4", "lr=0.3", "optim.clip=0")
    result = runs.train_here(data, tmp_path, *words)
    assert result.best_step == 2 and result.best.name == "best"
    best, last = (load_file(folder / "adapter_model.safetensors") for folder in (result.best, result.result))
    kept = load_file(tmp_path / "checkpoints" / "best" / "weights.safetensors")
    assert best.keys() == last.keys() and any(not torch.equal(best[name], last[name]) for name in best)
    assert sorted(t.double().sum().item() for t in kept.values()) == sorted(
        t.double().sum().item() for t in best.values()
    )
    assert json.loads((result.best / "adapter.json").read_text())["training"]["step"] == 2


def test_without_validation_scenes_there_is_no_validation_and_a_note(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = runs.train_here(data, tmp_path, "steps=2", "data.validation_share=0.000001", "run.validate_every=1")
    assert result.best_step is None and result.best == result.result
    assert "nothing is validated" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_asked_for_and_absent_is_an_environment_problem(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(main, runs.words(data, tmp_path / "run", "device=cuda")) == ExitCode.ENVIRONMENT
    assert "run.device=cuda, but PyTorch sees no CUDA GPU" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_disk_too_small_is_refused_before_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import megasynth_train.training.run_folder as module

    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(EnvironmentProblem, match=r"has only 1 kB free, but a checkpoint and the result take 7\.\d+ MB"):
        runs.train_here(data, tmp_path / "run", "steps=2")
    assert not (tmp_path / "run" / "settings.json").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("out=", "out= is missing"),
        ("data=", "data= is missing"),
        ("steps=0", "optim.steps=0: must be at least 1"),
        ("optim.stesp=3", "optim.steps"),
        ("model=vggt-7b", "model.size=vggt-7b"),
        ("data.views=[9,9]", "9"),
        ("optim.beta1=1", "optim.beta1=1"),
        ("optim.beta2=1", "optim.beta2=1"),
        ("optim.eps=0", "optim.eps=0"),
        ("model.keep=attention", "add model.gradient_checkpointing=true"),
    ],
)
def test_wrong_settings_are_refused_with_code_2(
    data: Path, tmp_path: Path, word: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(main, runs.words(data, tmp_path, word)) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def every_file(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "file", ["tmp/notes.txt", "adapter/mine.txt", "metrics.jsonl", "settings.json", "checkpoints/tmp/a", "best/a"]
)
def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(data: Path, tmp_path: Path, file: str) -> None:
    out = tmp_path / "mine"
    for name in ("thesis.txt", file):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text('{"step": 7}\n')
    before = every_file(out)
    with pytest.raises(ConfigError, match=r"it is no training run; choose another out="):
        runs.train_here(data, out, "steps=1")
    assert every_file(out) == before


def test_what_the_user_keeps_in_tmp_stays(data: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds tmp, .*: it is no training run"):
        runs.train_here(data, tmp_path, "steps=1")
    (tmp_path / "settings.json").write_text('{"format": "megasynth-attr training settings 1"}')  # a run has begun here
    runs.train_here(data, tmp_path, "steps=1", "run.validate_every=0")
    assert (tmp_path / "tmp" / "notes.txt").read_text() == "mine"


def test_an_out_that_is_a_file_or_has_a_folder_for_settings_is_a_clear_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        runs.train_here(data, tmp_path / "file", "steps=1")
    (tmp_path / "run" / "settings.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"settings\.json cannot be read: .*Is a directory"):
        runs.train_here(data, tmp_path / "run", "steps=1")


# may differ when a run is resumed: they change nothing but rounding, or what they name is compared by content
FREE_KEYS = {
    "model.checkpoint", "model.seed", "model.gradient_checkpointing", "model.compile", "model.attention", "model.keep",
    "data.sources", "data.format", "data.workers", "data.prefetch", "data.on_bad_file", "data.max_bad_share",
    "data.cache", "data.cache_gib", "adapter.basis",
    "optim.max_bad_steps",
    "run.out", "run.device", "run.memory", "run.threads", "run.log_every", "run.checkpoint_every", "run.keep",
    "run.validate_every", "run.tensorboard", "run.progress", "run.max_runtime_s",
}  # fmt: skip


def test_the_identity_of_a_run_has_every_key_but_the_free_ones() -> None:
    accelerator = make_accelerator("cpu")
    identity = settings_identity(TrainSettings(), accelerator)
    every = {
        f"{section.name}.{key.name}"
        for section in dataclasses.fields(TrainSettings)
        for key in dataclasses.fields(getattr(TrainSettings(), section.name))
    }
    # younger than 0.1.0: absent at their defaults
    added = {"model.depth_head", "model.frozen", "data.scenes_at_once", "data.depth_unit", "data.scaled_rotation"}
    assert set(identity) == every - FREE_KEYS - added | {"the number of processes"}
    assert identity["model.precision"] == "fp32", "auto is what it means here"


def test_arithmetic_that_changes_results_is_part_of_the_identity() -> None:
    settings = TrainSettings(model=ModelSettings(depth_head="bf16"))
    assert settings_identity(settings, make_accelerator("cpu"))["model.depth_head"] == "bf16"


def test_the_users_accelerate_configuration_does_not_change_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "7")
    assert make_accelerator("cpu").mixed_precision == "no"


def test_other_kinds_of_distribution_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ConfigError, match="torchrun"):
        make_accelerator("cpu")
