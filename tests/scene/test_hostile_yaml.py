"""YAML files that want to be endless, huge, themselves, or something else than settings: a typed error, quickly."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from megasynth_attr.core.command.layers import read_yaml
from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.errors import ConfigError, expected
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.scene.config import load_preset, resolve, schema

INPUTS = 2000
SLOWEST_S = 15  # a file of the largest size that is read


def bomb(first: str, each: str, depth: int = 12) -> str:
    """Return tables or lists that hold the one before ten times over."""
    lines = [f"a0: &a0 {first}"]
    for i in range(1, depth):
        lines.append(f"a{i}: &a{i} " + each.replace("ALL", ", ".join([f"*a{i - 1}"] * 10)))
    return "\n".join(lines)


REFUSED = {
    "empty extends": "extends: ''",
    "numeric extends": "extends: 3",
    "extends a table": "extends: {a: 1}",
    "extends a list of lists": "extends: [[texture]]",
    "extends itself": "extends: x.yaml",
    "extends itself in a list": "extends: [texture, x.yaml]",
    "extends itself by a detour": "extends: ./../here/x.yaml",
    "extends a folder": "extends: ../here",
    "extends a device": "extends: /dev/zero",
    "extends a long name": f"extends: {'x' * 300}.yaml",
    "extends a NUL": 'extends: "a\\0b.yaml"',
    "a date": "attribute: !!timestamp 2024-99-99",
    "a date for a number": "frames: 2024-01-01",
    "a time for a number": "frames: 1:30:00.5",
    "a tag": "x: !!python/object/apply:os.system [ls]",
    "binary": "attribute: !!binary aGVsbG8=",
    "a set": "attribute: !!set {a, b}",
    "an empty number": "frames: !!int ''",
    "no number": "frames: !!float x",
    "no switch": "plan: !!bool maybe",
    "itself": "a: &a [*a]",
    "itself as a table": "a: &a {b: *a}",
    "merged with itself": "attribute: &a {<<: *a}\nx: 1",
    "a list merged": "<<: [1, 2]",
    "a number merged": "<<: 3",
    "lists of lists": bomb("[x, x, x, x, x, x, x, x, x, x]", "[ALL]"),
    "tables of tables": bomb("{x: 1}", "{b: [ALL]}"),
    "merges of merges": bomb("{x: 1}", "{<<: [ALL]}"),
    "many aliases": "a: &a 1\nb: [" + "*a, " * 5000 + "]",
    "deep lists": "a: " + "[" * 3000,
    "deep and closed": "a: " + "[" * 80 + "]" * 80,
    "deep tables": "a: " + "{b: " * 3000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(300)),
    "a huge number": "seed: 0x" + "f" * 5000,
    "many digits": "seed: " + "9" * 5000,
    "not a number": "camera: {clearance: .nan}",
    "infinite": "camera: {clearance: .inf}",
    "an infinite range": "camera: {distance: [1, .inf]}",
    "a range of texts": "camera: {distance: [a, b]}",
    "a range without end": "camera: {distance: {log: []}}",
    "a range in a range": "camera: {distance: {log: {log: [1, 2]}}}",
    "a list": "- a\n- b",
    "a text": "just words",
    "two documents": "a: 1\n---\nb: 2",
    "a table as a key": "{a: 1}: 2",
    "a list as a key": "[a, b]: 2",
    "nothing as a key": "null: 2",
    "a number as a key": "3: 2",
    "a section that is none": "camera: 3",
    "a key that is none": "camera.frames: 3",
    "control characters": 'attribute: "a\\nb"',
    "a path as attribute": "extends: texture\nattribute: ../../x",
    "a long attribute": f"extends: texture\nattribute: {'x' * 300}",
    "members that are itself": "members: [x.yaml, x.yaml]",
    "a plugin that is a device": "plugins: [/dev/zero]",
    "a plugin that is nothing": "plugins: [nowhere.py]",
    "plugins that are tables": "plugins: [{a: 1}]",
    "tabs": "a:\tb\n\tc: d",
    "half a file": "camera: {distance: [1,",
    "an unknown alias": "a: *b",
    "a bad escape": 'a: "\\q"',
    "a directive": "%YAML 9.9\n---\na: 1",
    "a huge file": "# " + "x" * 2**19,
    "many keys": "".join(f"k{i}: {i}\n" for i in range(5000)),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def outcome(words: list[str]) -> BaseException | None:
    """Return what ``words`` end in as a typed error, None for settings; an assertion for anything else."""
    began = time.process_time()
    try:
        resolve(words)
    except Exception as error:
        typed = expected(error)
        assert typed is not None, repr(error)
        return typed
    finally:
        assert time.process_time() - began < SLOWEST_S
    return None


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_files_are_refused(here: Path, name: str) -> None:
    (here / "x.yaml").write_text(REFUSED[name])
    assert outcome(["preset=x.yaml"]) is not None
    outcome(["preset=texture", "config=x.yaml"])


@pytest.mark.parametrize("words", [["preset=x.yaml"], ["preset=texture", "config=x.yaml"]], ids=lambda w: w[-1])
def test_what_is_no_file_is_not_read(here: Path, words: list[str]) -> None:
    os.mkfifo(here / "x.yaml")
    assert outcome(words) is not None
    (here / "x.yaml").unlink()
    (here / "x.yaml").symlink_to("/dev/zero")
    assert outcome(words) is not None
    (here / "x.yaml").unlink()
    (here / "x.yaml").symlink_to("x.yaml")
    assert outcome(words) is not None


def test_a_file_that_extends_itself_through_another_folder(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "a.yaml").write_text("extends: ../sub/a.yaml")
    with pytest.raises(ConfigError, match="extends itself"):
        load_preset("sub/a.yaml")


def test_extending_has_an_end(here: Path) -> None:
    for i in range(25):  # 2^25 ways through
        (here / f"p{i}.yaml").write_text(f"extends: [p{i + 1}.yaml, p{i + 1}.yaml]\nframes: {i + 1}")
    (here / "p25.yaml").write_text("extends: texture")
    assert resolve(["preset=p21.yaml"]).members[0].content.frames == 22
    with pytest.raises(ConfigError, match="it extends more than 100 presets"):
        load_preset("p0.yaml")


def test_aliases_and_merges_that_make_sense_are_read(here: Path) -> None:
    (here / "x.yaml").write_text("camera: &a {scope: scene, variants: 2}\ngeometry:\n  <<: *a\n  variants: 3\n")
    assert read_yaml(here / "x.yaml")["geometry"] == {"scope": "scene", "variants": 3}


def test_damaged_presets_are_settings_or_refused(here: Path) -> None:
    kind, file = schema(), here / "x.yaml"
    texts = [path.read_text() for path in sorted(resource_dir("presets").glob("*.yaml"))]
    draw = random.Random(5)
    for number in range(INPUTS):
        file.write_text(damaged(draw.choice(texts), draw), encoding="utf-8", errors="replace")
        if number % 10 == 0:  # the whole way of a preset takes long
            outcome(["preset=x.yaml"])
        try:
            settings: dict[str, Any] = read_yaml(file)
            fill(kind, {key: value for key, value in settings.items() if key != "extends"})
        except Exception as error:
            assert expected(error) is not None, (repr(error), file.read_text())
    assert list(here.iterdir()) == [file] and list(here.parent.iterdir()) == [here]


PIECES = (
    "[", "]", "{", "}", ":", ": ", "\n", "  ", "&a ", "*a", "!!int ", "|\n", ">", "'", '"', "<<: ", "-", "- ", "0",
    "9" * 400, ".nan", "2024-01-01", "null", "true", "\t", "#", "%", "@", "?", "? ", "\x00", "é",
)  # fmt: skip


def damaged(text: str, draw: random.Random) -> str:
    """Return a few lines of a file with some characters left out and others put in."""
    lines = text.splitlines(keepends=True)
    first = draw.randrange(len(lines))
    text = "".join(lines[first : first + 8])
    for _ in range(draw.choice((1, 2, 5))):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(PIECES) + text[at + draw.choice((0, 0, 1, 5)) :]
    return text
