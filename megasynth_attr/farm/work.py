"""What travels between the scheduler and whoever does the work: work goes out, reports come back.

Both executors, the local pool and Slurm, have the methods submit, poll and cancel. They know nothing about datasets,
retries or progress, and are never asked whether something succeeded in the end: that is read from the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from megasynth_attr.core.errors import ExitCode
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Assets

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class Work(Generic[Payload]):
    """One piece of work; ``key`` names it in reports and is unique among the work in flight."""

    key: str
    payload: Payload


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

    @property
    def stops_the_run(self) -> bool:
        """Whether every other scene would fail in the same way (wrong input, unfit machine)."""
        return self.exit_code in (ExitCode.USAGE, ExitCode.ENVIRONMENT)


@dataclass(frozen=True)
class Report:
    """Something that happened to the work ``key``; ``seconds`` says how long its parts took."""

    key: str
    kind: Literal["started", "warning", "frame", "done", "failed"]
    seconds: dict[str, float] = field(default_factory=dict)
    problem: Problem | None = None
    worker: str = ""
    message: str = ""  # of a warning
