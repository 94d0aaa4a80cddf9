"""Two processes with gloo on the CPU: gradients are averaged, decisions are common."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import training_runs as runs
from ddp_runs import BAD_GRADIENT, BAD_LOSS, WORDS, train_by_hand, train_two_ranks

from megasynth_attr.core.errors import ExitCode


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_training_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("data.images_per_step=4", "loss.quantile=1")], ids=["whole", "in pieces"])
def test_two_ranks_are_one_process_with_averaged_gradients(data: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    """And where one rank alone is not finite, both skip the step."""
    first, second = train_two_ranks(data, tmp_path / "two", "data.scenes_at_once=1", *more)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert first["skipped"].item() == 2
    settings = runs.settings_of(data, tmp_path / "one", *WORDS, *more)
    weights, objective = train_by_hand(settings, skipped=(BAD_GRADIENT, BAD_LOSS))
    assert first["objective"].item() == pytest.approx(objective, rel=1e-4)
    for name, expected in weights.items():
        close = torch.isclose(first[name], expected, rtol=1e-3, atol=2e-4)  # see test_train_loop on AdamW and rounding
        assert close.float().mean() > 0.97, name


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_at_the_same_step_and_they_continue(data: Path, tmp_path: Path) -> None:
    words = ("steps=6", "data.images_per_step=2", "run.checkpoint_every=2", "run.validate_every=3")

    def start(out: Path) -> list:
        arguments = runs.words(data, out, *words)
        return [runs.start(runs.command_line, arguments, env, tmp_path / f"log{env['RANK']}") for env in runs.ranks(2)]

    whole = start(tmp_path / "whole")
    [process.join(120) for process in whole]
    assert [process.exitcode for process in whole] == [0, 0], (tmp_path / "log0").read_text()
    out = tmp_path / "cut"
    cut = start(out)
    deadline = time.monotonic() + 60
    while not list(out.glob("checkpoints/step_*")):
        assert time.monotonic() < deadline and all(process.is_alive() for process in cut)
        time.sleep(0.005)
    os.kill(cut[1].pid or 0, signal.SIGTERM)
    [process.join(120) for process in cut]
    assert [process.exitcode for process in cut] == [ExitCode.INTERRUPTED] * 2, (tmp_path / "log1").read_text()
    said = (tmp_path / "log0").read_text() + (tmp_path / "log1").read_text()
    assert said.count("Interrupted: ") == 1 and "steps are done and saved in" in said
    assert not (out / "done.json").exists()
    again = start(out)
    [process.join(120) for process in again]
    assert [process.exitcode for process in again] == [0, 0]
    runs.assert_same_result(tmp_path / "whole", out)
