"""The benchmark of a training step runs, reports what it could not measure, and refuses nonsense before it starts."""

import json
import sys
from pathlib import Path

import pytest
import torch

from megasynth_attr.core.errors import ConfigError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import train_step
from train_step_run import Variant, build, tuning_of
from train_step_tables import MEAN_VIEWS, Row, mean_lines

from megasynth_train.vggt.config import named_config

PLAIN = {
    "checkpointing": False, "compiled": False, "attention": "auto", "depth_head": "auto", "frozen": "bf16", "keep": 1.0
}  # fmt: skip
SMALL = ["model=vggt-tiny", "device=cpu", "size_px=70", "shapes=1x2", "checkpointing=[false]", "steps=1", "warmup=1"]


@pytest.mark.slow
def test_measures_and_writes(tmp_path, capsys):
    train_step.main([*SMALL, "adapters=[basis-8,basis-256]", f"out={tmp_path}"])
    first, second = json.loads((tmp_path / "train_step.json").read_text())["rows"]
    parts = [first["seconds"][part] for part in ("prepare", "forward", "backward", "clip, AdamW")]
    assert min(parts) > 0 and first["seconds"]["step"] == pytest.approx(sum(parts))
    assert second["problem"] == "D > width 96" and not second["seconds"]
    page = (tmp_path / "train_step.md").read_text()
    assert "| basis-8, auto, head auto | 1 × 2 |" in page and page in capsys.readouterr().out


def test_says_what_was_not_run(capsys):
    train_step.main([*SMALL, "adapters=basis-8", "budget_s=1e-9"])
    assert "not run: out of time" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["adapters=magic", "adapters=basis-0", "shapes=4", "shapes=0x4", "profile=true"])
def test_refuses_at_once(word):
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        train_step.main([*SMALL, word])


def test_mean_needs_every_number_of_views():
    variant = Variant(adapter="lora-16", **PLAIN)
    rows = [
        Row(variant, train_step.StepShape(32 // n, n), tflop=100.0, estimated_gib=1.0, seconds={"step": n / 10})
        for n in MEAN_VIEWS
    ]
    (line,) = mean_lines(rows)
    assert "**1.000 s**" in line
    assert mean_lines(rows[1:]) == []


def test_a_basis_trains_one_matrix_per_linear_of_the_aggregator():
    config = named_config("vggt-tiny", point_head=False)
    variant = Variant(adapter="basis-8", **PLAIN)
    trainee = build(config, variant, torch.device("cpu"), seed=0)
    assert [tuple(matrix.shape) for matrix in trainee.groups["aggregator"]] == [(8, 8)] * (4 * 2 * config.depth)


def test_knows_its_adapters():
    assert tuning_of("lora-64").head_rank == 64
    assert (tuning_of("basis-32").rank, tuning_of("basis-32").head_rank) == (32, 16)
    assert tuning_of("full").kind == "full"
