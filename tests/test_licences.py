"""THIRD_PARTY.md: everything that ships and everything that pyproject.toml asks for has a licence there."""

from __future__ import annotations

import licences
import pytest

TEXT = licences.FILE.read_text(encoding="utf-8")


def test_every_dependency_has_a_row() -> None:
    rows = [line.strip("| ").split(" | ") for line in TEXT.partition("| package |")[2].splitlines()[2:]]
    expected = sorted(licences.requirements().items(), key=lambda one: one[0].lower())
    assert [(row[0], row[1].split(", ")) for row in rows] == expected, "run python tools/licences.py"
    assert all(len(row) == 4 and row[3] for row in rows)
    assert len(rows) > 30


def test_every_folder_of_assets_has_a_row() -> None:
    folders = {f"assets/{path.name}/" for path in (licences.ROOT / "assets").iterdir()}
    assert folders == {folder for folder, _, _ in licences.SHIPPED}
    assert all(f"| `{folder}` |" in TEXT for folder in folders)


def test_a_package_without_a_licence_is_refused() -> None:
    with pytest.raises(LookupError, match="no-such-package is not installed here: install all extras, or state its"):
        licences.declared("no-such-package")
    assert licences.declared("numpy")[1] == "BSD" and licences.declared("open3d")[1] == "MIT"
