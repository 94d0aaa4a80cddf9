"""Does anything get lost or torn when a rendering run is killed with ``kill -9``, again and again, at any moment?

A tiny dataset is rendered undisturbed, then again and again with kills at random moments: of the whole run or of one of
its workers. After every kill each scene folder that exists is compared with the undisturbed one, byte by byte, and the
same command is run again. A folder that is complete at last is compared as a whole.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import common

sys.path.insert(0, str(common.ROOT / "tests" / "farm"))

import runs  # how tests start runs and look at what they leave

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, DatasetError, run_main
from megasynth_attr.core.fields import setting

HELP = Help(
    usage="python benchmarks/kills.py [key=value ...]",
    explanation="Kills rendering runs at random moments and looks for what is torn, lost or left running.",
    examples=("python benchmarks/kills.py kills=112 out=runs/kills",),
)
WORDS = (*runs.TINY, "scene_count=8", "frames=3", "workers=2", "attempts=10")
UNDISTURBED = "undisturbed"
BAD = ("scenes torn", "folders that differ", "runs that failed", "processes left")
GONE_LIMIT_S = 10.0  # in which workers must notice that their scheduler is dead


@dataclass(frozen=True)
class Options:
    """How many kills, and where."""

    out: str = setting("runs/kills", "output folder, empty or absent")
    kills: int = setting(112, "processes to kill", minimum=1)
    seed: int = setting(0, "of the moments and victims", minimum=0)


def main(words: list[str]) -> None:
    """Print what happened; DatasetError if anything was torn, lost or left running."""
    options = parse(Options, words, HELP)
    draw, count = random.Random(options.seed), Counter[str]()
    out = empty_folder(options.out)
    longest_s, whole = undisturbed(out)
    while count["run killed"] + count["worker killed"] < options.kills:
        folder = out / f"{count['folders complete']:03d}"
        ended = disturb(folder, draw, longest_s, count)
        look(folder, whole, count)
        if ended:
            count["folders complete"] += 1
            count["folders that differ"] += runs.tree_hash(folder) != runs.tree_hash(out / UNDISTURBED)
    conclude(count, BAD, longest_s, out)


def empty_folder(name: str) -> Path:
    """Return the output folder; ConfigError if something is in it."""
    out = Path(name).absolute()
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"out={name}: the folder is not empty; choose another")
    out.mkdir(parents=True, exist_ok=True)
    return out


def undisturbed(out: Path) -> tuple[float, dict[str, dict[str, bytes]]]:
    """Return how long a run takes when it is left alone, in seconds, and its scenes."""
    began = time.monotonic()
    done = runs.pipeline(*WORDS, f"out={out / UNDISTURBED}")
    if done.returncode:
        raise DatasetError(f"the undisturbed run ended with {done.returncode}: {done.stderr}")
    return time.monotonic() - began, scenes(out / UNDISTURBED)


def look(folder: Path, whole: dict[str, dict[str, bytes]], count: Counter[str]) -> None:
    """Compare the scene folders that exist with the undisturbed ones."""
    found = scenes(folder)
    count["scenes torn"] += sum(found[name] != whole[name] for name in found)
    count["scenes looked at"] += len(found)


def conclude(count: Counter[str], bad: Sequence[str], longest_s: float, out: Path) -> None:
    """Print the counts; DatasetError if there is a bad one."""
    common.print_table("what", "how often", [[name, count[name]] for name in sorted(count)])
    print(f"the undisturbed run took {longest_s:.1f} s")
    if found := [name for name in bad if count[name]]:
        raise DatasetError(f"{', '.join(found)}: see {out}")


def disturb(folder: Path, draw: random.Random, longest_s: float, count: Counter[str]) -> bool:
    """Run once in ``folder`` and kill the run or a worker at a random moment; return whether it ended by itself."""
    with runs.started(*WORDS, f"out={folder}") as run:
        end = time.monotonic() + draw.uniform(0, longest_s)
        while run.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        workers = sorted(runs.children(run.pid)) if run.poll() is None else []
        if run.poll() is None and workers and draw.random() < 0.5:
            os.kill(draw.choice(workers), signal.SIGKILL)
            count["worker killed"] += 1
        elif run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            count["run killed"] += 1
            limit = time.monotonic() + GONE_LIMIT_S
            while any(map(runs.alive, workers)) and time.monotonic() < limit:
                time.sleep(0.02)
            count["processes left"] += sum(map(runs.alive, workers))
            return False
        run.communicate()
        count["runs that failed"] += run.returncode != 0
        return True


def scenes(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return the files of every scene folder that exists, by name."""
    return {
        scene.name: {str(file.relative_to(scene)): file.read_bytes() for file in scene.rglob("*") if file.is_file()}
        for scene in folder.glob("*/scenes/???/??????")
    }


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
