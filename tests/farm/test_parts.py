"""The scheduler's parts that need no Blender: layout, pace, progress, signals, plan."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st
from megasynth_attr.farm.layout import Layout, available_cores, choose_layout

from megasynth_attr.core.errors import EnvironmentProblem, Interrupted
from megasynth_attr.core.pages.words import duration_text, size_text
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.farm.estimate import worker_seconds_per_frame
from megasynth_attr.farm.events import EventLog, read_events
from megasynth_attr.farm.progress import Pace, Progress
from megasynth_attr.farm.scratch import scratch_folder
from megasynth_attr.farm.tasks import check_disk, describe, free_bytes, make_plan, select
from megasynth_attr.scene.config import resolve
from megasynth_attr.scene.settings import RunSettings

GIB = 2**30


@pytest.mark.parametrize(
    ("settings", "scenes", "cores", "memory", "expected"),
    [
        ({}, 200, 2, 16 * GIB, (1, 2)),
        ({}, 200, 1, 16 * GIB, (1, 1)),
        ({}, 200, 16, 64 * GIB, (8, 2)),
        ({}, 1, 2, 16 * GIB, (1, 2)),  # one scene gets all cores
        ({}, 3, 16, 64 * GIB, (3, 5)),
        ({}, 200, 16, 6 * GIB, (4, 4)),  # memory for four workers
        ({}, 200, 16, 0, (8, 2)),  # a system that does not tell its memory
        ({"workers": 2}, 200, 16, 64 * GIB, (2, 8)),
        ({"threads": 4}, 200, 16, 64 * GIB, (4, 4)),
        ({"workers": 3, "threads": 3}, 200, 2, GIB, (3, 3)),  # what is asked for is done
        ({"device": "cuda"}, 200, 16, 64 * GIB, (1, 16)),
    ],
)
def test_layout(settings: dict, scenes: int, cores: int, memory: int, expected: tuple[int, int]) -> None:
    run = dataclasses.replace(RunSettings(), **settings)
    assert choose_layout(run, scenes, cores, memory) == Layout(*expected)


@given(st.integers(1, 5000), st.integers(1, 256), st.integers(0, 2**40))
def test_the_layout_never_asks_for_more_than_there_is(scenes: int, cores: int, memory: int) -> None:
    layout = choose_layout(RunSettings(), scenes, cores, memory)
    assert layout.workers >= 1 and layout.threads >= 1
    assert layout.workers * layout.threads <= cores and layout.workers <= scenes


def test_the_cores_of_this_process_are_counted_not_those_of_the_machine() -> None:
    code = "from megasynth_attr.farm.layout import available_cores; print(available_cores())"
    command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", code]
    done = subprocess.run(command, env=runs.environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1" and available_cores() >= 1


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
    with Progress(20, 8, expected_s=60, stream=stream) as progress:
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
    assert stream.getvalue().splitlines()[0] == "a message"
    assert stream.getvalue().splitlines()[-1].startswith("frames 14/14 (100 %)")
    assert "complete" in stream.getvalue()


def test_openjd_lines_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4, 1, expected_s=1, openjd=True, stream=io.StringIO()) as progress:
        progress.frame("a")
        progress.say("scene a")
    assert capsys.readouterr().out.splitlines() == ["openjd_status: scene a", "openjd_progress: 50.0"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (45, "45 s"), (200, "3 min 20 s"), (18600, "5 h 10 min"), (187200, "2 d 4 h")],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_sizes_in_words() -> None:
    assert [size_text(n) for n in (999, 1000, 1.5e6, 2.34e9, 5e12)] == ["999 B", "1 kB", "1.5 MB", "2.34 GB", "5 TB"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_are_remembered_until_somebody_asks(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=f"stopped by {number.name}; run the same command again"):
            stop.check()
    assert signal.getsignal(number) is before


def test_an_impatient_stop_raises_at_once_and_nests() -> None:
    with pytest.raises(Interrupted), StopRequest(patient=False):
        with StopRequest() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted):
                inner.check()
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the signal should have ended the block")


def test_the_time_limit() -> None:
    with StopRequest(0.05) as stop:
        stop.check()
        time.sleep(0.06)
        with pytest.raises(Interrupted, match=r"max_runtime_s=0\.05 is over"):
            stop.check()


def test_a_plan_selects_and_counts(tmp_path: Path) -> None:
    words = ["preset=demo", "dataset_count=1", "downstream=", "frames=10", "scene_count=20", f"out={tmp_path}"]
    everything = make_plan(resolve(words))
    assert len(everything.selected) == len(everything.todo) == 4 * 20
    assert everything.frames_todo == 800
    assert "4 (camera_00, geometry_00, lighting_00, texture_00)" in describe(everything)
    some = make_plan(resolve([*words, "scenes=3,7-8", "members=[texture,camera]"]))
    assert [task.key for task in some.selected][:3] == ["texture_00/000003", "texture_00/000007", "texture_00/000008"]
    assert some.seconds_needed > 0 and some.bytes_needed > 0


def test_shards_are_disjoint_and_complete() -> None:
    whole = resolve(["preset=demo", "dataset_count=1", "downstream=", "scenes=0-2"])
    for count in (1, 3, 5, 12):
        parts = []
        for index in range(1, count + 1):
            run = dataclasses.replace(whole.run, shard=f"{index}/{count}")
            members = tuple(dataclasses.replace(config, run=run) for config in whole.members)
            parts.append([task.key for task in select(dataclasses.replace(whole, members=members))])
        assert sum(map(len, parts)) == len(select(whole)) == 12
        assert set().union(*parts) == {task.key for task in select(whole)}
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_plan_learns_from_this_machine(tmp_path: Path) -> None:
    config = resolve([*runs.TINY]).members[0]
    assumed = worker_seconds_per_frame(config, tmp_path, 1)
    assert not assumed.measured
    with EventLog(tmp_path) as events:
        for wall_s in (3.0, 4.0, 50.0):
            kind = "geometry:28x28:draft:0:best:cpu:1"
            events.write("scene_done", cost_class=kind, frames=2, seconds={"wall_s": wall_s})
    with events.path.open("a") as file:
        file.write('{"event": "scene_done", "cost_class": {"cut": 1}')  # a line cut by a crash
    learned = worker_seconds_per_frame(config, tmp_path, 1)
    assert learned.measured and learned.value == 2.0
    assert not worker_seconds_per_frame(config, tmp_path, 2).measured
    assert len(list(read_events(tmp_path))) == 3
    assert json.loads(events.path.read_text().splitlines()[0])["time"] > 1.7e9


def test_the_disk_check(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "there", 0, "nothing")
    with pytest.raises(EnvironmentProblem, match=r"5 frames need about .* but only .* are; free some space"):
        check_disk(tmp_path, free_bytes(tmp_path), "5 frames")


def test_scratch_folders_of_the_dead_are_removed_and_those_of_the_living_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = (
        "import time\nfrom megasynth_attr.farm.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n    print(folder, flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], env=runs.environment(), stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    with scratch_folder() as ours:
        assert theirs.is_dir() and ours.parent == theirs.parent == tmp_path
    assert not ours.exists()
    other.kill()
    other.communicate()
    assert theirs.is_dir()
    with scratch_folder():
        assert not theirs.exists()
