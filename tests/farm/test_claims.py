"""Several runs in one folder: they share the scenes, come and go at any time, and take over what a dead one leaves."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import runs
from runs import Reference

from megasynth_attr.core.files import sha256_of
from megasynth_attr.dataset.paths import failure_file, scene_dir
from megasynth_attr.dataset.record_file import sealed
from megasynth_attr.farm import damage
from megasynth_attr.farm.claims import Claims
from megasynth_attr.farm.tasks import Plan, make_plan
from megasynth_attr.scene.config import resolve

WAITING = "other runs are rendering the last scenes ("
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
# shares scenes like a run, but "rendering" one is making its folder, which fails where it is there already
SHARER = """
import sys, time
from megasynth_attr.dataset.paths import scene_dir
from megasynth_attr.farm.claims import Claims
from megasynth_attr.farm.tasks import make_plan
from megasynth_attr.scene.config import resolve

plan = make_plan(resolve(sys.argv[1:]))
left = len(plan.todo)
with Claims(plan.experiment.out) as claims:
    claims.share(plan.todo)
    while left:
        task = claims.next()
        if task is None:
            time.sleep(0.02)
        elif claims.take(task):
            print(task.key, flush=True)
            time.sleep(0.01)
            scene_dir(task.dataset, task.scene_index).mkdir(parents=True)
            claims.unlock(task.key)
            left -= 1
        left -= len(claims.ended) + sum(len(part.scenes) for part in claims.completed)
        claims.ended.clear()
        claims.completed.clear()
"""
HOLDER = """
import sys, time
from pathlib import Path
from megasynth_attr.farm.claims import Claims

with Claims(Path(sys.argv[1])) as claims:
    print(all([claims.lock(f"geometry_00/{index:06d}") for index in range(4)]), flush=True)
    time.sleep(120)
