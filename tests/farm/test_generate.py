"""The farm contract with real Blender workers: idempotent, divisible, atomic, resumable, and clear when it fails."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import runs
from runs import Reference

MISCHIEF = (
    *runs.TINY,
    f"plugins=[{Path(__file__).with_name('mischief.py')}]",
    "mischief.on=true",
    "workers=2",
    "frames=1",
)


def test_an_uninterrupted_run_leaves_complete_scenes_and_nothing_else(reference: Reference) -> None:
    out = reference.out
    assert runs.complete_scenes(out) == ["000000", "000001", "000002", "000003"]
    assert sorted(path.name for path in out.iterdir()) == ["cache", "events", "experiment.json", "geometry_00"]
    assert not list(out.glob("*/tmp/*")) and not list(out.glob("*/failures"))
    assert "4 selected, 0 complete, 4 to render" in reference.text
    assert "8 of 28×28 px, quality draft" in reference.text


def test_events_say_what_happened_when_and_how_long_it_took(reference: Reference) -> None:
    (file,) = (reference.out / "events").glob("*.jsonl")
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert events[0]["event"] == "start" and events[0]["frames"] == 8
    assert events[-1] == {"time": events[-1]["time"], "event": "end", "error": None}
    done = [event for event in events if event["event"] == "scene_done"]
    assert {event["scene"] for event in done} == {f"geometry_00/{i:06d}" for i in range(4)}
    for event in done:
        seconds = event["seconds"]
        assert 0 < seconds["cycles_s"] < seconds["wall_s"] and 0 < seconds["build_s"] < seconds["wall_s"]


def test_a_second_run_renders_nothing(reference: Reference) -> None:
    before = {path: path.stat().st_mtime_ns for path in (reference.out / "geometry_00" / "scenes").rglob("*")}
    done = runs.pipeline(*runs.TINY, f"out={reference.out}")
    assert done.returncode == 0, done.stderr
    assert "4 selected, 4 complete, 0 to render" in done.stdout and "nothing to render" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (reference.out / "geometry_00" / "scenes").rglob("*")}
    assert runs.tree_hash(reference.out) == reference.hash


def test_shards_at_the_same_time_make_the_same_dataset(reference: Reference, tmp_path: Path) -> None:
    shards = [
        subprocess.Popen(
            runs.command(*runs.TINY, f"out={tmp_path / 'out'}", f"shard={i}/2", "workers=1", "scenes_per_worker=1"),
            env=runs.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in (1, 2)
    ]
    for shard in shards:
        text, _ = shard.communicate(timeout=runs.LIMIT_S)
        assert shard.returncode == 0, text
        assert "2 selected, 0 complete, 2 to render" in text
    assert runs.tree_hash(tmp_path / "out") == reference.hash


def test_workers_killed_at_random_moments_change_nothing(reference: Reference, tmp_path: Path) -> None:
    out, killed = tmp_path / "out", []
    with runs.started(*runs.TINY, f"out={out}", "attempts=10", "workers=2") as run:

        def kill_now_and_then() -> None:
            victims = runs.workers_in_a_scene(run.pid, out)
            while run.poll() is None and len(killed) < 4:
                for victim in victims:
                    with suppress(ProcessLookupError):  # it has just ended by itself
                        os.kill(victim, signal.SIGKILL)
                killed.extend(victims)
                time.sleep(moments.uniform(0.3, 2.5))
                victims = {moments.choice(sorted(workers))} if (workers := runs.children(run.pid)) else set()

        moments = random.Random(7)
        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        text, _ = run.communicate(timeout=runs.LIMIT_S)
        killer.join()
    assert killed and "attempt 1 of 10 failed: the worker was killed by SIGKILL" in text, text
    assert run.returncode == 0, text
    assert runs.tree_hash(out) == reference.hash


def test_kill_9_of_the_whole_run_leaves_no_process_and_the_next_run_completes(
    reference: Reference, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with runs.started(*runs.TINY, f"out={out}", "workers=2") as run:
        workers = runs.workers_in_a_scene(run.pid, out)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    assert len(workers) == 2
    runs.wait_until(lambda: not any(map(runs.alive, workers)), limit_s=10)
    assert list(out.glob("*/tmp/0*")), "the run was not killed in the middle of a scene"
    assert len(runs.complete_scenes(out)) < 4
    resumed = runs.pipeline(*runs.TINY, f"out={out}")
    assert resumed.returncode == 0, resumed.stderr
    assert runs.tree_hash(out) == reference.hash


def test_a_signal_stops_the_run_with_75_and_it_resumes(reference: Reference, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with runs.started(*runs.TINY, f"out={out}", "workers=1") as run:
        workers = runs.workers_in_a_scene(run.pid, out)
        sent = time.monotonic()
        run.send_signal(signal.SIGTERM)
        text, _ = run.communicate(timeout=runs.LIMIT_S)
    assert run.returncode == 75, text
    assert time.monotonic() - sent < 5, "it waited for something"
    assert "stopped by SIGTERM; run the same command again to resume" in text
    assert workers and not any(map(runs.alive, workers))
    assert not list(out.glob("*/tmp/*")), "the unfinished scene was not dropped"
    resumed = runs.pipeline(*runs.TINY, f"out={out}")
    assert resumed.returncode == 0, resumed.stderr
    assert runs.tree_hash(out) == reference.hash


def test_scenes_that_cannot_be_rendered_leave_records_and_the_others_complete(bpy_module: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = runs.pipeline(*MISCHIEF, f"out={out}", "timeout_s=6", MISCHIEF="1=hang 2=crash 3=raise")
    assert done.returncode == 3, done.stdout + done.stderr
    assert runs.complete_scenes(out) == ["000000"]
    assert "3 of 4 scenes could not be rendered" in done.stderr
    assert not list(out.glob("*/tmp/*"))
    expected = {
        "000001": ("hang", "SceneTimeout", "the scene took longer than timeout_s=6"),
        "000002": ("crash", "WorkerDied", "the worker was killed by SIGSEGV during the scene"),
        "000003": ("raise", "RuntimeError", "mischief was asked for"),
    }
    failures = out / "geometry_00" / "failures"
    assert sorted(path.stem for path in failures.iterdir()) == list(expected)
    for name, (kind, error, message) in expected.items():
        record = json.loads((failures / f"{name}.json").read_text())
        assert (record["scene"], record["attempts"], record["stage"]) == (name, 2, "render")
        assert record["error"] == error and message in record["message"]
        assert f"about to {kind}" in "\n".join(record["log"])
        assert len(record["scene_hash"]) == 64
    again = runs.pipeline(*MISCHIEF, f"out={out}")
    assert again.returncode == 0, again.stderr
    assert "4 selected, 1 complete, 3 to render" in again.stdout
    assert not failures.exists()


def test_a_device_that_is_not_there_stops_the_run(bpy_module: None, tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    done = runs.pipeline(*runs.TINY, f"out={tmp_path / 'out'}", "device=optix", "workers=1")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "device=optix" in done.stderr and "failed" not in done.stderr


def test_the_disk_fills_up_between_two_scenes(bpy_module: None, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=130m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        out = disk / "out"
        with runs.started(*runs.TINY, f"out={out}", "workers=1") as run:
            runs.wait_until(lambda: bool(runs.complete_scenes(out)))
            (disk / "filler").write_bytes(bytes(60_000_000))
            text, _ = run.communicate(timeout=runs.LIMIT_S)
        assert run.returncode == 4, text
        assert f"the disk of {out} is too small" in text and "free some space" in text
        (disk / "filler").unlink()
        assert runs.pipeline(*runs.TINY, f"out={out}", "scenes=0-1").returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
