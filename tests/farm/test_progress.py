"""The progress bar's numbers and lines."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from megasynth_attr.farm.progress import Pace, Progress


def plan(selected: int, todo: int, seconds: float) -> Any:
    return SimpleNamespace(frames_selected=selected, frames_todo=todo, seconds_needed=seconds)


def test_the_pace_forgets_what_was_long_ago_and_the_start() -> None:
    pace = Pace()
    assert pace.frames_per_s(50.0) is None
    for i in range(100):  # starting took 100 s, then two frames a second
        pace.add(100 + i / 2, i + 1)
    assert pace.frames_per_s(149.5) == pytest.approx(2.0)
    for i in range(3000):  # then ten frames a second for five minutes
        pace.add(150 + i / 10, 101 + i)
    assert pace.frames_per_s(449.9) == pytest.approx(10.0, rel=0.01)
    assert pace.frames_per_s(900) < 5.0  # nothing happens: the pace falls


def test_progress_counts_only_what_succeeds() -> None:
    stream = io.StringIO()
    with Progress(plan(20, 12, 60), stream=stream) as progress:
        assert 55 < progress.remaining_s() <= 60
        for _ in range(3):
            progress.frame("a")
        progress.take_back("a")  # an attempt failed
        assert progress.rendered == 0
        for _ in range(6):
            progress.frame("a")
        progress.take_back("b", 6)  # given up: its six frames will never come
        assert progress.rendered == 6
        progress.say("a message")
        progress.scene("a", 6)
        assert "other runs" not in stream.getvalue()
        progress.others = 3
    assert stream.getvalue().splitlines()[0] == "a message"
    assert stream.getvalue().splitlines()[-1].startswith("frames 14/14 (100 %)")
    assert stream.getvalue().endswith("complete (scenes by other runs: 3)\n")


def test_openjd_lines_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(plan(4, 3, 1), openjd=True, stream=io.StringIO()) as progress:
        progress.frame("a")
        progress.say("scene a")
    assert capsys.readouterr().out.splitlines() == ["openjd_status: scene a", "openjd_progress: 50.0"]
