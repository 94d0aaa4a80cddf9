"""What happens to jobs on a real Slurm cluster, one scenario after another; minutes long, so not part of `make test`.

Run with ``pytest -m proof tests/farm/test_slurm_campaign.py``.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import runs
from slurm_cluster import LARGEST_ARRAY, NODES, Cluster

pytestmark = [pytest.mark.slow, pytest.mark.proof]
SCENES = 4
# scenes that take a few seconds, so that there is time to do something to them
WORDS = (
    *runs.TINY,
    "frames=40",
    "executor=slurm",
    "jobs=2",
    "workers=1",
    "threads=1",
    "slurm_minutes=10",
    "attempts=1",
)
LIMIT_S = 900  # with other programs beside it


class Run:
    """The pipeline in another process, waiting for its jobs."""

    def __init__(self, cluster: Cluster, out: Path, *words: str, terminal: bool = False) -> None:
        self.cluster, self.out = cluster, out
        self._said = out.with_suffix(".txt")
        self._terminal, theirs = pty.openpty() if terminal else (0, 0)
        with self._said.open("ab") as log:
            self._process = subprocess.Popen(
                runs.command(*WORDS, *words, f"out={out}"),
                env=runs.environment(SLURM_CONF=cluster.env["SLURM_CONF"]),
                stdin=theirs if terminal else subprocess.DEVNULL,
                stdout=log,
                stderr=theirs if terminal else subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._said.read_text()

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = [line for path in self.out.glob("events/*.jsonl") for line in path.read_text().splitlines()]
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def wait_for(self, condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end and self._process.poll() is None, self.said
            time.sleep(0.1)

    def wait_for_scenes(self, count: int) -> None:
        self.wait_for(lambda: len(runs.complete_scenes(self.out)) >= count)

    def running(self) -> list[str]:
        return self.cluster.queue("RUNNING")

    def press_ctrl_c(self, answer: bytes) -> str:
        """Press Ctrl-C and answer the question; returns what the terminal showed."""
        self._process.send_signal(signal.SIGINT)
        shown = ""
        while "leave it running:" not in shown:
            shown += os.read(self._terminal, 4096).decode()
        os.write(self._terminal, answer)
        self._process.wait(60)
        return shown + os.read(self._terminal, 65536).decode()

    def interrupt(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, code: int = 0, scenes: int = SCENES) -> str:
        """Wait for the end, check the exit code and that nothing is left in the queue, and return what was said."""
        assert self._process.wait(LIMIT_S) == code, self.said
        assert "Traceback" not in self.said
        assert [state for state in self.cluster.queue(format="%T") if state != "COMPLETING"] == []
        if code == 0:
            assert len(runs.complete_scenes(self.out)) == scenes
        return self.said

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def start(slurm: Cluster, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    started: list[Run] = []

    def new(*words: str, terminal: bool = False) -> Run:
        started.append(Run(slurm, tmp_path / "out", *words, terminal=terminal))
        return started[-1]

    yield new
    for run in started:
        run.kill()
    slurm.ask("scancel", "--user=root")
    runs.wait_until(lambda: slurm.queue() == [])


Start = Callable[..., Run]


def test_a_requeued_job_is_alive(start: Start, slurm: Cluster) -> None:
    run = start()
    run.wait_for(lambda: run.running())
    for _ in range(2):  # attempts=1: none of them counts
        run.wait_for(lambda: run.running())
        slurm.ask("scontrol", "requeue", run.running()[0])
    run.end()
    assert len(run.events("submitted")) == 1


def test_a_preempted_job_is_requeued(start: Start, slurm: Cluster) -> None:
    run = start()
    run.wait_for_scenes(1)
    urgent = ["sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 8"]
    slurm.ask(*urgent)
    run.wait_for(lambda: slurm.queue("PENDING"))
    run.end()
    assert len(run.events("submitted")) == 1


def test_one_cancelled_job_is_submitted_again(start: Start) -> None:
    run = start("attempts=2")
    run.wait_for(lambda: len(run.running()) == 2)
    run.cluster.ask("scancel", run.running()[0])
    assert "was cancelled from outside (scancel); submitted again" in run.end()
    assert [len(event["shards"]) for event in run.events("submitted")] == [2, 1]


def test_all_jobs_cancelled_end_the_run(start: Start) -> None:
    run = start("attempts=2")
    run.wait_for(lambda: run.running())
    run.cluster.ask("scancel", run.running()[0].partition("_")[0])
    assert "all jobs of this run were cancelled from outside (scancel)" in run.end(75)
    assert len(run.events("submitted")) == 1
    start("frames=40").end()  # the same command goes on


def test_a_job_that_slurm_ends_at_its_limit_goes_on(start: Start, slurm: Cluster) -> None:
    run = start("jobs=1", "scene_count=16", "frames=200")
    run.wait_for(lambda: run.running())
    slurm.ask("scontrol", "update", f"JobId={run.running()[0]}", "TimeLimit=1")
    run.end(scenes=16)
    assert len(run.events("submitted")) == 2
    assert run.events("shard_end")[0]["exit_code"] == 75


def test_time_slices_of_one_minute(start: Start) -> None:
    run = start("jobs=1", "scene_count=16", "frames=100", "slurm_minutes=1")
    assert "max_runtime_s=45 is over" in run.end(scenes=16)
    assert len(run.events("submitted")) >= 2


def test_a_node_goes_down(start: Start, slurm: Cluster) -> None:
    run = start("workers=2")  # a node for each job
    run.wait_for(lambda: len(run.running()) == 2)
    run.wait_for_scenes(1)
    slurm.kill_node(NODES[0])
    try:
        run.end()
    finally:
        slurm.start_node(NODES[0])
    assert len(run.events("submitted")) == 1


def test_the_controller_restarts(start: Start, slurm: Cluster) -> None:
    run = start()
    run.wait_for(lambda: run.running())
    slurm.stop_controller()
    time.sleep(5)
    slurm.start_controller()
    run.end()
    assert len(run.events("submitted")) == 1


def test_more_jobs_than_an_array_may_have(start: Start) -> None:
    run = start(f"jobs={LARGEST_ARRAY + 1}")
    run.end()
    assert [event["shards"] for event in run.events("submitted")] == [[1, 2, 3], [4]]


def test_one_bad_node(start: Start, tmp_path: Path, blender_binary: str) -> None:
    """Jobs on it fail in seconds, so Slurm would send all of them there."""
    blender = tmp_path / "blender"
    bad = f'if [ "$SLURMD_NODENAME" = {NODES[0]} ]; then echo no graphics card; exit 1; fi'
    blender.write_text(f'#!/bin/sh\n{bad}\nexec {blender_binary} "$@"\n')
    blender.chmod(0o755)
    run = start("jobs=3", "attempts=2", f"blender={blender}")
    said = run.end()
    assert re.search(rf"shard \d/3 on {NODES[0]}: .*no graphics card.*; submitted again, without node {NODES[0]}", said)
    ends = [event["exit_code"] for event in run.events("shard_end")]
    assert ends.count(0) == 3 and 1 <= ends.count(4) <= 2


def test_no_other_node_for_one_shard(start: Start, tmp_path: Path, blender_binary: str) -> None:
    """Those that wait must not be kept away from the only node."""
    blender = tmp_path / "blender"
    bad = 'case "$SLURM_ARRAY_TASK_ID" in 0) echo no memory; exit 1;; esac'
    blender.write_text(f'#!/bin/sh\n{bad}\nexec {blender_binary} "$@"\n')
    blender.chmod(0o755)
    run = start("partition=small", "jobs=3", "workers=2", f"blender={blender}")
    assert "no memory" in run.end(4).splitlines()[-1]
    assert sorted(event["exit_code"] for event in run.events("shard_end")) == [0, 0, 4]
    assert len(runs.complete_scenes(run.out)) == 2


def test_most_shards_say_the_same(start: Start, tmp_path: Path) -> None:
    blender = tmp_path / "blender"
    blender.write_text("#!/bin/sh\necho no graphics card; exit 1\n")
    blender.chmod(0o755)
    said = start("attempts=5", f"blender={blender}").end(4)
    assert "no graphics card" in said.splitlines()[-1]


def test_why_jobs_wait(start: Start, slurm: Cluster) -> None:
    slurm.ask("scontrol", "update", "PartitionName=tests", "State=DOWN")
    run = start()
    try:
        run.wait_for(lambda: "2 pending (PartitionDown)" in run.said)
        assert "time left unknown while nothing runs" in run.said
        assert str(run.out / "events" / "slurm") in run.said
    finally:
        slurm.ask("scontrol", "update", "PartitionName=tests", "State=UP")
    run.end()


def test_left_alone_and_found_again(start: Start) -> None:
    start("detach=true")._process.wait()
    run = start()
    run.wait_for(lambda: "submitted before" in run.said)
    other = runs.pipeline(*WORDS, f"out={run.out}", SLURM_CONF=run.cluster.env["SLURM_CONF"])
    assert other.returncode == 2 and "another command waits for the Slurm jobs of" in other.stderr
    run.interrupt(signal.SIGKILL)  # whoever waits may go at any time
    run = start()
    run.end()
    assert len(run.events("submitted")) == 1


def test_ctrl_c_leaves_the_jobs_or_cancels_them(start: Start) -> None:
    run = start("frames=400", terminal=True)
    run.wait_for(lambda: run.running())
    assert "goes on by itself" in run.press_ctrl_c(b"\n")
    assert len(run.cluster.queue()) == 2
    run = start("frames=400", terminal=True)
    run.wait_for(lambda: sum(event["run"]["executor"] == "slurm" for event in run.events("start")) == 2)
    time.sleep(1)
    assert "cancelled" in run.press_ctrl_c(b"c\n")
    assert len(run.events("submitted")) == 1
    run.end(75)


def test_without_a_terminal_a_signal_cancels(start: Start) -> None:
    run = start()
    run.wait_for(lambda: run.running())
    run.interrupt(signal.SIGTERM)
    said = run.end(75)
    assert "cancelled" in said and "stopped by SIGTERM" in said
