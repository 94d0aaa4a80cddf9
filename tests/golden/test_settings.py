"""Every program still has the keys, defaults and limits of settings.json, and every preset the same training settings.

A key that is meant to change: ``python tests/golden/record.py settings``, and look at the difference.
"""

from __future__ import annotations

import golden_files
import golden_settings
import pytest

from megasynth_attr.scene.config import preset_names

RECORDED = golden_files.read("settings")


@pytest.mark.parametrize("program", sorted(RECORDED["help"]))
def test_keys_of_a_program(program: str) -> None:
    recorded, now = RECORDED["help"][program], golden_settings.help_of(program)
    assert [line for line in recorded if line not in now] == []
    assert [line for line in now if line not in recorded] == []


@pytest.mark.parametrize("preset", sorted(RECORDED["presets"]))
def test_training_settings_of_a_preset(preset: str) -> None:
    assert golden_files.changed(RECORDED["presets"][preset], golden_settings.training_of(preset)) == []


def test_no_preset_is_unrecorded() -> None:
    assert preset_names() == sorted(RECORDED["presets"])
