"""Puts the sources of the documentation site into a folder: the repository's pages, and one page per program.

    python tools/docs_site.py build/docs_source && mkdocs build --strict        # what `make docs` does

The folder mirrors the repository, so that a link is right in both places: pages are copied where they lie, and so is
every file that one of them links to. The pages of the programs are their ``--help``.
"""

from __future__ import annotations

import contextlib
import html
import importlib
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from architecture import modules

from megasynth_attr.core.command.program import Help
from megasynth_attr.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "experiments/**/*.md")
LOOK = ("docs/site.css", "docs/iframe-worker.js")
PROGRAMS = "docs/programs"
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A code block of a page: its language, its text, the line it begins on, and why it is not run ("": it is)."""

    language: str
    text: str
    line: int
    not_run: str = ""


@dataclass(frozen=True)
class Program:
    """Something that is started with ``python -m``: the module, its ``main``, and what it says about itself."""

    module: str
    main: Callable[[list[str]], Any]
    help: Help

    @property
    def name(self) -> str:
        """Return the module's name without its package."""
        return self.module.partition(".")[2] or self.module


def pages() -> list[Path]:
    """Return every page of the repository, sorted by its path."""
    return sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})


def blocks(text: str) -> Iterator[Block]:
    """Yield the code blocks of a page; the comment ``<!-- not run: reason -->`` before one is its ``not_run``."""
    for found in _FENCE.finditer(text):
        indent, language, body = found.groups()
        before = text[: found.start()].rstrip().rpartition("\n")[2]
        reason = re.fullmatch(r"<!-- not run: (.+) -->", before)
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        yield Block(language, "\n".join(lines), text.count("\n", 0, found.start()) + 2, reason[1] if reason else "")


def linked(page: Path) -> Iterator[Path]:
    """Yield the files that a page links to; ConfigError for one that does not exist."""
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        name = link.partition("#")[0]
        if not name or re.match(r"[a-z]+:", name):
            continue
        path = (page.parent / name).resolve()
        if not path.is_file():
            raise ConfigError(f"{page.relative_to(ROOT)}: the link {link} leads nowhere; no file {name} lies beside it")
        yield path


def programs() -> list[Program]:
    """Return every program of both packages that explains itself, in the order of their names."""
    found = []
    for name, path in sorted(modules().items()):
        if '\nif __name__ == "__main__":' not in path.read_text(encoding="utf-8"):
            continue
        module = importlib.import_module(name)
        texts = importlib.import_module("megasynth_attr.pipeline.help") if "pipeline.__main__" in name else module
        if (help := getattr(texts, "HELP", None)) is None:
            continue  # a process that programs start, not people
        found.append(Program(name.removesuffix(".__main__"), module.main, help))
    return found


def purpose(program: Program) -> str:
    """Return the first sentence of what a program says about itself, without its full stop."""
    return html.escape(" ".join(program.help.explanation.split()).partition(". ")[0].removesuffix("."))


def program_page(program: Program) -> str:
    """Return the page of a program: what it is for, examples, and its whole ``--help``, as the program prints it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit), mock.patch.dict("os.environ", COLUMNS="100"):
        program.main(["--help"])
    examples = "\n".join(program.help.examples)
    return (
        f"# {program.name}\n\n{purpose(program)}. Started with `python -m {program.module}`.\n\n"
        f"## Examples\n\n```sh\n{examples}\n```\n\n## All it says\n\n```text\n{out.getvalue().strip()}\n```\n"
    )


def programs_page(found: list[Program]) -> str:
    """Return the page that lists all programs with the first sentence of what each is for."""
    rows = []
    for program in found:
        rows.append(f"| [{program.name}]({program.name}.md) | `python -m {program.module}` | {purpose(program)} |")
    return (
        "# Programs\n\nEvery program takes `key=value` words, reads more of them from `config=file.yaml`, and explains "
        "itself with `--help`; these pages are those texts.\n\n| | started with | what it does |\n|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def write_sources(out: Path) -> int:
    """Write all sources into ``out``, which is made anew, and return how many files they are."""
    if out.exists():
        shutil.rmtree(out)
    copied = {*pages(), *(ROOT / name for name in LOOK)}
    copied |= {path for page in pages() for path in linked(page)}
    for path in copied:
        target = out / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    found = programs()
    texts = {program.name: program_page(program) for program in found} | {"index": programs_page(found)}
    (out / PROGRAMS).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out / PROGRAMS / f"{name}.md").write_text(text, encoding="utf-8")
    return len(copied) + len(texts)


def main(folder: str = "build/docs_source") -> None:
    count = write_sources(Path(folder))
    print(f"{folder}: {count} files")


if __name__ == "__main__":
    main(*sys.argv[1:])
