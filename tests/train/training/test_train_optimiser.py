"""The learning rate against the released schedule, its end points and its shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from megasynth_train.training.optimiser import learning_rate
from megasynth_train.training.settings import OptimSettings

FIXTURE = Path(__file__).parents[2] / "fixtures" / "lr_schedule.npz"
calm = hypothesis_settings(deadline=None)  # a busy machine is no failure


def test_equals_the_released_schedule() -> None:
    with np.load(FIXTURE) as fixture:
        rates = [learning_rate(float(progress), OptimSettings()) for progress in fixture["where"]]
        np.testing.assert_allclose(rates, fixture["lr"], rtol=1e-12)


def test_end_points_with_other_numbers() -> None:
    settings = OptimSettings(lr=2.0, lr_start=0.5, lr_end=0.25, warmup=0.2)
    assert learning_rate(0.0, settings) == 0.5
    assert learning_rate(0.1, settings) == pytest.approx(1.25)
    assert learning_rate(0.2, settings) == pytest.approx(2.0)
    assert learning_rate(0.6, settings) == pytest.approx(0.5 * (2.0 + 0.25))
    assert learning_rate(1.0, settings) == pytest.approx(0.25)


@pytest.mark.parametrize(("warmup", "first", "last"), [(0.0, 2.0, 0.25), (1.0, 0.5, 2.0)])
def test_no_warmup_and_only_warmup(warmup: float, first: float, last: float) -> None:
    settings = OptimSettings(lr=2.0, lr_start=0.5, lr_end=0.25, warmup=warmup)
    assert learning_rate(0.0, settings) == pytest.approx(first)
    assert learning_rate(1.0, settings) == pytest.approx(last)


@calm
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_rises_then_falls_and_stays_between_the_limits(warmup: float, one: float, other: float) -> None:
    settings = OptimSettings(lr=1.0, lr_start=0.1, lr_end=0.2, warmup=warmup)
    earlier, later = sorted((one, other))
    before, after = learning_rate(earlier, settings), learning_rate(later, settings)
    assert 0.1 <= before <= 1.0 + 1e-12 and 0.1 <= after <= 1.0 + 1e-12
    if later + 1e-6 <= warmup:
        assert before <= after + 1e-12
    if earlier > warmup:
        assert before >= after - 1e-12


@pytest.mark.parametrize("progress", [-1e-9, 1.0000001, float("nan")])
def test_progress_outside_the_run_is_a_defect(progress: float) -> None:
    with pytest.raises(ValueError, match="progress"):
        learning_rate(progress, OptimSettings())
