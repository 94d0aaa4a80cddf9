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
    out, draw = Path(options.out).absolute(), random.Random(options.seed)
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"out={options.out}: the folder is not empty; choose another")
    began = time.monotonic()
    undisturbed = runs.pipeline(*WORDS, f"out={out / 'undisturbed'}")
    if undisturbed.returncode:
        raise DatasetError(f"the undisturbed run ended with {undisturbed.returncode}: {undisturbed.stderr}")
    longest_s, whole = time.monotonic() - began, scenes(out / "undisturbed")
    count: Counter[str] = Counter()
    while count["run killed"] + count["worker killed"] < options.kills:
        folder = out / f"{count['folders complete']:03d}"
        disturb(folder, draw, longest_s, count)
        found = scenes(folder)
        count["scenes torn"] += sum(found[name] != whole[name] for name in found)
        count["scenes looked at"] += len(found)
        if count["ended by itself"]:
            count["folders complete"] += 1
            count["folders that differ"] += runs.tree_hash(folder) != runs.tree_hash(out / "undisturbed")
            count["ended by itself"] = 0
    rows = [[name, count[name]] for name in sorted(count) if name != "ended by itself"]
    common.print_table("what", "how often", rows)
    print(f"{time.monotonic() - began:.0f} s; the undisturbed run took {longest_s:.1f} s")
    if any(count[name] for name in BAD):
        raise DatasetError(f"{', '.join(name for name in BAD if count[name])}: see {out}")


BAD = ("scenes torn", "folders that differ", "runs that failed", "processes left")


def disturb(folder: Path, draw: random.Random, longest_s: float, count: Counter[str]) -> None:
    """Run once in ``folder`` and kill at a random moment; a run whose worker was killed goes on to its end."""
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
            return
        run.communicate()
        count["ended by itself"] += 1
        count["runs that failed"] += run.returncode != 0


def scenes(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return the files of every scene folder that exists, by name."""
    return {
        scene.name: {str(file.relative_to(scene)): file.read_bytes() for file in scene.rglob("*") if file.is_file()}
        for scene in folder.glob("*/scenes/???/??????")
    }


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
