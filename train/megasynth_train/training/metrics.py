"""metrics.jsonl: what happened in each interval of steps, one JSON object per line; TensorBoard only shows it.

Training lines (``"split": "train"``) hold means over the interval and all processes; validation lines means over the
fixed validation batches. Every (step, split) occurs once, also after a crash: a resumed run cuts what lies beyond its
checkpoint and writes it again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megasynth_attr.core.errors import importing
from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.temporary import replace_atomically

FILE = "metrics.jsonl"


@dataclass
class Interval:
    """Sums over the steps since the last line, of one process. Part of every checkpoint: exact after a resume."""

    steps: int = 0  # finite ones only
    bad_files: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        """Count one finite step."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value


def null_if_not_finite(value: float) -> float | None:
    """Return ``value``, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


class MetricsWriter:
    """Context manager that appends lines to ``<out>/metrics.jsonl`` and, if asked, to TensorBoard events.

    ``first_step`` is the step of the checkpoint the run continues from: lines beyond it are cut, and all if it is 0.
    Only process 0 has one that is ``enabled``. EnvironmentProblem if the disk is full or TensorBoard is asked for and
    missing.
    """

    def __init__(
        self, out: Path, first_step: int, *, tensorboard: bool, warn: Callable[[str], None], enabled: bool = True
    ) -> None:
        self._path = out / FILE
        self._file = None
        self._board: Any = None
        if not enabled:
            return
        _cut(self._path, first_step, warn)
        with storage_errors("a line of metrics", self._path):
            # no buffer: what could not be written must not be tried again, and fail again, when the file is closed
            self._file = self._path.open("ab", buffering=0)
        if tensorboard:
            self._board = _open_board(out / "tensorboard", first_step)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, step: int, split: str, values: Mapping[str, float | int | str | None]) -> None:
        """Append one line; readers see it at once."""
        if self._file is None:
            return
        line = (json.dumps({"step": step, "split": split, **values}, allow_nan=False) + "\n").encode()
        with storage_errors("a line of metrics", self._path):
            while line:  # a nearly full disk may first take a part, and fail only with the rest
                line = line[self._file.write(line) :]
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{split}/{name}", value, step)

    def sync(self) -> None:
        """Flush all lines to the disk; call this before a checkpoint, which relies on them."""
        if self._file is not None:
            with storage_errors("a line of metrics", self._path):
                os.fsync(self._file.fileno())


def read_metrics(out: Path, split: str = "train") -> list[dict[str, Any]]:
    """Return the complete lines of one split, in order."""
    lines = _readable_lines((out / FILE).read_text(encoding="utf-8"))
    return [record for record in map(json.loads, lines) if record["split"] == split]


def _cut(path: Path, last_step: int, warn: Callable[[str], None]) -> None:
    """Remove from ``path`` the lines beyond ``last_step`` and what a crash left half written at its end."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    readable = _readable_lines(text)
    lost = len(text.splitlines()) - len(readable)
    if lost > 1:  # one line can be half written by a kill; more means a power cut or an editor
        warn(f"WARNING: {path}: {lost} lines at the end are damaged and are cut")
    kept = [line for line in readable if last_step and json.loads(line)["step"] <= last_step]
    content = "".join(f"{line}\n" for line in kept)
    if content != text:
        with storage_errors("the metrics", path):
            replace_atomically(path, content.encode())


def _readable_lines(text: str) -> list[str]:
    """Return the lines of ``text`` up to the first that is not a complete record."""
    lines = []
    for line in text.splitlines(keepends=True):
        try:
            complete = line.endswith("\n") and isinstance(json.loads(line)["step"], int)
        except (ValueError, KeyError, TypeError, RecursionError):
            complete = False
        if not complete:
            break
        lines.append(line.rstrip("\n"))
    return lines


def _open_board(folder: Path, first_step: int) -> Any:
    with importing(
        "run.tensorboard=true needs the package tensorboard: pip install tensorboard, or leave it out "
        "(metrics.jsonl has the same numbers)"
    ):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder), purge_step=first_step + 1)