"""


def shared_plan(out: Path, scenes: int) -> tuple[Plan, list[str]]:
    out.mkdir()
    words = [*runs.TINY, f"scene_count={scenes}", f"out={out}"]
    return make_plan(resolve(words)), words


def scenes_done(out: Path) -> Counter[str]:
    """Return how often each scene was rendered, by the event logs of all runs."""
    events = [json.loads(line) for file in (out / "events").glob("*.jsonl") for line in file.read_text().splitlines()]
    return Counter(event["scene"] for event in events if event["event"] == "scene_done")


def each_once(out: Path, scenes: int = 4) -> bool:
    return scenes_done(out) == {f"geometry_00/{index:06d}": 1 for index in range(scenes)}


def wait_for_line(run: subprocess.Popen[str], words: str) -> None:
    assert run.stdout is not None
    seen = []
    for line in run.stdout:
        seen.append(line)
        if words in line:
            return
    pytest.fail(f"{words!r} was not said: {''.join(seen)}")


@contextmanager
def holder(out: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that has claimed all four scenes."""
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-c", HOLDER, str(out)]
    with subprocess.Popen(command, env=runs.environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            process.kill()


def test_processes_that_come_go_and_are_killed_do_each_scene_exactly_once(tmp_path: Path) -> None:
    count = 400
    _, words = shared_plan(tmp_path / "out", count)
    command, moments = [sys.executable, "-c", SHARER, *words], random.Random(3)
    killed, ended = [], []
    with ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            return stack.enter_context(
                subprocess.Popen(command, env=runs.environment(), stdout=subprocess.PIPE, text=True)
            )

        running = [start() for _ in range(3)]
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()
        for _ in range(3):
            time.sleep(moments.uniform(0, 0.3))
            victim = running.pop(0)
            victim.kill()
            killed.append(victim.communicate()[0].splitlines())
            running.append(start())
        for process in running:
            ended.append(process.communicate(timeout=60)[0].splitlines())
            assert process.returncode == 0
    assert len(runs.complete_scenes(tmp_path / "out")) == count
    begun = Counter(key for lines in (*killed, *ended) for key in lines)
    again = {key for key, times in begun.items() if times > 1}
    assert again <= {lines[-1] for lines in killed if lines}, "only what a killed one was about to do is done again"
    assert sum(len(lines) > 0 for lines in ended) == 3, "all have their share"


def test_a_run_alone_goes_in_order_and_one_that_meets_another_goes_elsewhere(tmp_path: Path) -> None:
    plan, _ = shared_plan(tmp_path / "out", 100)
    with Claims(tmp_path / "out") as claims:
        claims.share(plan.todo)
        order = [claims.next() for _ in range(100)]
        assert order == list(plan.todo)
        assert claims.next() is None and not claims.waiting
    with holder(tmp_path / "out"), Claims(tmp_path / "out") as claims:
        claims.share(plan.todo[2:5])  # of which two are claimed
        assert claims.next() == plan.todo[4]
        assert claims.next() is None and claims.waiting
        places = []
        for _ in range(40):
            claims.share(plan.todo[:1] + plan.todo[4:])  # two blocks, of which the first is empty at once
            claims._place = 0
            first, second = (plan.todo.index(claims.next()) for _ in range(2))
            assert first > 3 and second in (first + 1, 4)
            places.append(first)
        assert max(Counter(places).values()) < 10, "the beginning of a block is no better than its other places"


def test_what_other_runs_completed_or_gave_up_is_not_done_again(tmp_path: Path) -> None:
    plan, _ = shared_plan(tmp_path / "out", 5)

    def fail(index: int) -> None:
        file = failure_file(plan.todo[index].dataset, index)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")

    fail(0)  # in an earlier run: it is tried again
    with Claims(tmp_path / "out") as claims:
        claims.share(plan.todo)
        fail(1)
        scene_dir(plan.todo[2].dataset, 2).mkdir(parents=True)
        assert [claims.take(task) for task in plan.todo] == [True, False, False, True, True]
        assert list(claims.ended) == [plan.todo[1], plan.todo[2]]
        claims.ended.clear()
        scene_dir(plan.todo[4].dataset, 4).mkdir(parents=True)
        left = [claims.next() for _ in range(2)]
        assert sorted(task.scene_index for task in left if task) == [0, 3] and claims.next() is None
        ended = [task.scene_index for task in claims.ended] + [i for part in claims.completed for i in part.scenes]
        assert sorted(ended) == [1, 2, 4]


def test_without_locks_one_run_works_as_ever_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    plan, _ = shared_plan(tmp_path / "out", 5)
    with Claims(tmp_path / "out") as claims:
        claims.share(plan.todo)
        assert [claims.next() for _ in range(5)] == list(plan.todo)
        assert all(map(claims.take, plan.todo))
    said = capsys.readouterr().err
    assert said.count("file system without locks (No locks available)") == 1 and "shard=" in said


@pytest.mark.parametrize("container", [(), CONTAINER])
def test_runs_that_start_together_render_each_scene_once(
    reference: Reference, tmp_path: Path, container: tuple[str, ...]
) -> None:
    if container and subprocess.run([*container, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare --pid needs root")
    out = tmp_path / "out"
    command = [*container, *runs.command(*runs.TINY, f"out={out}", "workers=1", "threads=1")]
    started = [
        subprocess.Popen(command, env=runs.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(3)
    ]
    texts = [run.communicate(timeout=runs.LIMIT_S)[0] for run in started]
    assert [run.returncode for run in started] == [0, 0, 0], texts
    assert each_once(out), texts
    assert all("frames 8/8 (100 %)" in text or "0 to render" in text for text in texts)
    assert runs.tree_hash(out) == reference.hash


def test_one_of_two_is_killed_and_the_other_takes_over(reference: Reference, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (*runs.TINY, f"out={out}", "workers=1")
    with runs.started(*words) as first:
        runs.wait_until(lambda: bool(runs.frames_being_written(out)))
        os.killpg(first.pid, signal.SIGSTOP)  # or it might end before the second says anything
        with runs.started(*words) as second:
            wait_for_line(second, "shared    another run does the same here")
            os.killpg(first.pid, signal.SIGKILL)
            text, _ = second.communicate(timeout=runs.LIMIT_S)
    assert second.returncode == 0, text
    assert set(scenes_done(out).values()) == {1}, text  # what was killed may not have told of its last scene
    assert runs.tree_hash(out) == reference.hash


def test_a_run_waits_for_others_can_be_stopped_and_takes_over_what_dies(reference: Reference, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (*runs.TINY, f"out={out}", "workers=1")
    with holder(out) as other:
        limited = runs.pipeline(*words, "max_runtime=3")
        assert limited.returncode == 75 and "max_runtime_s=3 is over" in limited.stderr
        with runs.started(*words) as run:
            wait_for_line(run, f"{WAITING}4); waiting for them")
            sent = time.monotonic()
            run.send_signal(signal.SIGINT)
            text, _ = run.communicate(timeout=runs.LIMIT_S)
        assert run.returncode == 75 and "stopped by SIGINT" in text
        assert time.monotonic() - sent < 5, "it waited for something"
        with runs.started(*words) as run:
            wait_for_line(run, WAITING)
            assert not runs.complete_scenes(out)
            other.kill()
            text, _ = run.communicate(timeout=runs.LIMIT_S)
    assert run.returncode == 0, text
    assert each_once(out) and runs.tree_hash(out) == reference.hash


@pytest.mark.parametrize("name", ["scene.json", "checksums.json"])
@pytest.mark.parametrize("instead", ["pipe", "link to itself", "folder", "sparse"])
def test_what_is_no_file_is_damage_and_is_not_waited_for(tmp_path: Path, name: str, instead: str) -> None:
    scene = tmp_path / "geometry_00" / "scenes" / "000" / "000000"
    scene.mkdir(parents=True)
    (scene / "scene.json").write_text("{}")
    (scene / "checksums.json").write_text(sha256_of(scene / "scene.json"))
    assert damage._damage(scene) == ""
    file = scene / name
    file.unlink()
    if instead == "pipe":
        os.mkfifo(file)
    elif instead == "link to itself":
        file.symlink_to(file)
    elif instead == "folder":
        file.mkdir()
    else:
        with file.open("wb") as opened:
            opened.truncate(2**40)
    assert damage._damage(scene) == "scene.json or checksums.json is missing or unreadable"


def test_damaged_scenes_are_set_aside_and_rendered_anew(reference: Reference, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference.out, out)
    scenes = out / "geometry_00" / "scenes" / "000"
    (scenes / "000000" / "scene.json").unlink()
    cut = (scenes / "000001" / "scene.json").read_bytes()[:500]
    (scenes / "000001" / "scene.json").write_bytes(cut)
    (scenes / "000002" / "checksums.json").unlink()
    shutil.rmtree(scenes / "000003")  # a scene that is still to be rendered
    done = runs.pipeline(*runs.TINY, f"out={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    damaged = out / "geometry_00" / "damaged"
    assert [path.name for path in sorted(damaged.iterdir())] == ["000000", "000001", "000002"]
    assert (damaged / "000001" / "scene.json").read_bytes() == cut
    assert "4 selected, 3 complete, 1 to render" in done.stdout, "what the folders say"
    assert "4 selected, 0 complete, 4 to render" in done.stdout, "what is in them"
    for name, why in (("000000", "missing"), ("000001", "not the file that checksums.json"), ("000002", "missing")):
        (line,) = [line for line in done.stdout.splitlines() if f"geometry_00/{name}: " in line]
        assert why in line and f"kept as {damaged / name}, to be rendered anew" in line
    (scenes / "000002" / "scene.json").write_text("")
    (scenes / "000001" / "scene.json").unlink()
    shutil.rmtree(out / "geometry_00" / "index")  # as if 000002 were new, of another shard, and already damaged
    record = json.loads((file := out / "geometry_00" / "dataset.json").read_text())
    del record["scenes"]["000002"]
    file.write_text(json.dumps(sealed(record)))
    some = runs.pipeline(*runs.TINY, f"out={out}", "shard=2/2")  # odd scenes
    assert some.returncode == 0 and "2 selected, 1 complete, 1 to render" in some.stdout
    assert f"unfinished geometry_00: {scenes / '000002' / 'scene.json'} is damaged" in some.stdout
    assert (damaged / "000001.1").is_dir() and (scenes / "000001" / "scene.json").is_file()
    assert runs.pipeline(*runs.TINY, f"out={out}").returncode == 0
    assert (damaged / "000002.1").is_dir()
    shutil.rmtree(damaged)
    assert runs.tree_hash(out) == reference.hash
