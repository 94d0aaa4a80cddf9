"""Disk banks that are missing, broken or damaged say what, where and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.textures.bank import open_bank
from megasynth_attr.textures.procedural.bank import write_bank
from megasynth_attr.textures.procedural.recipes import read_recipes, recipes_path
from megasynth_attr.textures.surface import MAPS

RECIPES = read_recipes(recipes_path())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bank(tmp_path / "bank", 16, [RECIPES["oak_floor"], RECIPES["brushed_steel"]])
    return tmp_path / "bank"


def _open(folder: Path):
    return open_bank(str(folder), cache_dir=folder.parent, size_px=64)


def _edit(folder: Path, change) -> None:
    path = folder / "index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def test_a_good_bank_opens(folder: Path) -> None:
    bank = _open(folder)
    assert [record.name for record in bank.records] == ["brushed_steel", "oak_floor"]
    files = bank.materialise(["oak_floor"])["oak_floor"]
    assert set(files) == set(MAPS) and all(path.is_file() for path in files.values())
    assert bank.identity == _open(folder).identity and len(bank.identity) == 64


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere.*make the bank first"):
        _open(tmp_path / "nowhere")


def test_a_missing_index(folder: Path) -> None:
    (folder / "index.json").unlink()
    with pytest.raises(DatasetError, match=r"index\.json is missing; make the bank first"):
        _open(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "other"}', "\x00"])
def test_an_unreadable_index(folder: Path, text: str) -> None:
    (folder / "index.json").write_text(text)
    with pytest.raises(DatasetError, match=r"index\.json"):
        _open(folder)


def _first(index: dict[str, Any]) -> dict[str, Any]:
    return index["materials"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.update(format_version=99), "version"),
        (lambda i: i.update(materials=[]), "no material"),
        (lambda i: i.update(materials=["x"]), "expected an object, found str; build the bank again"),
        (lambda i: _first(i).pop("category"), "brushed_steel: field 'category' is missing; build the bank again"),
        (lambda i: _first(i).update(category="metall"), "metal"),
        (lambda i: _first(i).update(name="../evil"), "safe file name"),
        (lambda i: _first(i).update(license=3), "license: expected str, found 3"),
        (lambda i: _first(i).update(mean_roughness=float("nan")), "finite"),
        (lambda i: _first(i).update(mean_linear_rgb=[1, 2]), "expected 3 values, found 2"),
        (lambda i: _first(i)["files"].pop("normal"), "every map"),
        (lambda i: _first(i)["files"]["normal"].update(sha256="0"), "identity"),
        (lambda i: _first(i)["files"]["normal"].update(file="../../x.png"), "cannot be used as a name"),
        (lambda i: i["materials"].append(dict(_first(i))), "twice"),
    ],
)
def test_an_invalid_index(folder: Path, change, message: str) -> None:
    _edit(folder, change)
    with pytest.raises(DatasetError, match=message):
        _open(folder)


def test_a_missing_map_is_named(folder: Path) -> None:
    (folder / "oak_floor" / "roughness.png").unlink()
    bank = _open(folder)
    bank.materialise(["brushed_steel"])  # the other material is not harmed
    with pytest.raises(DatasetError, match=r"roughness map of oak_floor.*roughness\.png"):
        bank.materialise(["oak_floor"])


def test_a_corrupt_map_is_named(folder: Path) -> None:
    path = folder / "oak_floor" / "normal.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DatasetError, match=r"normal map of oak_floor is damaged"):
        _open(folder).materialise(["oak_floor"])


def test_identity_follows_the_content(folder: Path, tmp_path: Path) -> None:
    write_bank(tmp_path / "other", 16, [RECIPES["oak_floor"]])
    assert _open(folder).identity != _open(tmp_path / "other").identity
