"""Machine-readable history: one JSON line per event in ``<out>/events/<host>-<pid>.jsonl``.

The only place with times, host names and settings of a run; nothing in a dataset depends on it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import decode_json, open_regular

LATEST_RUNS, LATEST_BYTES = 10, 200_000  # of each run, several hundred events


def host_name() -> str:
    """Return this machine's short name."""
    return socket.gethostname().partition(".")[0]


class EventLog:
    """Appends events; every line is complete on disk before the call returns."""

    def __init__(self, out: Path) -> None:
        folder = out / "events"
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{host_name()}-{os.getpid()}.jsonl"
        self._file: TextIO = self.path.open("a", encoding="utf-8")

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, event: str, **values: Any) -> None:
        """Append one line: UTC seconds since 1970, the event and its values."""
        self._file.write(json.dumps({"time": round(time.time(), 3), "event": event, **values}) + "\n")
        self._file.flush()


class EventReader:
    """Reads the events that one process appends from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = path.stat().st_size if path.exists() else 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last call; a line that is not complete yet is left for the next."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._place)
            for line in file:
                if line.endswith(b"\n"):
                    self._place += len(line)
                    yield json.loads(line)


def latest_events(out: Path, host: str = "*") -> Iterator[dict[str, Any]]:
    """Yield the latest events of the latest runs below ``out`` on ``host``: a large farm has written millions.

    A line that was cut, by a crash or by beginning in its middle, or that is damaged otherwise is skipped.
    """
    files = (path for path in (out / "events").glob(f"{host}-*.jsonl") if path.is_file())
    for path in sorted(files, key=lambda path: path.stat().st_mtime)[-LATEST_RUNS:]:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LATEST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        for line in lines:
            try:
                event = decode_json(line, str(path))
            except DatasetError:
                continue
            if isinstance(event, dict):
                yield event
