"""Files and folders that appear at once, whoever is killed and whoever else writes them."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.temporary import (
    new_temporary_folder,
    publish,
    remove_leftovers,
    remove_temporary_folder,
    replace_atomically,
    replacing_folder,
)

HOLDER = """
import sys, time
from pathlib import Path
from megasynth_attr.core.temporary import new_temporary_folder
for _ in range(3):
    folder = new_temporary_folder(Path(sys.argv[1]), "000001")
    (folder / "rgb").mkdir()
    print(folder, flush=True)
time.sleep(60)
"""
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@contextmanager
def holding(parent: Path, *container: str) -> Iterator[tuple[subprocess.Popen[str], list[Path]]]:
    """Yield a process, perhaps in a container, and the three temporary folders in ``parent`` that it works in."""
    code = [*container, sys.executable, "-c", HOLDER, str(parent)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, [Path(process.stdout.readline().strip()) for _ in range(3)]
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_atomically(tmp_path / "a.png", b"x" * 1000)
    assert not list(tmp_path.iterdir())


def test_a_reader_never_sees_a_partial_file(tmp_path: Path) -> None:
    target, contents = tmp_path / "a.bin", [bytes([k]) * 200_000 for k in range(2)]
    replace_atomically(target, contents[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                replace_atomically(target, content)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert all(target.read_bytes() in contents for _ in range(200))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "report"
    for word in ("old", "new"):
        with replacing_folder(final, "the report") as folder:
            assert not list(folder.iterdir())
            (folder / f"{word}.html").write_text(word)
        assert [path.name for path in final.iterdir()] == [f"{word}.html"]
    with pytest.raises(ZeroDivisionError), replacing_folder(final, "the report") as folder:
        (folder / "half.html").write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in final.iterdir()] == ["new.html"]
    assert [path.name for path in final.parent.iterdir()] == ["report"], "tmp is removed"


@pytest.mark.parametrize("moment", ["before the old one is moved aside", "before the new one is put in place"])
def test_two_replace_one_folder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    final, rename = tmp_path / "report", Path.rename
    final.mkdir()
    (final / "old").touch()

    def slow(path: Path, target: Path) -> Path:
        if path == final and moment.startswith("before the old"):
            monkeypatch.undo()
            final.rename(tmp_path / "aside")  # by the other
        if target == final and moment.startswith("before the new"):
            monkeypatch.undo()
            final.mkdir()
            (final / "other").touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", slow)
    with replacing_folder(final, "the report") as folder:
        (folder / "new").touch()
    assert [path.name for path in final.iterdir()] == ["new"]
    assert {path.name for path in tmp_path.iterdir()} <= {"report", "aside"}


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "report"
    final.mkdir()
    (final / "numbers").write_text("old")
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.parent.name.startswith("new."):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    refused = pytest.raises(EnvironmentProblem, match=r"the report cannot be written to .*disk is full")
    with refused, replacing_folder(final, "the report") as folder:
        (folder / "numbers").write_text("new")
    assert (final / "numbers").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("name", ["final", "deeper/final"])
def test_the_first_to_publish_a_folder_wins(tmp_path: Path, name: str) -> None:
    for content in ("first", "second"):
        (tmp_path / content).mkdir()
        (tmp_path / content / "x").write_text(content)
    assert publish(tmp_path / "first", tmp_path / name)
    assert not publish(tmp_path / "second", tmp_path / name)
    assert (tmp_path / name / "x").read_text() == "first"
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "nothing", tmp_path / "elsewhere")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotADirectoryError):
        publish(tmp_path / "second", tmp_path / "file")


@pytest.mark.parametrize("years", [0, -10, 10])
def test_folders_of_the_living_stay_and_those_of_the_dead_go_whatever_the_clocks_say(
    tmp_path: Path, years: int
) -> None:
    """Also those of two processes of one machine, of which one is killed."""
    with holding(tmp_path) as (killed, gone), holding(tmp_path) as (_, kept):
        mine = new_temporary_folder(tmp_path, "000001")
        then = time.time() + years * 365 * 86400
        for path in tmp_path.iterdir():
            os.utime(path, (then, then))
        assert remove_leftovers(tmp_path) == []
        kill(killed)
        assert remove_leftovers(tmp_path) == sorted(path.name for path in gone)
        assert all(folder.is_dir() for folder in (mine, *kept))
        remove_temporary_folder(mine)
        assert len(list(tmp_path.iterdir())) == 2 * len(kept), "each with its lock, and nothing else"


def test_containers_that_share_host_name_and_process_numbers_respect_each_other(tmp_path: Path) -> None:
    if subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare --pid needs root")
    with holding(tmp_path, *CONTAINER) as (killed, first), holding(tmp_path, *CONTAINER) as (_, second):
        assert {path.name.split(".")[-2] for path in (*first, *second)} == {"1"}
        assert len({*first, *second}) == 6
        assert remove_leftovers(tmp_path) == []
        kill(killed)
        deadline = time.monotonic() + 10
        while any(folder.exists() for folder in first):  # its process ends just after unshare
            remove_leftovers(tmp_path)
            assert time.monotonic() < deadline
        assert all(folder.is_dir() for folder in second)


def test_folders_without_a_lock_stay(tmp_path: Path) -> None:
    """They are of version 0.1.0, of a file system without locks, or not ours."""
    for name in (f"000001.{os.uname().nodename}.99999999.0", "000002.another.host.example.123.0", "notes"):
        (tmp_path / name / "rgb").mkdir(parents=True)
    (tmp_path / "notes.lock").touch()
    (tmp_path / "a.lock").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert remove_leftovers(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before
    assert remove_leftovers(tmp_path / "absent") == []


def test_leftovers_of_other_machines_go_after_a_day_if_their_lock_is_free(tmp_path: Path) -> None:
    """Their file system may keep locks to one machine."""
    with holding(tmp_path) as (_, folders):
        (living, dead, young) = (path.with_name(f"000001.elsewhere.7.{n}") for n, path in enumerate(folders))
        folders[0].rename(living)
        folders[0].with_name(f"{folders[0].name}.lock").rename(f"{living}.lock")
        for folder in (dead, young):
            folder.mkdir()
            Path(f"{folder}.lock").touch()
        for folder in (living, dead):
            os.utime(f"{folder}.lock", (time.time() - 90_000,) * 2)
        assert remove_leftovers(tmp_path) == [dead.name]
        assert living.is_dir() and young.is_dir()


def test_a_file_system_without_locks_is_named_once_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for number in range(3):
            replace_atomically(tmp_path / f"{number}", b"x")
        folder = new_temporary_folder(tmp_path / "tmp", "000001")
        assert remove_leftovers(tmp_path / "tmp") == []
    assert len(caught) == 1 and "without locks (No locks available)" in str(caught[0].message)
    assert list((tmp_path / "tmp").iterdir()) == [folder]
    remove_temporary_folder(folder)
    assert not list((tmp_path / "tmp").iterdir())


def test_a_lock_on_a_file_that_another_has_just_removed_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def late(descriptor: int, command: int) -> None:
        monkeypatch.undo()
        next(tmp_path.glob("*.lock")).unlink()  # by remove_leftovers of another run, which took the lock before
        flock(descriptor, command)

    monkeypatch.setattr(fcntl, "flock", late)
    folder = new_temporary_folder(tmp_path, "000001")
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, f"{folder.name}.lock"}
    assert remove_leftovers(tmp_path) == []


def test_whoever_removes_leftovers_at_any_moment_takes_nothing_from_the_living(tmp_path: Path) -> None:
    """In the moments between creating, locking and removing, too: many processes and threads do all of it at once."""
    code = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from megasynth_attr.core.temporary import remove_leftovers, working_folder\n"
        "def work():\n"
        "    for n in range(150):\n"
        "        with working_folder(Path(sys.argv[1]), 'x') as folder:\n"
        "            (folder / 'a').write_text('a')\n"
        "            remove_leftovers(folder.parent)\n"
        "            assert (folder / 'a').read_text() == 'a'\n"
        "            done.append(n)\n"
        "done = []\n"
        "threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
        "assert len(done) == 300\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "tmp")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert not (tmp_path / "tmp").exists()


@pytest.mark.parametrize("successor", [False, True])
def test_what_was_moved_aside_goes_back_unless_it_was_replaced(tmp_path: Path, successor: bool) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "numbers").write_text("old")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "numbers").write_text("new")
    killed = (
        "import os, pathlib, signal, sys\n"
        "from megasynth_attr.core.temporary import replace_folder\n"
        "rename, seen = pathlib.Path.rename, []\n"
        "def slow(path, target):\n"
        "    if path.name == 'new':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rename(path, target)\n"
        "pathlib.Path.rename = slow\n"
        "replace_folder(pathlib.Path('new'), pathlib.Path('result'))\n"
    )
    assert subprocess.run([sys.executable, "-c", killed], cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "result").exists()
    if successor:
        (tmp_path / "new").rename(tmp_path / "result")
    assert len(remove_leftovers(tmp_path / "tmp")) == 1
    assert (tmp_path / "result" / "numbers").read_text() == ("new" if successor else "old")
    assert not list((tmp_path / "tmp").iterdir())
