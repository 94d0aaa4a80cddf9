"""Names from files that become paths: what leads elsewhere, or is no name everywhere, is refused."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path, PurePosixPath

import pytest

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.names import checked, inside, is_attribute, problem_of, within
from megasynth_attr.core.run_folder import Kind, read_record
from megasynth_attr.report.page import read_chapters
from megasynth_attr.scene.config import resolve

BAD = (
    "../../x", "/etc/passwd", "a/b", ".", "..", "", "x\0y", "x" * 300, "é" * 128, "CON", "con.png", "LPT1", "aux.tar",
    "a\nb", "\r", "\x1b[2J", "a\\b", "\\\\host\\x", "\ud800", 3, None, True, ["a"], {"a": 1},
)  # fmt: skip
GOOD = ("0000.png", "texture_00", "my photo (1).jpg", "résumé.png", "console.txt", "...", "a" * 255, "-", "%2e%2e", "~")


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_bad_names(name: object) -> None:
    assert problem_of(name)
    with pytest.raises(DatasetError, match=r"^file: .* cannot be used as a name: ") as caught:
        checked(name, "file")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name: str, tmp_path: Path) -> None:
    assert problem_of(name) == "" and inside(tmp_path, f"a/{name}", "file") == tmp_path / "a" / name
    (tmp_path / name).touch()


def test_whatever_the_name_the_path_stays_inside(tmp_path: Path) -> None:
    draw = random.Random(6)
    pieces = ("..", ".", "/", "//", "a", "b", "\0", "\\", "con", "~", "é", "\n", " ", "x" * 100, "\udc80", "$HOME", "*")
    inner = tmp_path / "inner"
    for _ in range(2000):
        name = "".join(draw.choice(pieces) for _ in range(draw.randrange(8)))
        try:
            path = inside(inner, name, "file")
        except DatasetError:
            continue
        normal = os.path.normpath(path)
        assert normal == str(path) and normal.startswith(f"{inner}/")
        assert inside(PurePosixPath(), name, "file").parts == path.relative_to(inner).parts


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "loop").symlink_to("loop")
    (tmp_path / "also").symlink_to("in")
    assert within(tmp_path / "also", tmp_path / "in" / "x") == tmp_path / "in" / "x"
    with pytest.raises(DatasetError, match="is a link that leads out of"):
        within(tmp_path / "in", tmp_path / "in" / "link")
    (tmp_path / "in" / "up").symlink_to("..")
    for name in ("up/out", "../out", "up/in/link"):
        with pytest.raises(DatasetError, match="is a link that leads out of"):
            within(tmp_path / "in", tmp_path / "in" / name)
    assert within(tmp_path / "in", tmp_path / "in" / "up" / "in" / "x").name == "x"
    within(tmp_path / "in", tmp_path / "in" / "loop")  # which nobody can open


@pytest.mark.parametrize("name", ["../x", "a b", "a-b", "x.y", "", "x" * 101, "a\nb", "a/b", "con"])
def test_attributes(name: str) -> None:
    assert not is_attribute(name) and is_attribute("my_texture2")
    if name:
        with pytest.raises(ConfigError, match="use letters, digits and _"):
            resolve(["preset=texture", f"attribute={name}"])


@pytest.mark.parametrize("name", [name for name in BAD if isinstance(name, str) and name != "a/b"], ids=repr)
def test_records_of_run_folders(tmp_path: Path, name: str) -> None:
    kind = Kind("thing", "thing.json", "thing 1", keys=("result",), tables=("files",), paths=("result", "files"))
    for record in ({"result": "x", "files": {name: 1}}, {"result": name, "files": {}}):
        (tmp_path / "thing.json").write_text(json.dumps({"format": "thing 1", **record}))
        with pytest.raises(DatasetError, match="cannot be used as a name"):
            read_record(tmp_path, kind)


@pytest.mark.parametrize("name", ["../../x.png", "/etc/passwd", "javascript:alert(1)/..", "a\nb.png"])
@pytest.mark.parametrize("key", ["pictures", "links"])
def test_chapters(tmp_path: Path, name: str, key: str) -> None:
    folder = tmp_path / "mine" / "report"
    folder.mkdir(parents=True)
    entry = {"file": name, "caption": "", "alt": ""} if key == "pictures" else {"file": name, "text": ""}
    chapter = {"title": "", "lead": "", "facts": [], "pictures": [], "tables": [], "links": [], "caveat": ""}
    record = {"format": "megasynth-attr chapter 1", "chapter": chapter | {key: [entry]}}
    (folder / "chapter.json").write_text(json.dumps(record))
    with pytest.raises(DatasetError, match="cannot be used as a name"):
        read_chapters(tmp_path)
