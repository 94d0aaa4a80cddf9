"""The learning-rate range test against problems with an analytic answer, and on a real run that it must not touch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import training_runs as runs

from megasynth_attr.core.errors import ConfigError, ExitCode, run_main
from megasynth_train.finetune import main
from megasynth_train.training.lr_find import Curve, range_test, suggest

STEPS = 280
RATES = np.geomspace(1e-7, 1.0, STEPS).tolist()
LOG_RATIO = math.log(RATES[1] / RATES[0])


def quadratic(curvature: float, offset: float = 0.0, noise: float = 0.0) -> Callable[[float], float]:
    """Return gradient descent on offset + w², scaled so that it diverges above a rate of 2 / curvature."""
    state = {"w": 1.0}
    generator = np.random.default_rng(0)

    def step(rate: float) -> float:
        loss = offset + state["w"] ** 2 + noise * generator.standard_normal()
        state["w"] *= 1 - rate * curvature
        return float(loss)

    return step


@pytest.mark.parametrize("curvature", [20.0, 3e3])
@pytest.mark.parametrize(("offset", "noise"), [(0.0, 0.0), (-5.0, 0.0), (2.0, 0.05)])
def test_a_quadratic_diverges_and_falls_fastest_where_the_analysis_says(
    curvature: float, offset: float, noise: float
) -> None:
    """With rates r = r₀ e^(hk) the loss is exp(−2ar/h): it falls fastest at r = h / (2a), and rises from 2/a."""
    curve = range_test(quadratic(curvature, offset, noise), RATES)
    found = suggest(curve)
    assert curve.diverged and len(curve.losses) == len(curve.rates) < STEPS
    # at 2/a the loss is down to e^(−4/h): it takes some steps until it has grown back
    assert 2 / curvature < curve.rates[-1] < 20 / curvature
    assert found.steepest == pytest.approx(LOG_RATIO / (2 * curvature), rel=0.35)
    assert found.rate == min(found.steepest, found.rising / 10) and found.steepest < found.rising <= curve.rates[-1]


def test_without_noise_the_smoothed_curve_rises_where_it_must() -> None:
    curve = range_test(quadratic(20.0), RATES)
    assert curve.rates[int(np.argmin(curve.losses))] == pytest.approx(2 / 20, rel=2 * LOG_RATIO)


def test_a_loss_that_only_fluctuates_gives_no_suggestion() -> None:
    generator = np.random.default_rng(1)
    curve = range_test(lambda rate: 1 + 0.1 * float(generator.standard_normal()), RATES)
    found = suggest(curve)
    assert not curve.diverged and found.rate is None and "no suggestion" in found.text(curve)


def test_a_loss_that_is_not_finite_ends_the_test_or_is_refused() -> None:
    step = quadratic(20.0)
    curve = range_test(lambda rate: None if rate > 0.01 else step(rate), RATES)
    assert curve.diverged and curve.rates[-1] < 0.01 and suggest(curve).rate is not None
    with pytest.raises(ConfigError, match=r"not finite in step 2, at a learning rate of 1\.1e-07: too low to be the"):
        range_test(lambda rate: None if rate > RATES[1] else 1.0, RATES)


def test_a_tenth_of_where_it_rises_if_that_is_less_than_the_steepest() -> None:
    rates = np.geomspace(1e-4, 1, 81)
    losses = np.where(rates < 0.1, 1 - rates, 0.9 + 5 * (rates - 0.1))  # falls fastest just before it rises
    curve = Curve(tuple(rates), tuple(losses), 1.0, True)
    found = suggest(curve)
    assert found.rate == found.rising / 10 == pytest.approx(0.01, rel=0.3) and found.steepest > 0.03
    assert "a tenth of the rate from which the loss rises" in found.text(curve)


def test_it_suggests_and_leaves_the_run_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = runs.write_training_dataset(tmp_path / "data")
    out, short = tmp_path / "run", ("steps=2", "rank=2", "data.images_per_step=2", "run.validate_every=0")
    test = (*short, "lr_find=true", "lr_find_steps=40")
    assert run_main(main, runs.words(data, out, *test)) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "suggested: optim.lr=" in said or "no suggestion" in said
    assert "1e-5 is the released learning rate, for 24,000 steps" in said
    assert sorted(path.name for path in out.iterdir()) == ["lr_find.json", "lr_find.png"]
    record = json.loads((out / "lr_find.json").read_text())
    assert record["rates"][0] == 1e-7 and len(record["losses"]) == len(record["rates"]) <= 39
    assert run_main(main, runs.words(data, out, *short)) == ExitCode.DONE  # the same folder, then the run
    assert run_main(main, runs.words(data, tmp_path / "other", *short)) == ExitCode.DONE
    runs.assert_same_result(out, tmp_path / "other")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and "lr_find" not in path.name}
    assert run_main(main, runs.words(data, out, *test, "seed=1", "run.max_runtime_s=0.001")) == ExitCode.INTERRUPTED
    assert json.loads((out / "lr_find.json").read_text()) == record
    assert {path: path.read_bytes() for path in before} == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    assert run_main(main, runs.words(data, foreign, *test)) == ExitCode.USAGE
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]
