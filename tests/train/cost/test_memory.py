"""The memory model against what was measured, and the settings that it finds for a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from megasynth_attr.core.errors import EnvironmentProblem, ExitCode
from megasynth_attr.core.ranges import Uniform
from megasynth_train.cost.cards import ADAPTERS, CARDS, card_table, run_tuning, words
from megasynth_train.cost.layers import StepShape, Tuning
from megasynth_train.cost.memory import (
    GIB,
    USABLE,
    fit,
    images_at_once,
    largest_step,
    most_views,
    step_bytes,
    trained_parameters,
)
from megasynth_train.training.settings import AdapterSettings, DataSettings, ModelSettings, TrainSettings
from megasynth_train.vggt.config import named_config

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
    ],
)
def test_estimates_are_what_an_h200_needed(compiled: bool, depth_head: str, scenes: int, measured: float) -> None:
    settings = TrainSettings(model=ModelSettings(compile=compiled, depth_head=depth_head))
    estimate = step_bytes(settings, Tuning("lora"), StepShape(scenes, 32 // scenes)) / GIB
    assert estimate == pytest.approx(measured, rel=0.035)


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
    st.booleans(),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_what_is_found_fits_and_anything_larger_does_not(
    gib: float, most: int, adapter: AdapterSettings, at_once: int, again: bool
) -> None:
    data = DataSettings(views=Uniform(4, most), scenes_at_once=at_once)
    settings = TrainSettings(
        model=ModelSettings(compile=True, gradient_checkpointing=again), data=data, adapter=adapter
    )
    tuning, free = run_tuning(settings), gib * GIB

    def peak(again: bool, at_once: int) -> float:
        model, data = (
            replace(settings.model, gradient_checkpointing=again),
            replace(settings.data, scenes_at_once=at_once),
        )
        return largest_step(replace(settings, model=model, data=data), tuning)[0]

    try:
        found = fit(settings, tuning, free)
    except EnvironmentProblem:
        assert peak(True, 1) > USABLE * free
        return
    recomputed, pieces = found.model.gradient_checkpointing, found.data.scenes_at_once
    assert peak(recomputed, pieces) <= USABLE * free
    assert recomputed >= again and (not at_once or 1 <= pieces <= at_once), "what was saved stays saved"
    if pieces != at_once:
        assert peak(recomputed, pieces + 1 if pieces + 1 != 8 else 0) > USABLE * free
    if recomputed and not again:
        assert peak(False, 1) > USABLE * free
    assert replace(found, model=settings.model, data=settings.data) == settings


def test_where_not_one_scene_fits_a_sentence_says_what_does() -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        fit(COMPILED, Tuning("full"), 22 * GIB)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT == 4
    assert "one scene of 16 views of 518 × 518 px is estimated to need 22.3 GiB" in str(caught.value)
    assert "of the GPU's 22.0 GiB that are free 95% can be used; lower data.views (at most 12 views fit)" in str(
        caught.value
    )
    assert most_views(COMPILED, Tuning("full"), 22 * GIB) == 12
    fit(replace(COMPILED, data=DataSettings(views=Uniform(4, 12))), Tuning("full"), 22 * GIB)
    with pytest.raises(EnvironmentProblem, match=r"use a larger GPU$"):
        fit(COMPILED, Tuning("full"), 8 * GIB)


def test_words_say_what_is_saved() -> None:
    assert words(COMPILED) == "everything kept, all scenes at once"
    assert images_at_once(COMPILED) == 32
    chosen = fit(COMPILED, Tuning("lora"), 16e9)
    assert words(chosen) == "model.gradient_checkpointing=true data.scenes_at_once=1"
    assert images_at_once(chosen) == 16


def test_the_table_has_every_card_and_is_the_one_in_the_documentation() -> None:
    table = card_table(COMPILED)
    assert len(table.splitlines()) == 2 + len(CARDS) * len(ADAPTERS) + 2
    assert "hours for 24,000 steps" in table and "Computed, not measured" in table
    assert table in DOCS.read_text()
