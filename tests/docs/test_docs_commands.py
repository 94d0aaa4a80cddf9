"""Every command and every Python block of every page: the program exists and takes these words, imports resolve.

Nothing is run here: programs stop as soon as they have read their words. test_docs_tutorials.py runs the tutorials.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import dropwhile, groupby
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_site import ROOT, blocks, linked, pages, programs

from megasynth_attr.core.command import program
from megasynth_attr.core.command.words import split
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.pipeline.check import check_settings
from megasynth_attr.pipeline.stages import find_stages
from megasynth_attr.scene.config import resolve

PAGES = {str(page.relative_to(ROOT)): page for page in pages()}
PROGRAMS = {one.module: one for one in programs()}
PIPELINE = "megasynth_attr.pipeline"
OWN_WORDS = {
    "megasynth_attr.farm.commands": ("shards", "finish"),
    "megasynth_attr.farm.openjd": ("shards", "file", "bundle"),
}
SCRIPTS = {"render.py": PIPELINE, "open_scene.py": f"{PIPELINE}.open_scene"}
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


CONSOLE = {"megasynth-attr": "megasynth_attr", "megasynth-train": "megasynth_train"}
STARTS = {"python", "python3", "blender", "make", "pytest", "pip", "torchrun", "accelerate", *CONSOLE}
# pages whose commands need what they have made before, and the tests that run them
RUN_ELSEWHERE = {"docs/adding-a-stage.md": "tests/pipeline/test_stages.py"}


class WordsAreRead(BaseException):
    """Raised in the place of all that a program does after it has read its words."""


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of a page: of lines of its shell blocks, wherever in a line they begin (after
    ``&&``, ``nice``, ``do``, within quotation marks), and of ``python -m …`` within sentences.
    """
    lines = [
        line
        for block in blocks(text)
        if block.language in ("", "sh")
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(found.split()) for found in re.findall(r"`((?:python -m|make|megasynth-\w+) [^`]+)`", prose)]
    while lines:
        lexer = shlex.shlex(lines.pop(0), posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quotation mark in something that programs print
            continue
        lines += [word for word in words if " -m megasynth" in word]
        for between, part in groupby(words, lambda word: bool(re.fullmatch(r"[|;&<>]+", word))):
            command = list(dropwhile(lambda word: Path(word).name not in STARTS, part))
            if command and not between:
                yield command


def check_command(words: list[str]) -> None:
    """Raise what is wrong with a command, if it is one of ours."""
    if words[0] in CONSOLE and words[1:] and words[1] != "PROGRAM":
        words = ["python", "-m", f"{CONSOLE[words[0]]}.{words[1]}", *(word for word in words[2:] if word != "…")]
    if "-m" in words and words[(at := words.index("-m") + 1) :][:1] and words[at].startswith("megasynth"):
        check_program(words[at], words[at + 1 :])
    elif "-P" in words:
        check_program(SCRIPTS[Path(words[words.index("-P") + 1]).name], words[words.index("--") + 1 :])
    elif words[:1] == ["make"] and words[1:]:
        assert words[1] in TARGETS
    elif words[:1] == ["pytest"]:
        assert all((ROOT / word).exists() for word in words[1:] if word.startswith("tests/"))
    elif words[:2] == ["pip", "install"]:
        asked = re.findall(r"\[(.+?)\]", " ".join(words))
        assert all(extra in EXTRAS for extra in ",".join(asked).split(",") if extra)
    elif words[1:] and words[1].endswith(".py"):
        script = ROOT / words[1]
        assert script.is_file()
        source = "".join(path.read_text() for path in script.parent.glob(f"{script.stem}*.py"))
        assert all(re.search(rf"\b{split(word)[0]}\b", source) for word in words[2:] if "=" in word)


def check_program(module: str, words: list[str]) -> None:
    """Let a program read ``words`` and stop it there; ConfigError if it does not take them."""
    if {"--help", "--presets"} & set(words):
        return
    found = PROGRAMS[module]
    own = OWN_WORDS.get(module, ())
    if module == PIPELINE or own:
        experiment, stages = resolve([word for word in words if split(word)[0] not in own]), find_stages()
        stages.steps(experiment)
        check_settings(experiment, stages, ())
        words = [word for word in words if split(word)[0] in own]
    if module != PIPELINE:
        with pytest.raises(
            (WordsAreRead, SystemExit)
        ):  # SystemExit: its help, where words are needed and none is given
            found.main(words)


@pytest.fixture
def beside_presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a checkout, without what programs would find there; nothing is done in it but reading words."""
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    monkeypatch.chdir(tmp_path)
    fill = program.fill

    def filled(kind: Any, words: Any) -> None:
        fill(kind, words)
        raise WordsAreRead

    monkeypatch.setattr(program, "fill", filled)
    return tmp_path


def save_files(text: str, folder: Path) -> None:
    """Write the blocks that begin with the name of a file, such as ``# dusk.yaml``."""
    for block in blocks(text):
        if named := re.match(r"# ([\w.]+\.(?:yaml|py))\b", block.text):
            (folder / named[1]).write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("name", sorted(PAGES.keys() - RUN_ELSEWHERE.keys()))
def test_commands_are_valid(name: str, beside_presets: Path) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    for other in ("docs/start.md", "docs/running.md", name):  # the files of the first two are used on several pages
        save_files(PAGES[other].read_text(encoding="utf-8"), beside_presets)
    for words in commands(text):
        try:
            check_command(words)
        except (ConfigError, AssertionError, KeyError, OSError) as error:
            pytest.fail(f"{name}: {shlex.join(words)}: {error!r}")


def test_wrong_commands_are_noticed(beside_presets: Path) -> None:
    wrong = """
```sh
python -m megasynth_attr.pipeline preset=texture sceens=0-1
python -m megasynth_attr.pipeline preset=texture stages=generate,verfy
python -m megasynth_attr.pipeline preset=demo training.optim.stesp=2
python -m megasynth_attr.farm.commands preset=texture shards=two
python -m megasynth_train.finetune data=a moed=lora out=b
python -m megasynth_train.mien cluster=a
blender -b -P blender_scripts/render.py -- preset=textur
make demmo
pytest tests/no_such_test.py
pip install '.[trian]'
python benchmarks/overhead.py prat=single
megasynth-attr pipelin preset=texture
make demo && nice python3 -m megasynth_attr.pipelin
sbatch --wrap "python -m megasynth_attr.pipelin"
```
and `python -m megasynth_attr.dataset.verify datasets=a`, `megasynth-train finetun data=a`
"""
    found = list(commands(wrong))
    assert len(found) == 17
    for words in found:
        if words == ["make", "demo"]:
            continue
        with pytest.raises((ConfigError, AssertionError, KeyError)):
            check_command(words)


def test_pages_have_many_commands() -> None:
    """A change of the pages' form must not leave everything unread."""
    ours = [words for page in PAGES.values() for words in commands(page.read_text()) if "-m" in words]
    assert len(ours) > 100


READERS = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}


def test_settings_in_pages_can_be_read() -> None:
    for name, page in PAGES.items():
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.language in READERS:
                assert READERS[block.language](block.text), f"{name}:{block.line}"
            else:
                assert block.language in ("", "sh", "python", "text"), f"{name}:{block.line}"


@pytest.mark.parametrize("name", PAGES)
def test_python_blocks_compile_and_their_imports_resolve(name: str) -> None:
    for block in blocks(PAGES[name].read_text(encoding="utf-8")):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text, f"{name}:{block.line}")):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), (
                    f"{name}:{block.line + node.lineno - 1}"
                )


def test_links_lead_to_files() -> None:
    for page in PAGES.values():
        list(linked(page))


def test_a_broken_link_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docs_site.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("[here](page.md#top), [there](gone.md), [elsewhere](https://example.org/gone.md)\n")
    with pytest.raises(ConfigError, match=r"page\.md: the link gone\.md leads nowhere"):
        list(linked(page))
