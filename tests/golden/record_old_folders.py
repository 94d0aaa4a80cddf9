"""``python tests/golden/record_old_folders.py``: how tests/fixtures/v0_1 was written, by megasynth-attr 0.1.0.

Kept for the record: a later version must read what that one left, so the folders are never written anew. The programs
ran in HERE, since some files name it. Left out: events/ (names of the machine), caches, locks, and the pictures of the
comparison (nobody reads them, and they take the most space).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import old_words
import pytest

from megasynth_attr import __version__
from megasynth_attr.pipeline import __main__ as pipeline
from megasynth_train import basis, cluster, finetune, mine
from megasynth_train.compare import __main__ as compare

HERE = Path("/megasynth_v0_1")
STORED = Path(__file__).parents[1] / "fixtures" / "v0_1"
LEFT_OUT = shutil.ignore_patterns("events", "cache", "tmp", ".lock", "pictures")


def main() -> None:
    if __version__ != "0.1.0" or STORED.exists():
        sys.exit("these are the folders of version 0.1.0; they are written once")
    HERE.mkdir()
    os.chdir(HERE)
    run(pipeline.main, old_words.FIRST_SCENES)
    stop_after_checkpoint(old_words.UNFINISHED, HERE / "runs/unfinished/checkpoints/step_00000003")
    run(finetune.main, old_words.FINISHED)
    run(cluster.main, old_words.CLUSTER)
    run(mine.main, old_words.SUBSPACES)
    mine_half(old_words.HALF_MINED)
    run(basis.main, old_words.RANDOM_BASIS)
    for name in old_words.MODES:
        run(finetune.main, old_words.mode(name))
    run(compare.main, old_words.COMPARE)
    shutil.copytree(HERE, STORED, ignore=LEFT_OUT)


def run(program: Callable[[list[str]], None], words: tuple[str, ...]) -> None:
    print(f"\n$ {program.__module__} {' '.join(words)}", flush=True)
    program(list(words))


def stop_after_checkpoint(words: tuple[str, ...], checkpoint: Path) -> None:
    """Run finetune and kill it as soon as ``checkpoint`` is there."""
    process = subprocess.Popen([sys.executable, "-m", "megasynth_train.finetune", *words])
    while process.poll() is None and not checkpoint.is_dir():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


def mine_half(words: tuple[str, ...]) -> None:
    """Run mine to where all layers but one are done, as if it had been killed then."""
    with pytest.MonkeyPatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(mine, "_write_results", killed)
        with pytest.raises(KeyboardInterrupt):
            run(mine.main, words)
    layers = sorted(path for path in (HERE / "half_mined/layers").iterdir() if path.is_file())
    layers[-1].unlink()


if __name__ == "__main__":
    main()
