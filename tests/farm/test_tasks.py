"""What a run has to do: selection, shards, and what it will cost, learned from this machine."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path

import pytest
import runs

from megasynth_attr.dataset import paths
from megasynth_attr.farm.estimate import worker_seconds_per_frame
from megasynth_attr.farm.events import EventLog, host_name, latest_events
from megasynth_attr.farm.tasks import describe, make_plan, select
from megasynth_attr.scene.config import resolve


def test_a_plan_selects_and_counts(tmp_path: Path) -> None:
    words = ["preset=demo", "dataset_count=1", "downstream=", "frames=10", "scene_count=20", f"out={tmp_path}"]
    everything = make_plan(resolve(words))
    assert len(everything.selected) == len(everything.todo) == 4 * 20
    assert everything.frames_todo == 800
    facts = {line.name: line for line in describe(everything)}
    assert facts["datasets"].text == "4 (camera_00, geometry_00, lighting_00, texture_00)"
    assert facts["scenes"].text == "80 selected, 0 complete, 80 to render"
    assert facts["frames"].text.startswith("800 of ") and facts["rendering"].seconds == everything.seconds_needed
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
        for damaged in ("7", "[" * 10**5, "9" * 5000, "{}", '{"time": NaN}', '{"event": "scene_done"}'):
            file.write(damaged + "\n")
        for frames, seconds in ((0, {"wall_s": 1}), ("2", {}), (2, 5), (2, {"wall_s": "x"})):
            record = {"event": "scene_done", "cost_class": kind, "frames": frames, "seconds": seconds}
            file.write(json.dumps(record) + "\n")
        file.write('{"event": "scene_done", "cost_class": {"cut": 1}')  # a line cut by a crash
    (tmp_path / "events" / f"{host_name()}-0.jsonl").symlink_to("/dev/zero")
    learned = worker_seconds_per_frame(config, tmp_path, 1)
    assert learned.measured and learned.value == 2.0
    assert not worker_seconds_per_frame(config, tmp_path, 2).measured
    assert len(list(latest_events(tmp_path))) == 3 + 6
    assert json.loads(events.path.read_text().splitlines()[0])["time"] > 1.7e9


def test_a_small_share_of_a_million_scenes_looks_at_its_own_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at, listed = [], []
    monkeypatch.setattr(paths, "is_finished", lambda dataset, index: bool(looked_at.append(index)))
    monkeypatch.setattr(paths, "_finished_in", lambda dataset, thousand: listed.append(thousand) or {999_999})
    words = ["preset=geometry", "downstream=", "dataset_count=1", "scene_count=1000000", f"out={tmp_path}"]
    tracemalloc.start()
    plan = make_plan(resolve([*words, "shard=17/1000"]))
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert looked_at == list(range(16, 1_000_000, 1000)) == [task.scene_index for task in plan.todo] and not listed
    assert plan.frames_todo == 1000 * plan.todo[0].frames and plan.todo[-1].scene_index == 999_016
    assert [task.scene_index for task in plan.todo[998:]] == [998_016, 999_016] and plan.todo.index(plan.todo[7]) == 7
    whole = select(resolve(words))
    assert len(whole) == 1_000_000 and whole[123_456].scene_index == 123_456
    assert not whole.parts[0].is_finished() and listed == ["999"], "what comes last is looked for first"


def test_hundreds_of_datasets_are_in_order(tmp_path: Path) -> None:
    experiment = resolve(["preset=texture", "downstream=", "dataset_count=102", "scene_count=2", f"out={tmp_path}"])
    names = list(dict.fromkeys(task.dataset.name for task in select(experiment)))
    assert (names[0], names[99], names[101], len(names)) == ("texture_00", "texture_99", "texture_101", 102)
    assert [folder.name for folder in paths.in_order(tmp_path / name for name in sorted(names))] == names
