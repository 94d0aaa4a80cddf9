"""Whose a folder is, for every program that has one: situations × kinds, two processes, a killed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_attr.core.fields import identity_of, recorded_identity, setting
from megasynth_attr.core.run_folder import (
    Kind,
    check,
    check_new,
    claim,
    differences,
    flat,
    is_free,
    is_one,
    read_record,
    require_same,
    share,
)
from megasynth_attr.dataset.record import DATASET
from megasynth_attr.farm.experiment import EXPERIMENT
from megasynth_train.compare.manifest import COMPARISON
from megasynth_train.evaluate.__main__ import EVALUATION
from megasynth_train.evaluate.prediction_files import PREDICTION
from megasynth_train.subspace.result_folder import SUBSPACES
from megasynth_train.training.cluster_manifest import CLUSTER
from megasynth_train.training.run_folder import RUN

KINDS = (DATASET, EXPERIMENT, RUN, CLUSTER, COMPARISON, SUBSPACES, EVALUATION, PREDICTION)
ALONE = tuple(kind for kind in KINDS if kind.alone)
DONE = Kind("finished thing", "done.json", "test done 1", tables=("identity",), advice="remove it")
THING = Kind("thing", "thing.json", "test thing 1", done=DONE, later=("content",), defaults={"new": 3})


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def record(kind: Kind, **values: Any) -> str:
    return json.dumps({"format": kind.format, **values})


def finished(folder: Path, identity: dict[str, Any]) -> Path:
    return write(folder, {"thing.json": record(THING), "done.json": record(DONE, identity=identity)})


# ---- free, ours, or somebody else's


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "files", [{}, {".lock": ""}, {".lock": "", "tmp/file.host.12.0/dataset.json": "{", "tmp/file.host.12.0.lock": ""}]
)
def test_a_free_folder_is_taken_by_every_program(kind: Kind, files: dict[str, str], tmp_path: Path) -> None:
    check(tmp_path / "absent", kind)
    check(write(tmp_path / "out", files), kind)
    assert is_free(tmp_path / "absent") and is_free(tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_every_program_knows_again_with_whatever_lies_beside_it(kind: Kind, tmp_path: Path) -> None:
    check(write(tmp_path, {kind.record: record(kind), "notes.txt": "mine"}), kind)
    assert is_one(tmp_path, kind) and not is_free(tmp_path)


@pytest.mark.parametrize("kind", ALONE, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": "years"},
        {".hidden": "years"},
        {"tmp": "a file of this name"},
        {"tmp/draft.txt": "years"},
        {"tmp/file.host.12.0/x": "", "tmp/draft.txt": "years"},
        {"<record>/inside": "a folder of this name"},
        {"<record>": '{"format": "another 1"}'},
        {"<record>": "[]"},
    ],
    ids=lambda files: ",".join(files),
)
def test_somebody_elses_folder_is_refused_and_left_as_it_is(kind: Kind, files: dict[str, str], tmp_path: Path) -> None:
    out = write(tmp_path / "out", {name.replace("<record>", kind.record): text for name, text in files.items()})
    before = tree(out)
    with pytest.raises(ConfigError, match=rf"out holds .*: it is no {kind.name}; choose another out="):
        check(out, kind)
    with pytest.raises(ConfigError), claim(out, kind, {}):
        pass
    assert tree(out) == before


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_file_is_no_folder(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    for begin in (lambda out: check(out, kind), lambda out: share(out, kind, {}, dict)):
        with pytest.raises(ConfigError, match="out is a file; name a folder with out="):
            begin(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("kind", [DATASET, EXPERIMENT, CLUSTER, COMPARISON], ids=lambda kind: kind.name)
@pytest.mark.parametrize("text", ["{", "[]", '{"format": "another 1"}', "<no keys>"])
def test_a_damaged_record_of_many_is_named_and_kept(kind: Kind, text: str, tmp_path: Path) -> None:
    write(tmp_path, {kind.record: record(kind) if text == "<no keys>" else text})
    before = tree(tmp_path)
    with pytest.raises(DatasetError, match=kind.record.replace(".", r"\.")):
        share(tmp_path, kind, {"format": kind.format}, dict)
    assert tree(tmp_path) == before


def test_a_table_that_is_none_is_damage(tmp_path: Path) -> None:
    write(tmp_path, {"done.json": record(DONE, identity=[1])})
    with pytest.raises(DatasetError, match=r"done\.json is damaged: identity is no table; remove it"):
        read_record(tmp_path, DONE)


def test_what_must_be_new(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for free in ("absent", "empty"):
        check_new(tmp_path / free)
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match="exists already; name another, or remove it"):
            check_new(taken)


# ---- one process at a time


@pytest.mark.parametrize(
    ("files", "before", "done"),
    [
        ({}, {"rank": 4}, False),  # unfinished work is the kind's own affair
        ({"done.json": {"rank": 4}}, {}, True),
        ({"done.json": {"rank": 4, "content": "abc"}}, {}, True),  # not known yet
        ({"done.json": {"rank": 4}}, {"new": 3}, True),  # what it meant before there was such a key
        ({"done.json": {"rank": 8}}, {}, r"another thing: rank is 8 there and 4 now\. Nothing was changed there"),
        ({"done.json": {"rank": 4}}, {"new": 5}, "new is 3 there and 5 now"),
        ({"done.json": {"rank": 4, "old": 1}}, {}, "old is 1 there and absent now"),
    ],
)
def test_what_a_claim_finds(files: dict[str, Any], before: dict[str, Any], done: bool | str, tmp_path: Path) -> None:
    write(tmp_path, {"thing.json": record(THING)})
    for name, identity in files.items():
        write(tmp_path, {name: record(DONE, identity=identity)})
    now = {"rank": 4, **before}
    if isinstance(done, bool):
        with claim(tmp_path, THING, now) as found:
            assert found is done
        return
    kept = tree(tmp_path)
    with pytest.raises(ConfigError, match=done), claim(tmp_path, THING, now):
        pass
    assert tree(tmp_path) == {**kept, ".lock": b""}


def test_work_that_must_be_continued_is_held_to_its_identity(tmp_path: Path) -> None:
    begun = replace(THING, begun_with=lambda folder: {"rank": 8} if (folder / "checkpoint").exists() else None)
    write(tmp_path, {"thing.json": record(THING)})
    with claim(tmp_path, begun, {"rank": 4}) as done:
        assert not done
    write(tmp_path, {"checkpoint": ""})
    with pytest.raises(ConfigError, match="rank is 8 there and 4 now"), claim(tmp_path, begun, {"rank": 4}):
        pass


def test_a_folder_known_by_other_signs(tmp_path: Path) -> None:
    write(tmp_path, {"settings.json": "{", "checkpoints/x": ""})
    check(tmp_path, replace(RUN, known_by=lambda folder: (folder / "checkpoints").is_dir()))
    with pytest.raises(ConfigError, match="it is no training run"):
        check(tmp_path, RUN)


HOLDER = """
import os, sys, time
from pathlib import Path
from megasynth_attr.core.run_folder import Kind, claim
with claim(Path(sys.argv[1]), Kind("thing", "thing.json", "test thing 1"), {}):
    if os.fork() == 0:  # a worker, which outlives a killed parent
        sys.stdout.close()
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, worker_lives_s: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(folder), str(worker_lives_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holder(out) as process:
        before = tree(out)
        refused = pytest.raises(
            ConfigError, match=r"another run is writing to .*out; wait for it, or choose another out="
        )
        with refused, claim(out, THING, {}):
            pass
        assert tree(out) == before
        process.communicate()
    with claim(out, THING, {}):
        pass


def test_a_killed_holder_holds_nothing_even_while_its_workers_live(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holder(out, worker_lives_s=5) as process:
        dead = out / "tmp" / f"new.{os.uname().nodename}.{process.pid}.0"
        write(dead, {"half": "written"})
        dead.with_name(f"{dead.name}.lock").touch()
        process.kill()
        assert process.wait() == -signal.SIGKILL
        with claim(out, THING, {}):
            assert not dead.exists()


def test_a_place_that_cannot_be_written_is_an_environment_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, error in (
        (Path("/proc/megasynth"), EnvironmentProblem),
        (tmp_path / "file" / "out", EnvironmentProblem),
        (tmp_path / ("x" * 300), ConfigError),  # the words are wrong, not the machine
    ):
        with pytest.raises(error, match="the thing cannot be written"), claim(out, THING, {}):
            pass
        with pytest.raises(error, match="the thing cannot be written"):
            share(out, THING, {"format": THING.format}, dict)


# ---- many processes together


def test_one_of_many_creates_the_record_and_the_others_compare(tmp_path: Path) -> None:
    barrier, out = threading.Barrier(8), tmp_path / "out"

    def begin(number: int) -> str:
        mine = {"format": THING.format, "identity": {"seed": number % 2}}

        def same(theirs: dict[str, Any]) -> dict[str, Any]:
            require_same(out, THING, theirs["identity"], mine["identity"])  # type: ignore[arg-type]
            return theirs

        barrier.wait()
        try:
            return f"made {share(out, THING, mine, same)['identity']['seed']}"
        except ConfigError as error:
            return "refused" if "seed is" in str(error) else str(error)

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(begin, range(8)))
    assert outcomes in (["made 0"] * 4 + ["refused"] * 4, ["made 1"] * 4 + ["refused"] * 4)
    assert sorted(tree(out)) == ["thing.json"]


EXTENDER = """
import sys
from pathlib import Path
from megasynth_attr.core.run_folder import Kind, share
kind = Kind("thing", "thing.json", "test thing 1")
mine = {"format": kind.format, "seeds": [int(sys.argv[2])]}
for _ in range(5):
    extended = lambda old: {**old, "seeds": sorted({*old["seeds"], *mine["seeds"]})}
    share(Path(sys.argv[1]), kind, mine, extended, lock=True)
"""


def test_many_that_extend_one_record_wait_for_each_other(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", EXTENDER, str(tmp_path / "out"), str(seed)] for seed in range(4)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert json.loads((tmp_path / "out" / "thing.json").read_text())["seeds"] == [0, 1, 2, 3]


def test_a_record_that_need_not_change_is_not_written(tmp_path: Path) -> None:
    write(tmp_path, {"thing.json": record(THING, seeds=[1])})
    before = (tmp_path / "thing.json").stat()
    assert share(tmp_path, THING, {}, lambda old: {**old, "seeds": (1,)})["seeds"] == [1]
    assert (tmp_path / "thing.json").stat().st_mtime_ns == before.st_mtime_ns
    share(tmp_path, THING, {}, lambda old: {**old, "seeds": (1, 2)})
    assert json.loads((tmp_path / "thing.json").read_text()) == {"format": THING.format, "seeds": [1, 2]}


# ---- what differs


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ({"a": 1, "b": [1, 2]}, {"a": 1, "b": (1, 2)}, ""),
        ({"a": None}, {}, ""),
        ({"a": 1}, {"a": 2.5}, "a is 1 there and 2.5 now"),
        ({"a": True}, {"a": "yes"}, 'a is true there and "yes" now'),
        ({"a": ""}, {}, 'a is "" there and absent now'),
        ({"a": {"b": {"c": 1}, "d": 2}}, {"a": {"b": {"c": 2}, "d": 2}}, "a.b.c is 1 there and 2 now"),
        ({"a": {"b": 1}}, {}, "a is present there and absent now"),
        ({"a": {}}, {"a": 3}, "a is present there and 3 now"),
        (dict.fromkeys("edcba", 0), dict.fromkeys("edcba", 1), "a is 0 there and 1 now; b is 0 there and 1 now; "
         "c is 0 there and 1 now (and 2 more)"),
    ],
)  # fmt: skip
def test_differences_in_words(before: dict[str, Any], now: dict[str, Any], text: str) -> None:
    assert differences(before, now) == text


