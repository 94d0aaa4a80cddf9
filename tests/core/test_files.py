"""JSON files that are damaged or malicious, and names that no file system takes."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import json_bytes, read_json, storage_errors


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "is damaged: not valid JSON"),
        (b'{"a": 1', "is damaged: not valid JSON"),
        (b"\xff", "cannot be read"),
        (b"[1]", "expected format 'x', found None"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"a\.json.*{words}"):
        read_json(tmp_path / "a.json", "x")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "a.json").write_bytes(mark + '{"format": "x", "name": "\u00fc"}'.encode())
    assert read_json(tmp_path / "a.json", "x") == {"format": "x", "name": "\u00fc"}
    (tmp_path / "a.json").write_bytes(mark + mark + b"{}")
    with pytest.raises(DatasetError, match="not valid JSON") if mark else nullcontext():
        read_json(tmp_path / "a.json")


def test_a_list_is_no_record_of_any_format(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DatasetError, match=r"a\.json is damaged: it holds no table of names and values"):
        read_json(tmp_path / "a.json")


def test_a_path_that_is_not_utf8_survives_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / "a.json").write_bytes(json_bytes({"path": name}))
    assert read_json(tmp_path / "a.json") == {"path": name}


def test_a_name_that_is_too_long_is_a_mistake_of_the_words(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    with (
        pytest.raises(ConfigError, match=r"a thing cannot be written: a name in .* is too long; choose a shorter one"),
        storage_errors("a thing", path),
    ):
        path.mkdir()
