"""Every preset still draws the scenes it drew when scenes.json was recorded, under the same fingerprints.

The version is part of a fingerprint and pinned with them. After a change that is meant to change scenes:
``python tests/golden/record.py scenes``.
"""

from __future__ import annotations

import json
from typing import Any

import golden_files
import golden_scenes
import pytest

RECORDED = golden_files.read("scenes")


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(golden_scenes.record()))
    return values


@pytest.mark.parametrize("part", ["version", "streams"])
def test_version_and_streams(part: str, now: dict[str, Any]) -> None:
    assert golden_files.changed(RECORDED[part], now[part]) == []


@pytest.mark.parametrize("name", sorted(RECORDED["presets"]))
def test_preset(name: str, now: dict[str, Any]) -> None:
    assert golden_files.changed(RECORDED["presets"][name], now["presets"].get(name)) == []


@pytest.mark.parametrize("name", sorted(RECORDED["varied"]))
def test_varied_preset(name: str, now: dict[str, Any]) -> None:
    assert golden_files.changed(RECORDED["varied"][name], now["varied"].get(name)) == []


def test_no_preset_is_unrecorded(now: dict[str, Any]) -> None:
    assert sorted(now["presets"]) == sorted(RECORDED["presets"]) and sorted(now["varied"]) == sorted(RECORDED["varied"])