LEAVES = st.sampled_from([0, 1, 0.5, "", "x", True, (1,), (2, 3)])
RECORDS = st.dictionaries(st.sampled_from("abc"), LEAVES | st.dictionaries(st.sampled_from("abc"), LEAVES))


@given(RECORDS, RECORDS)
def test_two_records_differ_exactly_where_a_key_does(before: dict[str, Any], now: dict[str, Any]) -> None:
    assert differences(before, before) == "" == differences(now, now)
    assert bool(differences(before, now)) == (before != now)
    assert not differences({key: value for key, value in now.items() if key != "a"}, now, defaults=now)


# ---- identity, declared where the field is


@dataclass(frozen=True)
class Part:
    rank: int = setting(4, "r")
    workers: int = setting(0, "w", identity=False)


@dataclass(frozen=True)
class Whole:
    part: Part = field(default_factory=Part)
    out: str = setting("", "o", identity=False)
    views: tuple[int, int] = (2, 4)
    table: dict[str, Any] = setting({"out": 1}, "t")


def test_a_field_declares_whether_it_decides_the_result() -> None:
    expected = {"part": {"rank": 4}, "views": [2, 4], "table": {"out": 1}}
    assert identity_of(Whole()) == identity_of(Whole(Part(workers=7), out="x")) == expected
    assert flat(identity_of(Whole(Part(5)))) == {"part.rank": 5, "views": [2, 4], "table.out": 1}
    stored = {**expected, "part": {"rank": 4, "workers": 2, "gone": 1}, "out": "y", "removed": 3}
    assert recorded_identity(Whole, stored) == {**expected, "part": {"rank": 4, "gone": 1}, "removed": 3}
