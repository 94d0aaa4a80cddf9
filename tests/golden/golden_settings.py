"""Every key with its default, limits and meaning, and what the presets make of the training half: settings.json."""

from __future__ import annotations

import dataclasses
import os
from typing import Any
from unittest import mock

import old_folders

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import MegaSynthError
from megasynth_attr.pipeline.stages import stage_run
from megasynth_attr.scene.config import preset_names, resolve
from megasynth_train.experiment.settings import stage_settings


def record() -> dict[str, Any]:
    """Return what today's programs say about themselves and make of the presets."""
    return {
        "help": {name: help_of(name) for name in sorted(old_folders.PROGRAMS)},
        "presets": {name: training_of(name) for name in preset_names()},
    }


def help_of(program: str) -> list[str]:
    """Return the lines of a program's --help."""
    with mock.patch.dict(os.environ, COLUMNS="120"):  # test processes say that their terminal is narrow
        said = old_folders.call(program, ("--help",))
    return said.out.splitlines()


def training_of(preset: str) -> dict[str, Any]:
    """Return the settings of every training stage of a preset, or why it has none."""
    try:
        settings = stage_settings(stage_run(resolve([f"preset={preset}", "out=/out"]), "training"))
    except MegaSynthError as error:
        return {"refused": str(error)}
    found = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    return {name: to_plain(value) for name, value in found.items()}
