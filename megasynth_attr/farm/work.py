"""What travels between the scheduler and the pool: jobs go out, reports come back.

The pool knows nothing about datasets, retries or progress, and is never asked whether something succeeded in the end:
that is read from the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, ExitCode
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Assets


@dataclass(frozen=True)
class RenderJob:
    """One scene, its files and the settings that matter inside Blender; travels as JSON."""

    scene_json: str  # text of the scene file
    dataset_dir: str
    assets: Assets
    render: RenderSettings
    write: WriteSettings
    quality: str
    device: str
    threads: int
    plugins: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """Why an attempt failed: error class, message, the exit code it stands for, and the last lines of the log."""

    error: str
    message: str
    exit_code: int
    log: tuple[str, ...] = ()
    stage: str = "render"


@dataclass(frozen=True)
class Report:
    """Something that happened to the scene ``key``; ``seconds`` says how long its parts took."""

    key: str
    kind: Literal["started", "warning", "frame", "done", "failed"]
    seconds: dict[str, float] = field(default_factory=dict)
    problem: Problem | None = None
    worker: str = ""
    message: str = ""  # of a warning


def raise_if_hopeless(exit_code: int, message: str) -> None:
    """Raise what ``exit_code`` stands for if all other work would fail alike: wrong input, or an unfit machine."""
    if exit_code == ExitCode.USAGE:
        raise ConfigError(message)
    if exit_code == ExitCode.ENVIRONMENT:
        raise EnvironmentProblem(message)
