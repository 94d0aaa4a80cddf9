"""Every attribute still renders the depth, normals, instances and cameras of depth.json, to the byte.

The depth of another processor may differ in its last bits (Cycles has a kernel for each kind): where a file differs but
mean and largest depth do not, compare on the machine that recorded. ``python tests/golden/record.py depth``.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import golden_depth
import golden_files
import pytest

RECORDED = golden_files.read("depth")["members"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="no module bpy"),
]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return golden_depth.rendered(tmp_path_factory.mktemp("depth") / "out")


@pytest.mark.parametrize("attribute", sorted(RECORDED))
def test_attribute(attribute: str, rendered: dict[str, Any]) -> None:
    assert golden_files.changed(RECORDED[attribute], rendered[attribute]) == []


def test_no_attribute_is_unrecorded(rendered: dict[str, Any]) -> None:
    assert sorted(rendered) == sorted(RECORDED)
