"""Work shared among processes: results, errors, news, stops, and processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem, Interrupted
from megasynth_attr.core.parallel import for_each
from megasynth_attr.core.stop import StopRequest


def behave(how: str, item: int) -> tuple[int, str]:
    """Return an item's square and what the process knows of BLAS threads, or go wrong at item 3."""
    if item == 3 and how == "error":
        raise DatasetError("item 3 is damaged")
    if item == 3 and how == "defect":
        raise ZeroDivisionError("nobody expected this")
    if item == 3 and how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return item**2, os.environ["OPENBLAS_NUM_THREADS"]


def work(folder: Path, item: int, tell: Callable[[Any], None]) -> int:
    """Tell steps until asked to stop, and leave a file that says that this was heard; item 0 is short."""
    if item == 0:
        print("half a line", end="", file=sys.stderr)
        print(" and the rest\n", file=sys.stderr)
        tell(7)
        return 0
    try:
        with StopRequest() as stop:
            while True:
                tell(item)
                time.sleep(0.01)
                stop.check()
    finally:
        (folder / f"{item} stopped").touch()


def answers(how: str, processes: int, count: int = 6, **more: Any) -> dict[int, tuple[int, str]]:
    found: dict[int, tuple[int, str]] = {}
    with StopRequest() as stop:
        for_each(partial(behave, how), range(count), processes, stop, found.__setitem__, **more)
    return found


def test_every_item_is_answered_with_one_blas_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert answers("well", 2) == {item: (item**2, "1") for item in range(6)}
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ
    assert answers("well", 5, count=0) == {}
    assert answers("well", 1, count=1, threads=3)[0] == (0, "3") and answers("well", 1, count=1, threads=0)[0][1] == "7"


def test_errors_of_processes_are_raised_here() -> None:
    with pytest.raises(DatasetError, match="item 3 is damaged"):
        answers("error", 1)
    with pytest.raises(ZeroDivisionError) as raised:
        answers("defect", 2)
    assert "in behave" in raised.value.__notes__[0]
    with pytest.raises(EnvironmentProblem, match=r"worked on 3 was killed \(exit code -9\).*e\.g\. parallel=1"):
        answers("kill", 1, fewer="parallel=1")


def test_a_signal_ends_it_between_results() -> None:
    seen = []

    def stop_after_two(item: int, answer: object) -> None:
        seen.append(item)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Interrupted, match="SIGUSR1"), StopRequest() as stop:
        for_each(partial(behave, "well"), range(50), 1, stop, stop_after_two)
    assert seen == [0, 1]


def test_processes_tell_what_they_do_and_are_asked_to_stop(tmp_path: Path) -> None:
    news: list[tuple[int, Any]] = []

    def heard(item: int, told: Any) -> None:
        news.append((item, told))
        if {(1, 1), (2, 2)} <= set(news) and stop.signal is None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="SIGINT"), StopRequest() as stop:
        for_each(partial(work, tmp_path), [0, 1, 2], 2, stop, lambda *one: None, on_news=heard)
    assert [told for item, told in news if item == 0] == ["half a line and the rest", 7]
    for item in (1, 2):
        assert (tmp_path / f"{item} stopped").exists()
        assert news.count((item, "stopped by SIGTERM; run the same command again to resume")) == 1


def test_processes_whose_parent_is_killed_stop_too(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from functools import partial; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_parallel import *\n"
        "if __name__ == '__main__':\n"
        "    kill = lambda item, told: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"    for_each(partial(work, Path({str(tmp_path)!r})), [1], 1, StopRequest(), print, on_news=kill)\n"
    )
    (tmp_path / "program.py").write_text(code)
    assert subprocess.run([sys.executable, tmp_path / "program.py"], check=False).returncode == -signal.SIGKILL
    until = time.monotonic() + 30
    while not (tmp_path / "1 stopped").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert (tmp_path / "1 stopped").exists()
