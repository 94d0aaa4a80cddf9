"""The base model and the tuned one on held-out scenes, beside each other."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import training_runs as runs

from megasynth_attr.core.errors import ExitCode, Interrupted, run_main
from megasynth_train.finetune import main
from megasynth_train.training.held_out import table, warning, worse
from megasynth_train.training.losses import Losses
from megasynth_train.training.metrics import read_metrics

BASE = {field.name: 0.1 for field in fields(Losses)} | {"objective": -1.0, "camera": 0.5, "depth_regression": 0.2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_training_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"objective": -2.0, "camera": 0.4}, []),
        ({"camera": 0.504}, []),  # within a hundredth
        ({"fov": 9.0}, []),  # part of camera
        ({"objective": -0.9}, ["objective +0.1"]),
        ({"camera": 0.6, "depth_regression": None}, ["camera +20 %", "depth_regression not finite"]),
        ({"depth_gradient": 1.0}, ["depth_gradient × 10"]),
    ],
)
def test_what_counts_as_worse(changed: dict[str, float | None], expected: list[str]) -> None:
    tuned = BASE | changed
    assert worse(BASE, tuned) == expected
    assert bool(warning(BASE, tuned)) == bool(expected)
    assert warning(None, tuned) == warning(BASE, None) == ""
    if expected:
        assert expected[0] in warning(BASE, tuned) and "lr_find=true" in warning(BASE, tuned)


def test_the_table_has_a_row_per_loss() -> None:
    in_other_order = dict(reversed((BASE | {"camera": 0.25}).items()))
    rows = [line.split() for line in table(BASE, in_other_order).splitlines()]
    assert rows[0] == ["on", "held-out", "scenes", "base", "tuned", "change"]
    assert [row[0] for row in rows[1:]] == list(BASE)
    assert rows[2] == ["camera", "0.5", "0.25", "−50", "%"]


def test_both_are_printed_recorded_and_survive_a_resume(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("steps=4", "data.images_per_step=2", "run.checkpoint_every=2", "run.validate_every=100")
    assert run_main(main, runs.words(data, tmp_path / "whole", *short)) == ExitCode.DONE
    said = capsys.readouterr()
    assert said.out.count("on held-out scenes") == said.err.count("measuring the base model") == 1
    assert said.err.count("\nfp32, attention sdpa, depth head fp32\n") == 1
    lines = read_metrics(tmp_path / "whole", "validation")
    assert [line["step"] for line in lines] == [0, 4]
    done = json.loads((tmp_path / "whole" / "done.json").read_text())
    for line, key in zip(lines, ("base_losses", "last_losses"), strict=True):
        assert done[key] == {name: value for name, value in line.items() if name not in ("step", "split")}
    assert done["base_losses"] != done["last_losses"] and done["best_step"] == 4

    cut = runs.settings_of(data, tmp_path / "cut", *short, "run.max_runtime_s=0.001")
    with pytest.raises(Interrupted):
        runs.run(cut)
    assert run_main(main, runs.words(data, tmp_path / "cut", *short)) == ExitCode.DONE
    again = capsys.readouterr()
    assert again.out.partition("on held-out")[2] == said.out.partition("on held-out")[2]
    assert again.err.count("measuring the base model") == 1
    runs.assert_same_result(tmp_path / "whole", tmp_path / "cut")


def test_a_model_made_worse_is_warned_about(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("steps=3", "data.images_per_step=2", "lr=0.03", "optim.warmup=0", "optim.clip=0")
    runs.train_here(data, tmp_path, *words)
    said = capsys.readouterr().err
    assert said.count("WARNING: on the held-out scenes the tuned model is worse than the base model: ") == 1


def test_a_run_that_holds_nothing_out_is_told_how(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("steps=1", "data.images_per_step=2", "data.validation_share=0")
    assert run_main(main, runs.words(data, tmp_path / "run", *words)) == ExitCode.DONE
    said = capsys.readouterr()
    assert said.err.count("hold some out with e.g. data.validation_share=0.1") == 1
    assert "on held-out scenes" not in said.out
    assert read_metrics(tmp_path / "run", "validation") == []
