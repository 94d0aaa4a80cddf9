"""mode=subspace in whole runs: resuming, two processes, a cluster; the basis' content is part of what a run is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from adapter_models import basis_for
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
import training_runs as runs
from ddp_runs import BAD_GRADIENT, BAD_LOSS, train_by_hand, train_two_ranks
from ddp_runs import WORDS as RANK_WORDS

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError
from megasynth_train.adapters.subspace.opening import IDENTITY
from megasynth_train.subspace.basis import random_basis
from megasynth_train.subspace.basis_file import read_basis, write_basis
from megasynth_train.training.base_model import base_model
from megasynth_train.training.cluster_manifest import ClusterSettings, new_manifest
from megasynth_train.vggt.checkpoint import weights_hash

WORDS = (
    "mode=subspace",
    "adapter.head_rank=2",
    "run.validate_every=0",
    "run.checkpoint_every=2",
    "data.images_per_step=2",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_training_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def basis(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("basis") / "all.safetensors"
    model = base_model(runs.settings_of(data, file.parent).model, [])
    write_basis(file, basis_for(model, {"texture": 3, "pose": 2}, base=weights_hash(model)))
    return file


@pytest.mark.slow
def test_a_run_is_resumed_with_the_same_basis_wherever_it_lies(data: Path, basis: Path, tmp_path: Path) -> None:
    words = (*WORDS, "steps=4", f"basis={basis}", "adapter.mask=block_diagonal")
    whole = runs.train_here(data, tmp_path / "whole", *words)
    cut = Path(shutil.copytree(whole.out, tmp_path / "cut"))
    for path in (cut / "adapter", max(cut.glob("checkpoints/step_*"))):
        shutil.rmtree(path)
    (cut / "done.json").unlink()
    moved = Path(shutil.copy(basis, tmp_path / "moved.safetensors"))
    runs.train_here(data, cut, *words, f"basis={moved}")
    runs.assert_same_result(whole.out, cut)
    m = load_file(cut / "adapter" / "adapter_model.safetensors")
    assert any(bool(tensor.any()) for name, tensor in m.items() if name.endswith(".lora_M"))
    write_basis(moved, random_basis(read_basis(basis), 0))
    with pytest.raises(ConfigError, match=r"columns of adapter\.basis"):
        runs.train_here(data, cut, *words, f"basis={moved}")  # finished, but not this
    assert runs.train_here(data, cut, *words).already_done


@pytest.mark.slow
def test_two_ranks_are_one_process_with_averaged_gradients(data: Path, basis: Path, tmp_path: Path) -> None:
    words = ("mode=subspace", "adapter.head_rank=2", f"basis={basis}")
    first, second = train_two_ranks(data, tmp_path / "two", *words)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert first["skipped"].item() == 2  # steps in which one rank was not finite
    settings = runs.settings_of(data, tmp_path / "one", *RANK_WORDS, *words)
    weights, objective = train_by_hand(settings, skipped=(BAD_GRADIENT, BAD_LOSS))
    assert first["objective"].item() == pytest.approx(objective, rel=1e-4)
    ms = [name for name in weights if ".lora_M." in name]
    assert len(ms) == len(read_basis(basis).layers) and first.keys() == weights.keys() | {"skipped", "objective"}
    errors = torch.cat([(first[name] - weights[name]).abs().flatten() for name in ms])
    sizes = torch.cat([weights[name].abs().flatten() for name in ms])
    assert errors.median() < 1e-3 * sizes.median() and (errors < 2e-2 * sizes.median()).float().mean() > 0.97
    for name, expected in weights.items():
        close = torch.isclose(first[name], expected, rtol=1e-3, atol=2e-4)  # see test_train_loop on AdamW and rounding
        assert close.float().mean() > 0.97, name


@pytest.mark.slow
def test_two_processes_train_the_same_m(data: Path, basis: Path, tmp_path: Path) -> None:
    words = runs.words(data, tmp_path / "two", *WORDS, "steps=2", f"basis={basis}")
    processes = [
        runs.start(runs.command_line, words, environment, tmp_path / f"log{environment['RANK']}")
        for environment in runs.ranks(2)
    ]
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0], (tmp_path / "log0").read_text()
    m = load_file(tmp_path / "two" / "adapter" / "adapter_model.safetensors")
    changed = [bool(tensor.any()) for name, tensor in m.items() if name.endswith(".lora_M")]
    assert len(changed) == len(read_basis(basis).layers) and all(changed)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in m.values())


def test_a_cluster_is_bound_to_the_basis(data: Path, basis: Path, tmp_path: Path) -> None:
    def manifest(file: Path) -> dict[str, object]:
        words = [word for word in runs.words(data, tmp_path / "c", *WORDS, f"basis={file}") if word[:5] != "data="]
        settings = parse(ClusterSettings, [*words, f"experiment={data.parent}", f"datasets={data.name}"], Help("", ""))
        return dict(new_manifest(settings)["identity"])

    moved = Path(shutil.copy(basis, tmp_path / "moved.safetensors"))
    assert manifest(moved) == manifest(basis) and manifest(basis)[IDENTITY] == read_basis(basis).sha256
    write_basis(moved, random_basis(read_basis(basis), 0))
    assert manifest(moved)[IDENTITY] != manifest(basis)[IDENTITY]
    other = basis_for(base_model(runs.settings_of(data, tmp_path).model, []), {"texture": 1}, base="b" * 64)
    write_basis(moved, other)
    with pytest.raises(ConfigError, match="weights bbbbbbbbbbbb"):
        manifest(moved)
