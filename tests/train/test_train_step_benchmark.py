"""The benchmark of a training step runs, reports what it could not measure, and refuses nonsense before it starts."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from megasynth_attr.core.errors import ConfigError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import train_step
import train_step_checks
from train_step_run import CLASSES, Variant, build, class_of, profile, tuning_of
from train_step_tables import MEAN_VIEWS, Row, class_table, mean_lines

from megasynth_train.vggt.config import named_config

PLAIN = {"kept": "everything", "compiled": False, "attention": "auto", "depth_head": "auto", "frozen": "bf16"}
SMALL = ["model=vggt-tiny", "device=cpu", "size_px=70", "shapes=1x2", "kept=[everything]", "steps=1", "warmup=1"]


@pytest.mark.slow
def test_measures_and_writes(tmp_path, capsys):
    out = tmp_path / "a folder" / "that does not exist"
    train_step.main([*SMALL, "shapes=[1x2,1x3,1x2]", "adapters=[basis-8,basis-256]", f"out={out}"])
    first, other, second, _ = json.loads((out / "train_step.json").read_text())["rows"]
    assert (first["shape"]["views"], other["shape"]["views"]) == (2, 3) and other["seconds"]["step"] > 0
    parts = [first["seconds"][part] for part in ("prepare", "forward", "backward", "clip, AdamW")]
    assert min(parts) > 0 and first["seconds"]["step"] == pytest.approx(sum(parts))
    assert second["problem"] == "D > width 96" and not second["seconds"]
    page = (out / "train_step.md").read_text()
    assert "| basis-8, auto, head auto | 1 × 2 |" in page and page in capsys.readouterr().out


def test_a_profile_makes_its_folder(tmp_path):
    path = tmp_path / "that" / "does not exist" / "profile.txt"
    assert profile(lambda: iter([torch.ones(9) * 2]), path, torch.device("cpu")) == {}
    assert "aten::mul" in path.read_text()


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop", "attention"),
        ("sm90_xmma_fprop_implicit_gemm_bf16", "convolution"),
        ("void upsample_bilinear2d_backward_nhwc_out_frame", "resize"),
        ("nvjet_hsh_128x256_64x4", "GEMM"),
        ("triton_red_fused_native_layer_norm_3", "fused elementwise"),
        ("vectorized_elementwise_kernel", "rest"),
    ],
)
def test_kernels_are_counted_by_class_beside_the_bound(kernel, kind):
    assert class_of(kernel) == kind
    classes = dict.fromkeys(CLASSES, 0.0) | {kind: 12.0, "idle": 3.0}
    row = Row(Variant(adapter="lora-16", **PLAIN), train_step.StepShape(4, 8), 79.0, 1.0, classes_ms=classes)
    head, _, line = class_table([row]).splitlines()
    cells = dict(zip(head.split("|"), line.split("|"), strict=True))
    assert (cells[f" {kind} "], cells[" idle "], cells[" bound ms "]) == (" 12 ", " 3 ", " 100 ")


def test_says_what_was_not_run(capsys):
    train_step.main([*SMALL, "adapters=basis-8", "budget_s=1e-9"])
    assert "not run: out of time" in capsys.readouterr().out


@pytest.mark.parametrize(
    "word", ["adapters=magic", "adapters=basis-0", "shapes=4", "shapes=0x4", "kept=most", "profile=true"]
)
def test_refuses_at_once(word):
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        train_step.main([*SMALL, word])


def test_a_row_that_takes_too_long_is_ended(capsys):
    train_step.main([*SMALL, "budget_s=0.2"])
    assert "not run: out of time" in capsys.readouterr().out


def test_by_default_every_shape_is_timed_and_what_is_kept_at_one():
    options = train_step.Options(shapes=("8x4", "4x8", "2x16"))
    rows = train_step.wanted(options, named_config("vggt-tiny", point_head=False), cuda=True)
    assert [(row.variant.kept, row.shape.views) for row in rows] == [
        ("everything", 4), ("everything", 8), ("everything", 16), ("attention", 8), ("nothing", 8)
    ]  # fmt: skip
    assert all(row.variant.compiled for row in rows)
    assert rows[1].tflop < rows[3].tflop < rows[4].tflop
    assert rows[1].estimated_gib > rows[3].estimated_gib > rows[4].estimated_gib


def test_kernels_are_compared_with_plain_attention(capsys):
    train_step_checks.main(["check=attention", "device=cpu"])
    out = capsys.readouterr().out
    assert "sdpa: equal to bf16 rounding" in out
    assert "fa4: not run: model.attention=fa4 needs a CUDA GPU" in out


def test_mean_over_numbers_of_views():
    variant = Variant(adapter="lora-16", **PLAIN)
    rows = [
        Row(variant, train_step.StepShape(32 // n, n), tflop=100.0, estimated_gib=1.0, seconds={"step": n / 10})
        for n in MEAN_VIEWS
    ]
    (line,) = mean_lines(rows)
    assert "**1.000 s**" in line and "interpolated" not in line
    assert mean_lines(rows[:1]) == []
    costs = [row.shape.images * (0.02 + 0.001 * row.shape.views) for row in rows]
    straight = [replace(row, seconds={"step": s}, tflop=100 * s) for row, s in zip(rows, costs, strict=True)]
    every, some = (mean_lines(part)[0] for part in (straight, [straight[0], straight[4], straight[12]]))
    assert some == every.replace(" per step", " per step, interpolated from 4, 8, 16 views")


def test_a_basis_trains_one_matrix_per_linear_of_the_aggregator():
    config = named_config("vggt-tiny", point_head=False)
    variant = Variant(adapter="basis-8", **PLAIN)
    trainee = build(config, variant, torch.device("cpu"), seed=0)
    assert [tuple(matrix.shape) for matrix in trainee.groups["aggregator"]] == [(8, 8)] * (4 * 2 * config.depth)


def test_knows_its_adapters():
    assert tuning_of("lora-64").head_rank == 64
    assert (tuning_of("basis-32").rank, tuning_of("basis-32").head_rank) == (32, 16)
    assert tuning_of("full").kind == "full"
