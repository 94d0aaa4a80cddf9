"""Programs by name, and copies of the folders that version 0.1.0 left; shared by tests and recorders.

The programs are driven by their command lines alone: after a move, this file's imports are all there is to edit.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.errors import run_main
from megasynth_attr.pipeline import __main__ as pipeline
from megasynth_train import basis, cluster, export_lora, finetune, inspect, mine
from megasynth_train.compare import __main__ as compare
from megasynth_train.evaluate import __main__ as evaluate

STORED = Path(__file__).parents[1] / "fixtures" / "v0_1"
PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "pipeline": pipeline.main,
    "finetune": finetune.main,
    "inspect": inspect.main,
    "cluster": cluster.main,
    "mine": mine.main,
    "basis": basis.main,
    "compare": compare.main,
    "evaluate": evaluate.main,
    "export_lora": export_lora.main,
}


@dataclass(frozen=True)
class Said:
    """What a program left on its outputs, with the folder it ran in as <here>."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Return the message it ended with."""
        return f"{self.code} {self.err.strip().splitlines()[-1]}"


def call(program: str, words: tuple[str, ...]) -> Said:
    """Run a program here and now."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run_main(PROGRAMS[program], list(words))
        except SystemExit as leaving:  # after --help
            code = int(leaving.code or 0)
    here = str(Path.cwd())
    return Said(code, out.getvalue().replace(here, "<here>"), err.getvalue().replace(here, "<here>"))


@contextlib.contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """Copy the stored folders into ``folder`` and work there."""
    before = Path.cwd()
    shutil.copytree(STORED, folder, dirs_exist_ok=True)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


def files(*folders: str, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return the bytes of all files below folders of the current one, but locks and those of these names."""
    found = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.name not in (".lock", *but):
                found[path.as_posix()] = path.read_bytes()
    return found
