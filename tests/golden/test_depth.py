"""Every attribute still renders the depth, normals, instances and cameras of depth.json, to the byte.

On another kind of processor, depth and normals may differ in their last bits: there, only mean and largest depth are
compared. ``python tests/golden/record.py depth``.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import golden_depth
import golden_files
import pytest

FILE = golden_files.read("depth")
RECORDED, SAME_MACHINE = FILE["members"], FILE["machine"] == golden_files.machine()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="no module bpy"),
]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return golden_depth.rendered(tmp_path_factory.mktemp("depth") / "out")


@pytest.mark.parametrize("attribute", sorted(RECORDED))
def test_attribute(attribute: str, rendered: dict[str, Any]) -> None:
    compared = [name for name in RECORDED[attribute] if SAME_MACHINE or name not in golden_depth.OF_PROCESSOR]
    now = {name: rendered[attribute][name] for name in compared}
    assert golden_files.changed({name: RECORDED[attribute][name] for name in compared}, now) == []


def test_no_attribute_is_unrecorded(rendered: dict[str, Any]) -> None:
    assert sorted(rendered) == sorted(RECORDED)
