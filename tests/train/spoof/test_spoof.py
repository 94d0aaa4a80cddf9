"""The spoof test: flatness against analytic answers, the separation against counting, and the whole program."""

from __future__ import annotations

import json
import sys
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))

from eval_scenes import Oracle, fast, write_scenes

from megasynth_attr.core.errors import ExitCode, run_main
from megasynth_train.spoof import __main__ as program
from megasynth_train.spoof.measure import equal_error_rate, planarity, roc_auc
from megasynth_train.spoof.settings import SpoofSettings

RNG = np.random.default_rng(7)


def test_planarity_of_known_shapes() -> None:
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-2, 2, 40)), axis=-1).reshape(-1, 2)
    plane = np.concatenate([grid, np.zeros((len(grid), 1))], axis=1) @ turn + 5
    assert planarity(plane) == pytest.approx(0, abs=1e-6)
    # a box of half sides a, b, c, as its eight corners: c / sqrt(a² + b² + c²)
    corners = np.array(list(product((-3, 3), (-2, 2), (-1, 1)))) @ turn
    assert planarity(corners) == pytest.approx(1 / np.sqrt(14))
    assert planarity(100 * corners + 3) == pytest.approx(1 / np.sqrt(14))  # neither scale nor place matters
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])
    assert planarity(octahedron) == pytest.approx(1 / np.sqrt(3))
    noise = plane + 0.01 * RNG.normal(size=plane.shape)
    assert planarity(noise) == pytest.approx(0.01 / np.sqrt((grid**2).sum(axis=1).mean() + 3e-4), rel=0.05)
    assert np.isnan(planarity(np.ones((5, 3))))


def slow_auc(printed: np.ndarray, real: np.ndarray) -> float:
    return float(np.mean([(r > p) + 0.5 * (r == p) for p in printed for r in real]))


def slow_eer(printed: np.ndarray, real: np.ndarray) -> float:
    """Walk along the ROC's line in tiny steps and return where false alarms first reach the misses."""
    thresholds = sorted({*printed, *real}, reverse=True)
    points = [(0.0, 1.0)] + [(np.mean(printed >= t), np.mean(real < t)) for t in thresholds]
    for (f0, m0), (f1, m1) in pairwise(points):
        for share in np.linspace(0, 1, 5001):
            false, missed = f0 + share * (f1 - f0), m0 + share * (m1 - m0)
            if false >= missed:
                return float((false + missed) / 2)
    raise AssertionError


def test_separation_against_counting() -> None:
    for shift, count in product((-1.0, 0.0, 0.5, 3.0), (1, 7, 40)):
        printed, real = RNG.normal(size=count), RNG.normal(shift, size=count + 3)
        for decimals in (12, 0):  # 0: many ties
            p, r = np.round(printed, decimals), np.round(real, decimals)
            assert roc_auc(p, r) == pytest.approx(slow_auc(p, r))
            assert equal_error_rate(p, r) == pytest.approx(slow_eer(p, r), abs=1e-3)
    assert (roc_auc([0.1, 0.2], [0.3, 0.4]), equal_error_rate([0.1, 0.2], [0.3, 0.4])) == (1, 0)
    assert (roc_auc([0.3, 0.4], [0.1, 0.2]), equal_error_rate([0.3, 0.4], [0.1, 0.2])) == (0, 1)
    assert (roc_auc([1, 1], [1, 1]), equal_error_rate([1, 1], [1, 1])) == (0.5, 0.5)


@pytest.mark.slow
def test_the_whole_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_scenes(tmp_path / "ours")
    settings = SpoofSettings(
        (str(data),), (str(data),), str(tmp_path / "out"), views=2, width_px=56, max_scenes=2, progress=False, threads=1
    )
    oracle = Oracle(fast(data, tmp_path / "x", views=2))
    monkeypatch.setattr(program, "load_model", lambda *_: (oracle, {}))
    record = program.run(settings)
    assert record == json.loads((tmp_path / "out/results.json").read_text())
    (run,) = record["runs"]
    assert run["scenes"]["printed"] == run["scenes"]["real"]  # the same scenes were given twice
    assert (run["summary"]["auc"], run["summary"]["eer"]) == (0.5, 0.5)
    for scene in run["scenes"]["real"].values():  # a perfect model: its points are as flat as the true ones
        assert scene["planarity"] == pytest.approx(scene["true_planarity"], rel=1e-3)
        assert scene["accuracy_mean"] == pytest.approx(0, abs=2e-6)
    assert [row["method"] for row in record["methods"]] == ["truth", "base"]
    page = (tmp_path / "out/index.html").read_text()
    assert '<b><span class="swatch predicted"></span>Printed.</b>' in page and "Real.</b>" in page
    assert "| truth " in (tmp_path / "out/results.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["real=b", "out=c"], "printed= is missing"),
        (["printed=a", "out=c"], "real= is missing"),
        (["printed=a", "real=b"], "out= is missing"),
        (["printed=a", "real=b", "out=c", "comparison=d", "adapter=e"], "brings its own base model"),
        (["printed=a", "real=b", "out=c", "comparison=d"], "it holds no compare.json"),
    ],
)
def test_bad_words(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_main(program.main, words) == ExitCode.USAGE
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
