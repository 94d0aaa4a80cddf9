"""What an element of an array job does: it runs the pipeline on its shard and says in a small file how far it is.

``python -m megasynth_attr.farm.slurm_job FOLDER FIRST COUNT COMMAND…`` renders shard FIRST + (index in the array) of
COUNT. Whoever waits for the jobs reads these files, and never looks at the scenes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from megasynth_attr.core.codec import Part, from_plain
from megasynth_attr.core.early import SIGNALS
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, read_json
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.farm.events import EventReader, host_name

FORMAT = "megasynth-attr slurm shard 1"
REPORT_S = 5.0  # shortest time between two reports


@dataclass(frozen=True)
class Status(Part):
    """How far a shard is: what all its jobs have rendered, and where its latest job is or how that ended."""

    format: str = FORMAT
    job: int = 0  # id of the array
    node: str = ""
    todo: int = 0  # frames that were to be rendered when its first job began
    frames: int = 0
    scenes: int = 0
    exit_code: int | None = None  # None: it has not ended, or was killed
    message: str = ""  # its last line


def status_file(folder: Path, shard: int) -> Path:
    """Return where the status of a shard is, in the folder of its run."""
    return folder / f"{shard}.json"


def read_status(folder: Path, shard: int) -> Status:
    """Return what a shard last said; an empty Status if it has said nothing that can be read."""
    try:
        status: Status = from_plain(Status, read_json(status_file(folder, shard), FORMAT), "status")
        return status
    except DatasetError:
        return Status()


def main(arguments: list[str]) -> int:
    """Run the command for this element's shard and return its exit code."""
    folder, shard = Path(arguments[0]), int(arguments[1]) + int(os.environ["SLURM_ARRAY_TASK_ID"])
    job, node = int(os.environ["SLURM_ARRAY_JOB_ID"]), os.environ.get("SLURMD_NODENAME") or host_name()
    status = replace(read_status(folder, shard), job=job, node=node, exit_code=None, message="")
    _write(folder, shard, status)
    command = [*arguments[3:], f"shard={shard}/{arguments[2]}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    for number in SIGNALS:
        signal.signal(number, pass_on)
    events = EventReader(folder.parents[2] / f"{host_name()}-{process.pid}.jsonl")
    last, written_at = "", time.monotonic()
    assert process.stderr is not None
    for line in process.stderr:  # the pipeline prints one every few seconds
        sys.stderr.write(line)
        last = line.strip() or last
        if time.monotonic() - written_at >= REPORT_S and (now := _with_events(status, events)) != status:
            status, written_at = now, time.monotonic()
            _write(folder, shard, status)
    code = process.wait()
    _write(folder, shard, replace(_with_events(status, events), exit_code=code, message=last))
    return code if code >= 0 else 128 - code


def _with_events(status: Status, events: EventReader) -> Status:
    """Return ``status`` with what the pipeline has noted since the last call."""
    for event in events.new():
        if event["event"] == "start":
            status = replace(status, todo=status.frames + event["frames"])
        elif event["event"] == "scene_done":
            status = replace(status, frames=status.frames + event["frames"], scenes=status.scenes + 1)
    return status


def _write(folder: Path, shard: int, status: Status) -> None:
    replace_atomically(status_file(folder, shard), json_bytes(status))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
