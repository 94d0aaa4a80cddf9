"""The small interface between the scheduler and whoever does the work: submit, poll, cancel.

An executor knows nothing about datasets, retries or progress, and it is never asked whether something succeeded in
the end: that is read from the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from megasynth_attr.core.errors import ExitCode

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class Work(Generic[Payload]):
    """One piece of work; ``key`` names it in reports and is unique among the work in flight."""

    key: str
    payload: Payload


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
    """Something that happened to the work ``key``; ``seconds`` says how long its parts
    took."""

    key: str
    kind: Literal["started", "warning", "frame", "done", "failed"]
    seconds: dict[str, float] = field(default_factory=dict)
    problem: Problem | None = None
    worker: str = ""
    message: str = ""  # of a warning


class Executor(Protocol[Payload]):
    """Runs work in other processes."""

    def submit(self, work: Sequence[Work[Payload]]) -> None:
        """Take on ``work``; returns at once."""

    def poll(self, timeout_s: float) -> list[Report]:
        """Return what happened since the last call, waiting at most ``timeout_s`` for something to happen."""

    def cancel(self) -> None:
        """Stop all work and leave no process behind; calling it twice is harmless."""
