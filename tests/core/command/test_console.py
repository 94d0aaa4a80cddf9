"""The console commands: which programs they know, and that these run as with ``python -m``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import runs

from megasynth_attr.core.command.console import programs
from megasynth_attr.core.resources import PACKAGE_DIR

TRAIN_DIR = PACKAGE_DIR.parent / "train" / "megasynth_train"
ENV = runs.environment(PYTHONPATH=f"{PACKAGE_DIR.parent}{os.pathsep}{TRAIN_DIR.parent}")


def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m`` with stdout and stderr captured."""
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=120, check=False)


def test_every_program_with_a_help_is_found() -> None:
    generator, training = programs(PACKAGE_DIR), programs(TRAIN_DIR)
    assert {"pipeline", "pipeline.open_scene", "dataset.verify", "dataset.export", "dataset.view"} <= set(generator)
    assert " ".join(training) == (
        "basis bodies cluster compare evaluate export_lora finetune inspect mine predict spoof"
    )
    assert generator["pipeline"].startswith("Generates the datasets of a preset, checks them")
    assert training["finetune"] == "Trains VGGT, or adapters in it, on datasets"
    assert not {"farm.worker", "farm.slurm_job", "pipeline.help"} & set(generator)


def test_they_are_listed_without_being_imported() -> None:
    code = "import sys, megasynth_train.__main__ as m; m.main(); print(sorted({'torch', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "usage: megasynth-train PROGRAM [key=value ...]" and lines[-1] == "[]"
    assert "  finetune     Trains VGGT, or adapters in it, on datasets" in lines
    assert all(len(line) <= 120 for line in lines)


def test_a_program_runs_as_with_python_m() -> None:
    direct = run("megasynth_attr.farm.commands", "--help")
    for name in ("farm.commands", "commands"):
        done = run("megasynth_attr", name, "--help")
        assert (done.returncode, done.stdout, done.stderr) == (0, direct.stdout, direct.stderr)
    refused = run("megasynth_attr", "commands", "preset=demo", "shards=none")
    assert refused.returncode == 2 and refused.stderr.startswith("ConfigError: shards=none: ")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("exprot", "there is no such program (did you mean dataset.export?)"),
        ("viev", "there is no such program (did you mean view?)"),
        ("preset=demo", "the first word is the name of a program"),
    ],
)
def test_a_word_that_names_no_program(word: str, said: str) -> None:
    done = run("megasynth_attr", word)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"ConfigError: {word}: {said}; known: dataset.export, ")
