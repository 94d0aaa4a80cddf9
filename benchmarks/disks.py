"""What happens to a rendering run when its disk fills up or becomes read-only, at any moment?

As kills.py, but a small disk of its own is filled to the last byte, or made read-only, at a random moment. The run must
end by itself with exit code 4 and one sentence. Then the disk is mended and the same command is run again. Needs root.
"""

from __future__ import annotations

import errno
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kills
from kills import runs

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import DatasetError, EnvironmentProblem, ExitCode, run_main
from megasynth_attr.core.fields import setting

HELP = Help(
    usage="python benchmarks/disks.py [key=value ...]",
    explanation="Fills the disk of rendering runs, or makes it read-only, at random moments and looks what is left.",
    examples=("python benchmarks/disks.py faults=26 out=runs/disks",),
)
DISK_MB = 400
BAD = ("scenes torn", "folders that differ", "runs that failed", "unexpected endings")


@dataclass(frozen=True)
class Options:
    """How many faults, and where."""

    out: str = setting("runs/disks", "output folder, empty or absent")
    faults: int = setting(26, "disks to fill or make read-only", minimum=1)
    seed: int = setting(0, "of the moments and kinds", minimum=0)


def main(words: list[str]) -> None:
    """Print what happened; DatasetError if anything was torn or lost."""
    options = parse(Options, words, HELP)
    draw, count = random.Random(options.seed), Counter[str]()
    out = kills.empty_folder(options.out)
    longest_s, whole = kills.undisturbed(out)
    while count["disk full"] + count["read-only"] < options.faults:
        with small_disk(out / "disk") as disk:
            disturb(disk, draw, longest_s, count)
            kills.look(disk / "out", whole, count)
            done = runs.pipeline(*kills.WORDS, f"out={disk / 'out'}")
            count["runs that failed"] += done.returncode != 0
            count["folders complete"] += 1
            count["folders that differ"] += kills.scenes(disk / "out") != whole
    kills.conclude(count, BAD, longest_s, out)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Yield a mounted file system of its own."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise EnvironmentProblem(f"{folder}: no file system can be mounted there; run this as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disturb(disk: Path, draw: random.Random, longest_s: float, count: Counter[str]) -> None:
    """Run once, spoil the disk at a random moment, wait for the run to end, and mend the disk."""
    fills = draw.random() < 0.5
    with runs.started(*kills.WORDS, f"out={disk / 'out'}") as run:
        end = time.monotonic() + draw.uniform(0, longest_s)
        while run.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        if run.poll() is not None:
            return
        if fills:
            fill(disk / "filler")
        elif subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True, check=False).returncode:
            return  # a file is just being written: the kernel refuses
        text, _ = run.communicate(timeout=runs.LIMIT_S)
    count["disk full" if fills else "read-only"] += 1
    count[f"ended with {run.returncode}"] += 1
    if run.returncode not in (ExitCode.DONE, ExitCode.ENVIRONMENT) or "Traceback" in text:
        count["unexpected endings"] += 1
        print(text)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    (disk / "filler").unlink(missing_ok=True)


def fill(file: Path) -> None:
    """Write until the disk takes no more byte."""
    with file.open("wb", buffering=0) as stream:
        for size in (2**20, 4096):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise DatasetError(f"{file}: {error}") from None


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
