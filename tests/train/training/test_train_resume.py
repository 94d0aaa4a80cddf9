"""Stopping and continuing: kill -9 at any moment, signals, time limits, damage; the result is the same to the bit."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs as runs

from megasynth_attr.core.errors import ConfigError, DatasetError, ExitCode, Interrupted
from megasynth_train.adapters.methods import SPECTRAL
from megasynth_train.adapters.start import START
from megasynth_train.training.checkpoints import latest_checkpoint
from megasynth_train.training.metrics import FILE, read_metrics

STEPS = "steps=10"
AT_ONCE = "run.max_runtime_s=0.000001"  # stops after one step


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_training_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    runs.train_here(data, out, STEPS)
    return out


def stop_after_one_step(data: Path, out: Path, *words: str) -> None:
    with pytest.raises(Interrupted, match=r"run the same command again to resume \(\d+ of \d+ steps"):
        runs.train_here(data, out, *words, AT_ONCE)


def begin(data: Path, out: Path, *words: str) -> BaseProcess:
    arguments = runs.words(data, out, STEPS, *words)
    return runs.start(runs.command_line, arguments, {}, out.with_suffix(".log"))


def wait_for(condition, process: BaseProcess, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive() and time.monotonic() < deadline, "the run ended or hung too early"
        time.sleep(0.005)


def unfinished(run: Path, copy: Path) -> Path:
    """Return a copy of a finished run as if it had been killed before it was done."""
    out = Path(shutil.copytree(run, copy))
    (out / "done.json").unlink()
    return out


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Killed at two random moments after a checkpoint has appeared, and once while one is being written."""
    out = tmp_path / "killed"
    moments = np.random.default_rng(0).uniform(0.0, 0.4, size=2)
    checkpoints = out / "checkpoints"
    for moment in moments:
        process = begin(data, out, "workers=1", "run.checkpoint_every=2")
        before = len(list(checkpoints.glob("step_*")))
        known = max((path.name for path in checkpoints.glob("step_*")), default="")
        wait_for(lambda: any(p.name > known for p in checkpoints.glob("step_*")), process)  # noqa: B023
        late = time.monotonic() + moment
        wait_for(lambda: time.monotonic() > late or (checkpoints / "step_00000008").exists(), process)  # noqa: B023
        kill(process)
        assert len(list(checkpoints.glob("step_*"))) >= min(before, 2)
    process = begin(data, out, "run.checkpoint_every=1")
    wait_for(lambda: list((checkpoints / "tmp").glob("*/step_*")), process)
    kill(process)
    process = begin(data, out)
    process.join()
    assert process.exitcode == ExitCode.DONE, out.with_suffix(".log").read_text()
    runs.assert_same_result(uninterrupted, out)
    assert not list(out.rglob("tmp")), "what was half written is gone"


