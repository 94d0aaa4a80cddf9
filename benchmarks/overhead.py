"""The time spent outside Cycles.

Renders one 100-frame scene at default quality with one worker, and twice as many scenes as cores, once with one worker
of all threads and once with one worker per core; prints tables in Markdown. Overhead is the wall time that a worker, or
the whole machine, spends outside Cycles' own render time. Run it on an idle machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, print_table

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.command.words import split, wants_help
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.threads import available_cores

HELP = Help(
    usage="python benchmarks/overhead.py [out=FOLDER] [part=single|layouts] [preset=NAME] [key=value ...]",
    explanation="Measures the time spent outside Cycles. Other words are passed to the pipeline.",
    examples=("python benchmarks/overhead.py part=layouts frames=5",),
)
DEFAULTS = ("preset=geometry", "datasets=0", "frames=100")


@dataclass(frozen=True)
class Options:
    """Where the scenes go, and what is measured."""

    out: str = setting("", "folder for the scenes; empty: a temporary one")
    part: str = setting("", "only this table; empty: both", options=["", "single", "layouts"])


@dataclass(frozen=True)
class Run:
    """Measured seconds: of the whole command, until the start of the first scene, and summed over scenes."""

    wall_s: float
    start_s: float
    scenes_s: float
    build_s: float
    cycles_s: float
    write_s: float
    commit_s: float
    workers: int
    frames: int

    @property
    def overhead(self) -> str:
        """Return the share of worker time, from start to end of the command, spent outside Cycles."""
        return f"{100 * (1 - self.cycles_s / (self.wall_s * self.workers)):.1f} %"

    @property
    def steady_overhead(self) -> str:
        """Return the same share within scenes, which a long run approaches."""
        return f"{100 * (1 - self.cycles_s / self.scenes_s):.1f} %"


def measure(words: list[str], out: Path, workers: int, threads: int, scenes: str) -> Run:
    """Render into a new folder ``out`` and return the measured times."""
    own = ["stages=generate", f"out={out}", f"workers={workers}", f"threads={threads}", f"scenes={scenes}"]
    command = [sys.executable, "-m", "megasynth_attr.pipeline", *words, *own]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    started = time.monotonic()
    before = time.time()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    wall_s = time.monotonic() - started
    (file,) = (out / "events").glob("*.jsonl")
    events = [json.loads(line) for line in file.read_text().splitlines()]
    done = [event for event in events if event["event"] == "scene_done"]
    first = min(event["time"] for event in events if event["event"] == "scene_start") - before
    parts = ("wall_s", "build_s", "cycles_s", "write_s", "commit_s")
    sums = (sum(event["seconds"][part] for event in done) for part in parts)
    return Run(wall_s, first, *sums, workers=workers, frames=sum(event["frames"] for event in done))


def measure_single(words: list[str], folder: Path, cores: int) -> None:
    """Print the times of one scene with one worker on all cores."""
    run = measure(words, folder / "single", 1, cores, "0")
    parts = {
        "Cycles' own render time": run.cycles_s,
        "starting Python and Blender, first materials": run.start_s,
        "building the scene in Blender": run.build_s,
        "around each render call: update, EXR, colour": (
            run.scenes_s - run.build_s - run.cycles_s - run.write_s - run.commit_s
        ),
        "waiting for the encoder": run.write_s,
        "commit": run.commit_s,
        "scheduling, finishing dataset.json, exit": run.wall_s - run.start_s - run.scenes_s,
        "whole command": run.wall_s,
    }
    print(f"\n## One scene of {run.frames} frames, one worker\n")
    rows = [(name, f"{seconds:.2f}", f"{100 * seconds / run.wall_s:.1f} %") for name, seconds in parts.items()]
    print_table("part", "seconds | share", rows)
    print(f"Overhead: {run.overhead} of the command, {run.steady_overhead} inside the scene.")


def measure_layouts(words: list[str], folder: Path, cores: int) -> None:
    """Compare one worker with all cores to one worker per core, on two scenes per core."""
    rows = []
    for workers, threads in ((1, cores), (cores, 1)):
        run = measure(words, folder / f"{workers}x{threads}", workers, threads, f"0-{2 * cores - 1}")
        times = f"{run.wall_s:.1f}", f"{run.wall_s / run.frames:.3f}"
        rows.append((f"{workers} × {threads}", *times, run.overhead, run.steady_overhead))
    print(f"\n## Workers × threads, {2 * cores} scenes\n")
    print_table("layout", "wall s | s per frame | overhead of the command | overhead inside scenes", rows)


def main(words: list[str]) -> None:
    """Measure and print."""
    own = [word for word in words if wants_help([word]) or split(word)[0] in ("out", "part")]
    options = parse(Options, own, HELP)
    words = [*DEFAULTS, *(word for word in words if word not in own)]
    cores = available_cores()
    print(f"{' '.join(words)}, {cores} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="overhead-") as temporary:
        folder = Path(options.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.part != "layouts":
            measure_single(words, folder, cores)
        if options.part != "single":
            measure_layouts(words, folder, cores)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
