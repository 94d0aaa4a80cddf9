"""Running the real pipeline in other processes, looking at what it leaves, and killing it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# one dataset of four scenes with two tiny frames each; every worker renders several of them
TINY = (
    "preset=demo",
    "members=[geometry]",
    "downstream=",
    "dataset_count=1",
    "scene_count=4",
    "stages=generate",
    "frames=2",
    "quality=draft",
    "render.width_px=28",
    "render.height_px=28",
    "texture.bank_size_px=64",
    "geometry.tessellation=8",
)
LIMIT_S = 120


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run: its folder, the hash of its files and what it printed."""

    out: Path
    hash: str
    text: str


def environment(**values: str) -> dict[str, str]:
    """Return the environment in which the pipeline is found from any folder, also by a Blender binary's Python."""
    packages = [str(ROOT), *(entry for entry in sys.path if entry.endswith("site-packages"))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(packages), "PYTHONWARNINGS": "ignore"} | values


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "megasynth_attr.pipeline", *map(str, words)]


def pipeline(*words: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the pipeline to its end and return its exit code and output."""
    return subprocess.run(
        command(*words), cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@contextmanager
def started(*words: object, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a running pipeline in a process group of its own; whatever is left of it is killed at the end."""
    process = subprocess.Popen(
        command(*words),
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    workers: set[int] = set()
    try:
        yield process
    finally:
        workers = children(process.pid)
        for pid in (process.pid, *workers):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def tree_hash(out: Path) -> str:
    """Return one hash of the names and bytes of all files of an experiment but its history and its material cache."""
    digest = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        if not name.startswith(("events/", "cache/")):
            digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def children(pid: int) -> set[int]:
    """Return the process ids whose parent is ``pid``."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal, as the kernel says."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def wait_until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    """Return as soon as ``condition`` holds; fails the test after ``limit_s``."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not happen"
        time.sleep(0.02)


def frames_being_written(out: Path) -> list[Path]:
    return list(out.glob("*/tmp/*/rgb/*.png"))


def workers_in_a_scene(pid: int, out: Path) -> set[int]:
    """Return the workers of a run, at a moment at which one of them is in the middle of a scene."""
    workers = set[int]()

    def found() -> bool:
        nonlocal workers
        workers = children(pid)  # before, as it takes a while
        return bool(frames_being_written(out))

    wait_until(found)
    return workers


def complete_scenes(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*/scenes/???/??????"))
