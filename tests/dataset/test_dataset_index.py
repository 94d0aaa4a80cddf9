"""dataset.json of a large dataset: finished from an index, read and written piece by piece, verified as a stream."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, read_json
from megasynth_attr.dataset import index, paths
from megasynth_attr.dataset.findings import SceneFacts
from megasynth_attr.dataset.reader import open_dataset
from megasynth_attr.dataset.record import finalise, lists_all, open_for_writing
from megasynth_attr.dataset.record_file import checksum_of, listed_names, listed_scenes, read_record_file, sealed
from megasynth_attr.dataset.verify import expectations, report_of, verify_dataset

SETTINGS = synthetic.config("scene_count=4", "frames=2")


def written(folder: Path) -> bytes:
    return (folder / "dataset.json").read_bytes()


def note_all(folder: Path) -> None:
    for scene in paths.finished_scenes(folder):
        index.note(folder, (paths.scene_dir(folder, scene) / "scene.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_dataset(SETTINGS, tmp_path_factory.mktemp("made"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "texture_00"))


def test_finishing_reads_only_scenes_that_are_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def reading(path: Path) -> object:
        read.append(path.parent.name)
        return read_json(path)

    monkeypatch.setattr(index, "read_json", reading)
    complete = written(folder)
    away = folder.parent / "away"
    paths.scene_dir(folder, 2).rename(away)
    finalise(folder, [])
    assert "000002" not in json.loads(written(folder))["scenes"] and lists_all(folder)
    away.rename(paths.scene_dir(folder, 2))
    assert not lists_all(folder)
    finalise(folder, synthetic.MATERIALS)
    assert written(folder) == complete and read == ["000002"] and lists_all(folder)


def test_what_runs_note_stands_for_the_scene_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete, lines = written(folder), (folder / "index" / "000.jsonl").read_bytes()
    shutil.rmtree(folder / "index")
    note_all(folder)
    note_all(folder)
    assert [path.parent.name for path in (folder / "index").rglob("*.jsonl")] == ["new"]
    monkeypatch.setattr(index, "MOST_BYTES", 1)  # each note is moved by itself
    monkeypatch.setattr(index, "read_json", lambda path: pytest.fail(f"{path} was read"))
    finalise(folder, synthetic.MATERIALS)
    assert written(folder) == complete
    assert [path.name for path in (folder / "index").rglob("*")] == ["000.jsonl"]
    assert (folder / "index" / "000.jsonl").read_bytes() == lines
    note_all(folder)
    index.drop_notes(folder)
    assert not (folder / "index" / "new").exists()


@pytest.mark.parametrize(
    "damage", ["removed", "cut", "garbage", "other", "hostile", "a folder", "another's", "endless"]
)
def test_a_damaged_index_changes_nothing(folder: Path, damage: str) -> None:
    complete, file = written(folder), folder / "index" / "000.jsonl"
    lines = file.read_bytes()
    others = b'["000000",{"texture":1},[]]\n["000001",[],{}]\n["000002"]\n["000003",{},[],[]]\n["00000x",{},[]]\n{}\n\n'
    contents = {"cut": lines[: len(lines) // 2], "garbage": b"\0\xff" * 999 + b"\n" + lines[:100], "other": others}
    contents["another's"] = lines.replace(b'["basalt"]', b'["gneiss"]')
    contents["endless"] = b"\0" * 2**20 + lines
    if damage == "removed":
        shutil.rmtree(folder / "index")
    elif damage == "a folder":
        file.unlink()
        (folder / "index" / "new" / "x.jsonl").mkdir(parents=True)
    else:
        file.write_bytes(contents.get(damage, b"[" * 99_999 + b"\n" + b'["000001",' + b"[" * 99_999 + b"\n"))
    (folder / "dataset.json").write_bytes(json_bytes(sealed(read_record_file(folder / "dataset.json"))))
    if damage == "a folder":
        shutil.rmtree(folder / "index" / "new")
    finalise(folder, synthetic.MATERIALS)
    assert written(folder) == complete and file.read_bytes() == lines


def test_an_index_that_leads_out_of_the_dataset_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "index")
    (tmp_path / "elsewhere").mkdir()
    (folder / "index").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"index is a link that leads out of .*texture_00"):
        finalise(folder, [])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_no_note_is_taken_from_or_removed_in_another_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.jsonl").write_text("precious\n")
    (folder / "index" / "new").symlink_to(tmp_path / "elsewhere")
    for action in (lambda: finalise(folder, []), lambda: note_all(folder)):
        with pytest.raises(DatasetError, match=r"new is a link that leads out of .*texture_00"):
            action()
    assert synthetic.tree(tmp_path / "elsewhere") == {"mine.jsonl": b"precious\n"}


@pytest.mark.parametrize("name", ["001000", "000000x", "../../x"])
def test_lines_of_scenes_that_are_not_there_are_dropped(folder: Path, name: str) -> None:
    complete = written(folder)
    line = index.Line(name, {}, []).text()
    for file in ("000.jsonl", "001.jsonl"):
        with (folder / "index" / file).open("ab") as lines:
            lines.write(line)
    finalise(folder, synthetic.MATERIALS)
    assert written(folder) == complete
    assert [path.name for path in (folder / "index").iterdir()] == ["000.jsonl"]


def test_more_scenes_keep_the_list(folder: Path) -> None:
    open_for_writing(synthetic.config("scene_count=9", "frames=2"), folder.parent, 0)
    record = json.loads(written(folder))
    assert record["scene_count"] == 9 and sorted(record["scenes"]) == [f"{index:06d}" for index in range(4)]
    assert written(folder) == json_bytes(sealed(record))


@pytest.mark.parametrize("indent", [1, 2, None])
@pytest.mark.parametrize("has_scenes", [True, False])
def test_a_record_is_read_however_it_is_written(folder: Path, indent: int | None, has_scenes: bool) -> None:
    file = folder / "dataset.json"
    record = json.loads(file.read_text())
    if not has_scenes:
        record["scenes"] = {}
    file.write_text(json.dumps(record, sort_keys=True, indent=indent))
    scenes = record.pop("scenes")
    assert read_record_file(file) == record
    assert dict(listed_scenes(file) or ()) == scenes and list(listed_names(file)) == list(scenes)
    assert checksum_of(record, listed_scenes(file)) == checksum_of(record | {"scenes": scenes})


def test_nothing_hides_behind_the_list_of_scenes(folder: Path) -> None:
    file = folder / "dataset.json"
    before, end, after = file.read_text().rpartition('\n },\n "version"')
    file.write_text(f'{before}\n }},\n "materials": [],\n "more": {{\n }},\n "version"{after}')
    assert json.loads(file.read_text())["materials"] == []  # so do others read it
    assert end
    with pytest.raises(DatasetError, match="something was put in behind the list"):
        verify_dataset(folder, progress=False)


def test_a_record_that_is_torn_is_refused(folder: Path) -> None:
    file, whole = folder / "dataset.json", written(folder)
    place = whole.index(b'\n  "000002"')
    extra = whole.replace(b"\n  }\n", b"\n  },\n", 1)
    twice = whole.replace(b'\n },\n "version"', b'\n },\n },\n "version"')
    for torn in (whole[:place], whole[: place + 40], whole[:-3], whole.replace(b"\n  },", b"\n  }", 1), extra, twice):
        file.write_bytes(torn)
        with pytest.raises(DatasetError, match="is damaged"):
            read_record_file(file)
            list(listed_scenes(file) or ())


def test_verification_holds_one_scene_at_a_time(folder: Path) -> None:
    dataset = open_dataset(folder)
    (texture,) = {line.hashes["texture"] for line in index.lines(folder) if line.name == "000000"}
    living: weakref.WeakSet[SceneFacts] = weakref.WeakSet()
    most = 0

    class Facts(SceneFacts):
        __hash__ = object.__hash__

    def facts() -> Iterator[SceneFacts]:
        nonlocal most
        for number in range(300):
            fact = Facts(f"{number:06d}", hashes={"geometry": "g", "texture": texture}, depth_digests=["a"] * 2)
            living.add(fact)
            most = max(most, len(living))
            yield fact

    assert report_of(dataset, expectations(dataset), facts(), True).scenes == 300 and most <= 2


def test_unequal_depth_is_found_again_in_the_files(folder: Path) -> None:
    assert verify_dataset(folder, progress=False).depth_groups == 1
    sums = paths.scene_dir(folder, 3) / "checksums.json"
    record = json.loads(sums.read_text())
    record["files"]["depth/0001.exr"]["sha256"] = "0" * 64
    sums.write_text(json.dumps(record))
    (finding,) = [f for f in verify_dataset(folder, progress=False).findings if f.check == "equal depth"]
    assert finding.where == "000003"
    assert finding.message.endswith("from scene 000000, but depth differs in 1 frames, first in frame 1")
