"""The benchmark of a training step runs, reports what it could not measure, and refuses nonsense before it starts."""

import json
import sys
from pathlib import Path

import pytest
import torch

from megasynth_attr.core.errors import ConfigError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import train_step
from train_step_adapters import FrozenBasis, LowRank
from train_step_run import Variant, tuning_of
from train_step_tables import MEAN_VIEWS, Row, mean_lines

SMALL = ["model=vggt-tiny", "device=cpu", "size_px=70", "shapes=1x2", "checkpointing=[false]", "steps=1", "warmup=1"]


@pytest.mark.slow
def test_measures_and_writes(tmp_path, capsys):
    train_step.main([*SMALL, "adapters=[basis-8,basis-256]", f"out={tmp_path}"])
    first, second = json.loads((tmp_path / "train_step.json").read_text())["rows"]
    parts = [first["seconds"][part] for part in ("prepare", "forward", "backward", "clip, AdamW")]
    assert min(parts) > 0 and first["seconds"]["step"] == pytest.approx(sum(parts))
    assert second["problem"] == "D > width 96" and not second["seconds"]
    page = (tmp_path / "train_step.md").read_text()
    assert "| basis-8 | 1 × 2 |" in page and page in capsys.readouterr().out


def test_says_what_was_not_run(capsys):
    train_step.main([*SMALL, "adapters=basis-8", "budget_s=1e-9"])
    assert "not run: out of time" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["adapters=magic", "adapters=basis-0", "shapes=4", "shapes=0x4", "profile=true"])
def test_refuses_at_once(word):
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        train_step.main([*SMALL, word])


def test_mean_needs_every_number_of_views():
    variant = Variant(adapter="lora-16", checkpointing=False, compiled=False)
    rows = [
        Row(variant, train_step.StepShape(32 // n, n), tflop=100.0, estimated_gib=1.0, seconds={"step": n / 10})
        for n in MEAN_VIEWS
    ]
    (line,) = mean_lines(rows)
    assert "**1.000 s**" in line
    assert mean_lines(rows[1:]) == []


@pytest.mark.parametrize("kind", ["basis", "conv", "lean"])
def test_standins_start_at_the_base_and_add_their_product(kind):
    generator = torch.Generator().manual_seed(0)
    base = torch.nn.Conv2d(6, 5, 3, stride=2, padding=1) if kind == "conv" else torch.nn.Linear(6, 5)
    x = torch.randn((2, 6, 8, 8) if kind == "conv" else (3, 6), generator=generator)
    adapter = FrozenBasis(base, 4, torch.float32, generator) if kind == "basis" else LowRank(base, 4, generator)
    assert torch.equal(adapter(x), base(x))
    last = adapter.middle if kind == "basis" else adapter.up
    torch.nn.init.normal_(last, generator=generator)
    if kind == "basis":
        delta = adapter.left @ last @ adapter.right_t  # out × in
        torch.testing.assert_close(adapter.left.T @ adapter.left, torch.eye(4))
    else:
        delta = torch.einsum("or...,ri...->oi...", last.flatten(1), adapter.down)
    with torch.no_grad():
        base.weight += 2.0 * delta
    moved = base(x)
    with torch.no_grad():
        base.weight -= 2.0 * delta
    torch.testing.assert_close(adapter(x), moved, rtol=1e-4, atol=1e-5)


def test_knows_its_adapters():
    assert tuning_of("lora-64").head_rank == 64
    assert (tuning_of("basis-32").rank, tuning_of("basis-32").head_rank) == (32, 16)
    assert tuning_of("full").kind == "full"
