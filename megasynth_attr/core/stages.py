"""The contract of a pipeline stage, and how stages that the generator does not know are found.

A package joins the pipeline with an entry point of the group ``megasynth_attr.stages``::

    [project.entry-points."megasynth_attr.stages"]
    sharpness = "my_package.stages:SHARPNESS"

The entry point's name is the name of its settings section (``sharpness.step_px=4`` on the command line) and of its
folder ``<out>/sharpness``; it loads a ``Stage`` or, for several that share both, a ``StageGroup``. The module named
there is imported with every run, so it imports only what is quick; the rest is imported when a stage runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.errors import EnvironmentProblem

GROUP = "megasynth_attr.stages"


class Extra(NamedTuple):
    """What one of this project's extras brings to the pipeline, for messages when it is not installed."""

    name: str
    stages: tuple[str, ...]


EXTRAS = {"training": Extra("train", ("pretrain", "cluster", "mine", "compare"))}  # by the name of their section


@dataclass(frozen=True)
class StageRun:
    """What a stage is given: the experiment's folder and datasets, and the stage's own section of the settings.

    ``values`` is the section as preset, config= and command line leave it, unchecked. All else is in the files.
    """

    out: Path
    members: Mapping[str, tuple[str, ...]]  # attribute → names of the selected datasets, folders in ``out``
    downstream: tuple[str, ...] = ()  # datasets on which adaptation is compared; empty: the experiment has none
    across: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # attribute → further datasets to test on
    photographs: Mapping[str, str] = field(default_factory=dict)  # data of others, instead of ``downstream``
    section: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    shard: str = "1/1"
    max_runtime_s: float = 0.0  # what is left of it; 0: no limit

    @property
    def datasets(self) -> tuple[str, ...]:
        """Return the names of all members' datasets."""
        return tuple(name for names in self.members.values() for name in names)

    def folder(self, name: str) -> Path:
        """Return where a stage's results called ``name`` belong."""
        return self.out / self.section / name

    def paths(self, names: Sequence[str]) -> list[str]:
        """Return the folders of the datasets called ``names``."""
        return [str(self.out / name) for name in names]


class CostLine(NamedTuple):
    """A line of the plan: a name, what is done, and how long it takes (None: little, not estimated)."""

    name: str
    text: str
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.name:10}{self.text}"


Settings = TypeVar("Settings")
Run = TypeVar("Run", bound=StageRun, contravariant=True)


@dataclass(frozen=True)
class Stage(Generic[Run]):
    """One step of the pipeline. It finds its input in the experiment's folder and raises a MegaSynthError if it fails.

    ``check`` and ``ready`` are asked before the first stage runs, and change nothing: ``check`` raises for settings
    that cannot work, also when only a plan is wanted; ``ready`` for what is missing on this machine.
    """

    name: str
    meaning: str
    run: Callable[[Run], None]
    after: tuple[str, ...] = ()  # stages that come before this one where both are chosen
    check: Callable[[Run], None] = field(default=lambda run: None)
    ready: Callable[[Run], None] = field(default=lambda run: None)
    cost: Callable[[Run], Sequence[CostLine]] = field(default=lambda run: ())
    needs: tuple[str, ...] = ()  # modules it imports when it runs
    install: str = ""  # the command that brings them
    despite_failure: bool = False  # it also runs after a stage has failed
    chapter: str = ""  # the folder, run.folder(chapter), into which it may write a chapter of the summary page
    question: str = ""  # that the chapter answers, for new readers
    section: str = ""  # the entry point's name, filled in when it is loaded


@dataclass(frozen=True)
class StageGroup:
    """Stages that share a settings section.

    ``sections``: the dataclasses whose keys ``--help`` lists, by full name; the first is the section itself.
    ``check_keys`` raises ConfigError for a wrong key or value in the section; without it the keys are those of the
    first dataclass.
    """

    stages: tuple[Stage[StageRun], ...]
    sections: Mapping[str, type] = field(default_factory=dict)
    check_keys: Callable[[Mapping[str, Any]], object] | None = None


def section_names() -> frozenset[str]:
    """Return the names of all settings sections of stages: of installed ones, and of the project's own extras."""
    return frozenset(entry.name for entry in _entry_points()) | EXTRAS.keys()


def installed_groups() -> tuple[dict[str, StageGroup], dict[str, str]]:
    """Return the installed groups of stages, by section, and the reasons why others do not load, by section too.

    A group that does not load only matters to a run that wants it.
    """
    groups: dict[str, StageGroup] = {}
    broken: dict[str, str] = {}
    for entry in sorted(_entry_points(), key=lambda entry: entry.name):
        try:
            found = entry.load()
        except Exception as error:  # whatever a module raises that is not ours
            broken[entry.name] = f"{entry.value} does not load ({type(error).__name__}: {error})"
            continue
        group = StageGroup((found,)) if isinstance(found, Stage) else found
        if isinstance(group, StageGroup):
            stages = tuple(replace(stage, section=entry.name) for stage in group.stages)
            groups[entry.name] = replace(group, stages=stages)
        else:
            broken[entry.name] = f"{entry.value} is no Stage or StageGroup but a {type(found).__name__}"
    return groups, broken


def read_section(kind: type[Settings], section: str, values: Mapping[str, Any]) -> Settings:
    """Return ``values``, the section called ``section``, as the dataclass ``kind``; ConfigError for a wrong key."""
    return fill(kind, values, f"{section}.")


def require_modules(stage: Stage[Any]) -> None:
    """Raise EnvironmentProblem unless every module that the stage needs can be imported; this may take seconds."""
    for name in stage.needs:
        try:
            importlib.import_module(name)
        except ImportError as error:
            lacks = f"the module {error.name} is missing" if isinstance(error, ModuleNotFoundError) else str(error)
            advice = f"; `{stage.install}`" if stage.install else ""
            raise EnvironmentProblem(f"stage {stage.name}: {lacks}{advice}") from None


def missing_stage(name: str, broken: Mapping[str, str]) -> EnvironmentProblem | None:
    """Return the error for a stage that one of the project's extras would bring; None for any other name."""
    section = next((section for section, extra in EXTRAS.items() if name in extra.stages), None)
    return missing_extra(f"stage {name}", section, broken) if section else None


def missing_extra(wanted: str, section: str, broken: Mapping[str, str]) -> EnvironmentProblem:
    """Return the error for what was asked for and belongs to a section that one of the project's extras would bring."""
    reason = broken.get(section, "the part that has it is not installed")
    extra = f"[{EXTRAS[section].name}]"
    return EnvironmentProblem(
        f"{wanted}: {reason}; `pip install megasynth-attr{extra}` (in a checkout `pip install -e '.{extra}'`), "
        "or leave it out"
    )


def _entry_points() -> Any:
    from importlib.metadata import entry_points  # takes a while

    return entry_points(group=GROUP)
