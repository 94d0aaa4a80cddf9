"""Requests to stop: signals and the time limit, turned into one question that the scheduler asks in its loop."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

from megasynth_attr.core.early import SIGNALS, leave_if_importing
from megasynth_attr.core.errors import Interrupted

RESUME = "run the same command again to resume"


class StopRequest:
    """Context manager: while it is open, signals are remembered instead of ending the process.

    ``patient=False`` raises Interrupted inside the handler: for work that leaves nothing half done and has no loop.
    ``advice`` ends the message: what running again does.
    """

    def __init__(self, max_runtime_s: float = 0.0, *, patient: bool = True, advice: str = RESUME) -> None:
        self._deadline = time.monotonic() + max_runtime_s if max_runtime_s else None
        self._limit_s = max_runtime_s
        self._patient = patient
        self._advice = advice
        self.signal: str | None = None  # the name of the one that came
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            # a handler that was not set from Python reads as None and cannot be restored
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if not self._patient:
            leave_if_importing(number, frame)
            self.check_signal()

    def check_signal(self) -> None:
        """Raise Interrupted if a signal came."""
        if self.signal is not None:
            raise Interrupted(f"stopped by {self.signal}; {self._advice}")

    def remaining_s(self) -> float:
        """Return how long a part of the work may take that has a limit of its own; 0: there is no limit."""
        return max(self._deadline - time.monotonic(), 1e-3) if self._deadline is not None else 0.0

    def check(self) -> None:
        """Raise Interrupted if a signal came or the time is up."""
        self.check_signal()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise Interrupted(f"max_runtime_s={self._limit_s:g} is over; {self._advice}")
