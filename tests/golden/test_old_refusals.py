"""Old folders are refused in today's words when a setting differs, and left as they are.

``python tests/golden/record.py refusals`` records the words anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import golden_files
import golden_refusals
import old_folders
import pytest

RECORDED = golden_files.read("refusals")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The stored folders; each case leaves them as they were."""
    with old_folders.copied(tmp_path_factory.mktemp("old")) as folder:
        yield folder


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_case(name: str, here: Path) -> None:
    assert golden_refusals.refusal(golden_refusals.CASES[name]) == RECORDED[name]


def test_no_refusal_changes_anything() -> None:
    allowed = {"finetune: a damaged checkpoint"}  # it is set aside
    assert {name for name, said in RECORDED.items() if said["changed"]} <= allowed


def test_no_case_is_unrecorded() -> None:
    assert sorted(golden_refusals.CASES) == sorted(RECORDED)
