"""The memory model against what was measured, and the settings that it finds for a GPU."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from megasynth_attr.core.errors import EnvironmentProblem, ExitCode
from megasynth_attr.core.ranges import Uniform
from megasynth_train.adapters import adapt
from megasynth_train.adapters.lean import make_lean
from megasynth_train.cost.cards import ADAPTERS, CARDS, card_table, run_tuning, words
from megasynth_train.cost.layers import StepShape, Tuning
from megasynth_train.cost.memory import (
    GIB,
    USABLE,
    fit,
    images_at_once,
    largest_step,
    memory_bytes,
    most_views,
    step_bytes,
    trained_parameters,
)
from megasynth_train.training.settings import AdapterSettings, DataSettings, ModelSettings, TrainSettings
from megasynth_train.vggt.config import KEPT, named_config
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.precision import autocast

LARGE = named_config("vggt-1b", point_head=False)
COMPILED = TrainSettings(model=ModelSettings(compile=True))
DOCS = Path(__file__).parents[3] / "docs" / "training.md"


@pytest.mark.parametrize(
    ("tuning", "count"),
    [
        (Tuning("lora", 16, 16), 16_336_192),
        (Tuning("lora", 256, 256), 261_379_072),
        (Tuning("heads"), 3_753_280),
        (Tuning("basis", 16), 16**2 * 192 + 3_753_280),
        (Tuning("full"), 853_568_756),
    ],
)
def test_trained_parameters_are_those_of_the_models(tuning: Tuning, count: int) -> None:
    assert trained_parameters(LARGE, tuning) == pytest.approx(count, rel=2e-3 if tuning.kind == "full" else 0)


@pytest.mark.parametrize(
    ("compiled", "depth_head", "scenes", "measured"),
    [
        (True, "fp32", 4, 109.7),
        (True, "auto", 4, 93.9),  # cuDNN's attention
        (True, "auto", 4, 96.0),  # FlashAttention-4
        (True, "auto", 8, 98.8),
        (False, "fp32", 4, 118.0),
        (False, "auto", 4, 106.6),
    ],
)
def test_estimates_are_what_an_h200_needed(compiled: bool, depth_head: str, scenes: int, measured: float) -> None:
    settings = TrainSettings(model=ModelSettings(compile=compiled, depth_head=depth_head))
    estimate = step_bytes(settings, Tuning("lora"), StepShape(scenes, 32 // scenes)) / GIB
    assert estimate == pytest.approx(measured, rel=0.035)


@pytest.mark.parametrize(("views", "measured"), [(4, 16.47), (7, 26.36), (8, 29.68), (13, 46.32), (16, 56.15)])
def test_estimates_of_one_scene_at_a_time_are_what_an_h200_needed(views: int, measured: float) -> None:
    settings = TrainSettings(data=DataSettings(scenes_at_once=1))
    estimate = step_bytes(settings, Tuning("lora"), StepShape(32 // views, views)) / GIB
    assert estimate == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(("kept", "measured"), [("attention", 31.3), ("nothing", 27.2)])
def test_estimates_with_recomputation_are_what_an_h200_needed(kept: str, measured: float) -> None:
    """When the depth head still kept everything of all images, and the gradients of its inputs counted as its own."""
    shape = StepShape(4, 8)
    of = {each: memory_bytes(LARGE, shape, Tuning("lora"), kept=each, frozen_bf16=True, depth_head="bf16",
                             compiled=False) for each in ("everything", kept)}  # fmt: skip
    as_then = of[kept] | {name: of["everything"][name] for name in ("depth_head", "tap_gradients")}
    assert sum(as_then.values()) / GIB == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("kept", ["attention", "nothing"])
def test_recomputed_blocks_keep_what_is_estimated(kept: str) -> None:
    """By the allocator's own account of the aggregator's forward pass, with weights in bf16 as on a GPU."""
    config, shape = named_config("vggt-tiny", depth_head=False, point_head=False), StepShape(2, 4, 126, 126)
    adapted = adapt(random_model(config, seed=0), AdapterSettings(rank=1), total_steps=1)
    make_lean(adapted)
    adapted.model.kept = kept
    images = torch.rand(2, 4, 3, 126, 126)
    with torch.no_grad(), autocast(torch.device("cpu"), "bf16"):
        adapted.model.aggregator(images)  # makes tables
    gc.collect()  # what other tests left must not be freed meanwhile
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with profiler as record, autocast(torch.device("cpu"), "bf16"):
        taps = adapted.model.aggregator(images)
    held = sum(event.self_cpu_memory_usage for event in record.events())
    parts = memory_bytes(config, shape, Tuning("lora", 1), kept=kept, frozen_bf16=True)
    assert len(taps) == 4 and held == pytest.approx(parts["blocks"] + parts["taps"], rel=0.1)


def test_pieces_divide_what_belongs_to_images_and_nothing_else() -> None:
    halved = replace(COMPILED, data=DataSettings(scenes_at_once=2))
    shape, tuning = StepShape(4, 8), Tuning("lora")
    whole, half, small = (
        step_bytes(settings, tuning, shape)
        for settings, shape in ((COMPILED, shape), (halved, shape), (COMPILED, StepShape(2, 8)))
    )
    assert small < half < whole
    assert half - small == 24 * 16 * 518**2, "the pictures of the whole step are on the device"
    assert step_bytes(halved, tuning, StepShape(1, 8)) == step_bytes(COMPILED, tuning, StepShape(1, 8))


def test_a_dora_adapter_and_float32_need_more() -> None:
    shape = StepShape(4, 8)
    plain, dora = (
        step_bytes(replace(COMPILED, adapter=AdapterSettings(mode=m)), Tuning("lora"), shape) for m in ("lora", "dora")
    )
    fp32 = step_bytes(TrainSettings(model=ModelSettings(compile=True, precision="fp32")), Tuning("lora"), shape)
    assert plain < dora < fp32


@given(
    st.floats(4, 150),
    st.sampled_from([4, 8, 16]),
    st.sampled_from(list(ADAPTERS.values())),
    st.integers(0, 3),
    st.sampled_from(KEPT),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_what_is_found_fits_and_anything_larger_does_not(
    gib: float, most: int, adapter: AdapterSettings, at_once: int, kept: str
) -> None:
    data = DataSettings(views=Uniform(4, most), scenes_at_once=at_once)
    settings = TrainSettings(model=ModelSettings(compile=True).keeping(kept), data=data, adapter=adapter)
    tuning, free = run_tuning(settings), gib * GIB

    def peak(kept: str, at_once: int) -> float:
        data = replace(settings.data, scenes_at_once=at_once)
        return largest_step(replace(settings, model=settings.model.keeping(kept), data=data), tuning)[0]

    try:
        found = fit(settings, tuning, free)
    except EnvironmentProblem:
        assert peak("nothing", 1) > USABLE * free
        return
    chosen, pieces = KEPT.index(found.model.kept), found.data.scenes_at_once
    assert peak(found.model.kept, pieces) <= USABLE * free
    assert chosen >= KEPT.index(kept) and (not at_once or 1 <= pieces <= at_once), "what was saved stays saved"
    if pieces != at_once:
        assert peak(found.model.kept, pieces + 1 if pieces + 1 != 8 else 0) > USABLE * free
    for more in KEPT[KEPT.index(kept) : chosen]:
        assert peak(more, 1) > USABLE * free
    assert replace(found, model=settings.model, data=settings.data) == settings


def test_where_not_one_scene_fits_a_sentence_says_what_does() -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        fit(COMPILED, Tuning("full"), 22 * GIB)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT == 4
    assert "one scene of 16 views of 518 × 518 px is estimated to need 24.0 GiB" in str(caught.value)
    assert "of the GPU's 22.0 GiB that are free 95% can be used; lower data.views (at most 7 views fit)" in str(
        caught.value
    )
    assert most_views(COMPILED, Tuning("full"), 22 * GIB) == 7
    fit(replace(COMPILED, data=DataSettings(views=Uniform(4, 7))), Tuning("full"), 22 * GIB)
    with pytest.raises(EnvironmentProblem, match=r"use a larger GPU$"):
        fit(COMPILED, Tuning("full"), 8 * GIB)


def test_words_say_what_is_saved() -> None:
    assert words(COMPILED) == "everything kept, all scenes at once"
    assert images_at_once(COMPILED) == 32
    chosen = fit(COMPILED, Tuning("lora"), 16e9)
    assert words(chosen) == "model.gradient_checkpointing=true model.keep=attention data.scenes_at_once=1"
    assert words(fit(COMPILED, Tuning("lora"), 14e9)) == "model.gradient_checkpointing=true data.scenes_at_once=1"
    assert images_at_once(chosen) == 16


def test_the_table_has_every_card_and_is_the_one_in_the_documentation() -> None:
    table = card_table(COMPILED)
    assert len(table.splitlines()) == 2 + len(CARDS) * len(ADAPTERS) + 2
    assert "hours for 24,000 steps" in table and "Computed, not measured" in table
    assert table in DOCS.read_text()


def test_the_readme_has_the_table_in_short() -> None:
    rows = [line.strip("| ").split(" | ") for line in card_table(COMPILED).splitlines()[2 : 2 + len(CARDS) * 3]]
    readme = (DOCS.parents[1] / "README.md").read_text()
    for first, *more in zip(*[iter(rows)] * 3, strict=True):
        cells = ["–" if row[4] == "–" else f"{row[4]} images, {row[6]} s, {row[7]} h" for row in (first, *more)]
        assert f"| {first[0]} | {first[1]} | {' | '.join(cells)} |\n" in readme
