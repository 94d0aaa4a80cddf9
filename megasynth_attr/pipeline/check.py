"""Checks before the first stage runs: everything that can be known to fail, even in the last stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from megasynth_attr.core.command.words import split
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.machine import existing_parent
from megasynth_attr.core.stages import EXTRAS, StageGroup, missing_extra, read_section, require_modules
from megasynth_attr.farm.experiment import require_experiment
from megasynth_attr.pipeline.stages import GENERATE, Stages, Step
from megasynth_attr.scene.config import Experiment


def check_settings(experiment: Experiment, stages: Stages, steps: Sequence[Step]) -> None:
    """Raise ConfigError or DatasetError for settings that cannot work, in any section and of any chosen stage.

    Sections of stages that are not chosen are checked too: a key misspelt there would go unnoticed until later.
    EnvironmentProblem for a typed key of an extra that is not installed; presets and files may have such sections.
    """
    existing_parent(experiment.out)  # raises for a name that no folder can have
    for word in experiment.words:
        key, _ = split(word)
        if (section := key.partition(".")[0]) in EXTRAS.keys() - stages.groups.keys():
            raise missing_extra(f"{key}=", section, stages.broken)
    for section, group in stages.groups.items():
        if section in experiment.sections:
            _check_keys(section, group, experiment.sections[section])
    for stage, run in steps:
        stage.check(run)


def check_machine(experiment: Experiment, steps: Sequence[Step]) -> None:
    """Raise what ``require_experiment`` raises, or EnvironmentProblem, for what a chosen stage needs and lacks here."""
    if steps[0].stage is not GENERATE:
        require_experiment(experiment)
    for stage, run in steps:
        require_modules(stage)
        stage.ready(run)


def _check_keys(section: str, group: StageGroup, values: Mapping[str, Any]) -> None:
    if group.check_keys is not None:
        group.check_keys(values)
    elif group.sections:
        read_section(next(iter(group.sections.values())), section, values)
    elif values:
        raise ConfigError(f"{section}.{next(iter(values))}: the section {section} has no keys")
