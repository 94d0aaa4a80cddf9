"""One command per shard and line, for everything that runs commands: GNU parallel, xargs, OpenCue, HTCondor."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.command.words import shown, split, wants_help
from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.resources import PACKAGE_DIR
from megasynth_attr.farm.elsewhere import FINISH, portable, require_all_shards, run_words, shard_count
from megasynth_attr.scene.config import Experiment, resolve

HELP = Help(
    usage="python -m megasynth_attr.farm.commands preset=NAME [shards=N] [key=value ...]",
    explanation="""
Prints one command per line; each renders one shard and may run anywhere, in any order and more than once. What
completes, checks and reports the datasets afterwards is printed on stderr, or with finish=true instead. Lines are
quoted for a POSIX shell and hold absolute paths. All other words are those of python -m megasynth_attr.pipeline.
""",
    examples=(
        "python -m megasynth_attr.farm.commands preset=geometry out=/shared/geometry shards=64 | parallel",
        "python -m megasynth_attr.farm.commands preset=geometry out=/shared/geometry finish=true | sh",
    ),
)


@dataclass(frozen=True)
class Options:
    """The program's own keys, beside those of the pipeline."""

    shards: int = setting(0, "number of commands; 0: one per 10 scenes, at most 1000", minimum=0)
    finish: bool = setting(False, "print the command that completes, checks and reports what the others rendered")


def main(words: list[str]) -> None:
    """Print the commands that render the experiment described by ``words``."""
    own = [word for word in words if wants_help([word]) or split(word)[0] in ("shards", "finish")]
    options = parse(Options, own, HELP)
    experiment = resolve([word for word in words if word not in own])
    shards, finish = commands(experiment, options.shards)
    print(*([finish] if options.finish else shards), sep="\n")
    if not options.finish:
        print(f"{len(shards)} commands; when all have ended with 0:\n{finish}", file=sys.stderr)


def commands(experiment: Experiment, shards: int) -> tuple[list[str], str]:
    """Return the lines that render ``shards`` shards (0: see Options), and the one that finishes afterwards.

    Raises ConfigError for words that cannot be a line, and what ``portable`` and ``shard_count`` raise.
    """
    require_all_shards(experiment)
    words = [*map(str, portable(experiment)), f"out={experiment.out}"]
    count = shard_count(experiment, shards)
    return [_line(words, run_words(f"{number}/{count}")) for number in range(1, count + 1)], _line(words, FINISH)


def _line(words: Sequence[str], own: Sequence[str]) -> str:
    for word in words:
        if not word.isprintable():
            raise ConfigError(f"{shown(word)} cannot be printed in one line; put the key into a file, config=FILE")
    # an installed package is found by its Python, a checkout is not
    path = [] if (PACKAGE_DIR / "presets").is_dir() else ["env", f"PYTHONPATH={PACKAGE_DIR.parent}"]
    return shlex.join([*path, sys.executable, "-m", "megasynth_attr.pipeline", *words, *own])


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