def kill(process: BaseProcess) -> None:
    assert process.is_alive(), "it was done before it could be killed: make the run longer"
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lora", "heads", "full", "adalora", "lora_xs", "pissa"])
def test_every_mode_continues_to_the_bit(
    data: Path, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And decomposes the base weights, 96 wide, when it begins, but not when it goes on."""
    decomposed, svd = set[int](), torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda of, **how: decomposed.add(min(of.shape)) or svd(of, **how))
    words = ("steps=3", f"mode={mode}", "adapter.rank=4", "run.validate_every=0", "run.checkpoint_every=0")
    runs.train_here(data, tmp_path / "whole", *words)
    stop_after_one_step(data, tmp_path / "cut", *words)
    assert (96 in decomposed) == (tmp_path / "cut" / START).exists() == (mode in SPECTRAL)
    decomposed.clear()
    assert runs.train_here(data, tmp_path / "cut", *words).steps == 3
    assert 96 not in decomposed
    runs.assert_same_result(tmp_path / "whole", tmp_path / "cut")


def test_stopping_within_an_interval_of_metrics_changes_no_line(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for _ in range(2):
        stop_after_one_step(data, out, STEPS)
    assert read_metrics(out) == [], "the interval of 4 steps is not over"
    runs.train_here(data, out, STEPS)
    runs.assert_same_result(uninterrupted, out)


def test_a_finished_run_says_so_and_changes_nothing(
    data: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*") if path.is_file()}
    again = runs.train_here(data, uninterrupted, STEPS)
    assert again.already_done and again.steps == 10 and again.result.is_dir()
    assert "finished run of 10 steps with the same settings; nothing to do" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*") if path.is_file()}
    assert {p for p in after if p.name != ".lock" and after[p] != before.get(p)} == set()
    with pytest.raises(ConfigError, match=r"optim\.lr is 0\.001 there and 0\.01 now"):
        runs.train_here(data, uninterrupted, STEPS, "lr=0.01")


@pytest.mark.parametrize("folder", ["result", "best"])
def test_a_finished_run_without_its_result_is_no_success(
    data: Path, uninterrupted: Path, tmp_path: Path, folder: str
) -> None:
    out = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    lost = out / json.loads((out / "done.json").read_text())[folder] / "adapter.json"
    lost.unlink()
    with pytest.raises(DatasetError, match=rf"{lost} is missing; remove .*done\.json to finish again"):
        runs.train_here(data, out, STEPS)
    (out / "done.json").unlink()
    assert not runs.train_here(data, out, STEPS).already_done
    assert lost.is_file()


@pytest.mark.parametrize("key", ["identity", "result", "skipped_steps"])
def test_a_done_json_without_a_key_is_damaged(data: Path, uninterrupted: Path, tmp_path: Path, key: str) -> None:
    out = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    done = json.loads((out / "done.json").read_text())
    del done[key]
    (out / "done.json").write_text(json.dumps(done))
    with pytest.raises(DatasetError, match=rf"done\.json is damaged: {key} is missing"):
        runs.train_here(data, out, STEPS)


def test_if_all_checkpoints_are_damaged_every_start_refuses(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = unfinished(uninterrupted, tmp_path / "run")
    for file in (out / "checkpoints").glob("step_*/weights.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"no checkpoint in .* is intact .*choose another out="):
            runs.train_here(data, out, STEPS)


def test_a_run_of_before_settings_had_a_format_and_one_killed_at_once_are_still_runs(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = unfinished(uninterrupted, tmp_path / "old")
    settings = json.loads((out / "settings.json").read_text())
    del settings["format"]
    (out / "settings.json").write_text(json.dumps(settings))
    assert runs.train_here(data, out, STEPS).steps == 10
    killed = tmp_path / "killed"
    (killed / "tmp" / "file.host.1.0").mkdir(parents=True)
    (killed / ".lock").touch()
    stop_after_one_step(data, killed, STEPS)


def test_a_crash_after_the_last_step_is_mended(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    (out / "done.json").unlink()
    shutil.rmtree(out / "adapter")
    assert runs.train_here(data, out, STEPS).steps == 10
    runs.assert_same_result(uninterrupted, out)


def test_a_damaged_checkpoint_costs_time_not_the_result(
    data: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    (out / "done.json").unlink()
    weights = out / "checkpoints" / "step_00000010" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with (out / FILE).open("a") as file:
        file.write('{"step": 99, "spl')
    runs.train_here(data, out, STEPS)
    said = capsys.readouterr().err
    assert "WARNING" in said and "step_00000010/weights.safetensors is damaged" in said and "step 9 of 10" in said
    runs.assert_same_result(uninterrupted, out)


def test_settings_that_change_the_result_are_refused_and_others_are_not(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stop_after_one_step(data, out, "steps=4")
    for word, key in (
        ("steps=5", r"optim\.steps is 4 there and 5 now"),
        ("data.views=[2,3]", r"data\.views is \[2, 2\] there and \[2, 3\] now"),
        ("adapter.rank=8", r"adapter\.rank is 16 there and 8 now"),
        ("seed=1", r"run\.seed is 0 there and 1 now"),
        ("model.seed=5", r"the base model of model\.checkpoint and model\.seed"),
        ("model.precision=bf16", r'model\.precision is "fp32" there and "bf16" now'),
    ):
        with pytest.raises(ConfigError, match=key):
            runs.train_here(data, out, "steps=4", word)
    other = runs.write_training_dataset(tmp_path / "other")
    shutil.rmtree(next((other / "scenes").glob("*/*")))
    with pytest.raises((ConfigError, DatasetError), match=r"content of data\.sources"):
        runs.train_here(other, out, "steps=4")
    moved = Path(shutil.copytree(data, tmp_path / "elsewhere" / data.name))
    free = ("run.log_every=1", "run.keep=1", "run.checkpoint_every=2", "workers=1", "optim.max_bad_steps=3")
    assert runs.train_here(moved, out, "steps=4", "model.precision=fp32", *free).steps == 4


def test_sigterm_saves_and_exits_with_75_and_only_one_run_writes(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = runs.words(data, out, STEPS, "workers=1")
    process = runs.start(runs.command_line, arguments, {}, tmp_path / "log")
    wait_for(lambda: (out / "checkpoints").is_dir() and list((out / "checkpoints").glob("step_*")), process)
    with pytest.raises(ConfigError, match="another run is writing to"):
        runs.train_here(data, out, STEPS)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join()
    said = (tmp_path / "log").read_text()
    assert process.exitcode == ExitCode.INTERRUPTED, said
    assert "SIGTERM; run the same command again to resume" in said
    found = latest_checkpoint(out / "checkpoints", print)
    assert (found is not None and found.step % 3 != 0) or f"({found.step} of 10 steps" in said
    runs.train_here(data, out, STEPS)
    runs.assert_same_result(uninterrupted, out)


def run_with_full_disk(arguments: list[str], log: Path, size: int) -> None:
    """As ``command_line``, where no file can become larger than ``size`` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    runs.command_line(arguments, {}, log)


def test_a_full_disk_ends_the_run_and_loses_nothing(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stop_after_one_step(data, out, STEPS)
    arguments = runs.words(data, out, STEPS)
    process = runs.start(run_with_full_disk, arguments, tmp_path / "log", 1_000_000)  # the weights have 1.9 MB
    process.join()
    said = (tmp_path / "log").read_text()
    assert process.exitcode == ExitCode.ENVIRONMENT, said
    assert "EnvironmentProblem: a checkpoint cannot be written to" in said
    found = latest_checkpoint(out / "checkpoints", print)
    assert found is not None and found.step == 1
    runs.train_here(data, out, STEPS)
    runs.assert_same_result(uninterrupted, out)
