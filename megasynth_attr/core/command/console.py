"""The console commands ``megasynth-attr`` and ``megasynth-train``: PROGRAM key=value …, as ``python -m`` does it.

A program is a module that runs by itself and declares its HELP. They are found, and described, without being imported:
most of them import PyTorch or SciPy.
"""

from __future__ import annotations

import ast
import runpy
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.command.words import HELP_WORDS
from megasynth_attr.core.errors import ConfigError, print_help, run_main

RUNS = '\nif __name__ == "__main__":\n'
LINE = 120


def run_console(package: str, folder: Path) -> int:
    """Run the program of ``package``, which lies in ``folder``, that the first word names; return the exit code.

    The last part of a name is enough: ``view`` for ``dataset.view``. Without a word, or with one for help, list them.
    """
    wanted, found = sys.argv[1:2], programs(folder)
    named = [name for name in found if wanted in ([name], [name.rpartition(".")[2]])]
    if len(named) != 1:
        return run_main(partial(_list, package, found), wanted)
    del sys.argv[1]
    runpy.run_module(f"{package}.{named[0]}", run_name="__main__", alter_sys=True)
    return 0


def programs(folder: Path) -> dict[str, str]:
    """Return what each program in the package's ``folder`` does, by its dotted name without the package's."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if RUNS in text and (meaning := next(_meanings(path, text), "")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts).removesuffix(".__main__")] = meaning
    return found


def _meanings(path: Path, text: str) -> Iterator[str]:
    """Yield the first sentence of the explanation in a module's HELP, or in that of ``help.py`` beside it."""
    beside = path.with_name("help.py")
    texts = [text, *([beside.read_text(encoding="utf-8")] if path.name == "__main__.py" and beside.exists() else [])]
    for statement in (one for source in texts for one in ast.parse(source).body):
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "HELP":
            assert isinstance(statement.value, ast.Call)
            explanation = next(one.value for one in statement.value.keywords if one.arg == "explanation")
            yield " ".join(str(ast.literal_eval(explanation)).split()).partition(". ")[0].removesuffix(".")


def _list(package: str, found: dict[str, str], words: list[str]) -> None:
    """Print one line per program; ConfigError for a word that names none."""
    if words and words[0] not in HELP_WORDS:
        if "=" in words[0]:
            raise ConfigError(f"{words[0]}: the first word is the name of a program; known: {', '.join(found)}")
        last = [name.rpartition(".")[2] for name in found]
        hint = nearest(words[0], list(found)) or nearest(words[0], last)
        raise ConfigError(f"{words[0]}: there is no such program{hint}; known: {', '.join(found)}")
    command, width = package.replace("_", "-"), max(map(len, found))
    short = {name: textwrap.shorten(meaning, LINE - width - 4, placeholder=" …") for name, meaning in found.items()}
    lines = [f"  {name:{width}}  {meaning}" for name, meaning in short.items()]
    print_help("\n".join([f"usage: {command} PROGRAM [key=value ...]", "", "programs (--help after one):", *lines]))
