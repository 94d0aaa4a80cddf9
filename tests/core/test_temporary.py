"""Files and folders that appear at once, whoever is killed and whoever else writes them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.temporary import publish, replace_atomically, replacing_folder


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
