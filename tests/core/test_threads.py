"""Who computes with how many threads, and that idle ones sleep: before libraries load, never against the user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import runs

from megasynth_attr.core import threads

OURS = (*threads.BLAS_THREADS, *threads.WAITING)


def settled(given: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the variables after ``settle`` in an environment that holds only ``given`` of them."""
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as inner:
        inner.setattr(os, "environ", dict(os.environ))
        threads.settle()
        return {name: os.environ[name] for name in OURS if name in os.environ}


def test_idle_threads_sleep_unless_the_user_wants_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_quota", lambda: 0)
    assert settled({}, monkeypatch) == threads.WAITING
    for given in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"KMP_BLOCKTIME": "200"}):  # one would undo the other
        assert settled(given, monkeypatch) == given


def test_libraries_learn_of_a_quota_which_they_do_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_quota", lambda: 3)
    monkeypatch.setattr(threads, "_affinity", lambda: 64)
    assert threads.available_cores() == 3
    assert settled({}, monkeypatch) == threads.WAITING | dict.fromkeys(threads.BLAS_THREADS, "3")
    one = {"OMP_NUM_THREADS": "1"}
    assert settled(one, monkeypatch) == threads.WAITING | one
    monkeypatch.setattr(threads, "_affinity", lambda: 2)
    assert threads.available_cores() == 2 and settled({}, monkeypatch) == threads.WAITING


@pytest.mark.parametrize(
    ("text", "cores"),
    [("250000 100000\n", 2), ("50000 100000", 1), ("max 100000", 0), ("", 0), ("max", 0), ("-1 100000", 0), ("9 0", 0)],
)
def test_odd_quotas_are_none(text: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    assert threads._quota() == 0
    threads.QUOTA.write_text(text)
    assert threads._quota() == cores


def test_cores_are_shared_out() -> None:
    assert [threads.threads_each(processes, 16) for processes in (1, 3, 8, 16, 17)] == [16, 5, 2, 1, 1]
    assert threads.threads_each(4, 16, wanted=7) == 7


def test_pytorch_is_loaded_after_it_is_settled() -> None:
    """GNU OpenMP says what it has read when it is loaded."""
    pytest.importorskip("torch")
    path = os.pathsep.join([str(runs.ROOT), str(runs.ROOT / "train")])
    given = runs.environment(OMP_DISPLAY_ENV="TRUE", PYTHONPATH=path)
    env = {name: value for name, value in given.items() if name not in OURS}
    command = [sys.executable, "-m", "megasynth_train.inspect", "--help"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
