"""The tutorials do what they say: all their blocks are run as they stand, page after page, in one folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from docs_site import ROOT, blocks
from test_docs_commands import PROGRAMS, save_files

from megasynth_attr.core.errors import run_main

TUTORIALS = (
    "start",
    "tutorials/first-dataset",
    "conventions",
    "tutorials/own-ranges",
    "tutorials/own-meshes",
    "tutorials/own-pictures",
    "tutorials/two-laptops",
    "tutorials/train-and-mine",
    "tutorials/use-a-basis",
)
LIMIT_S = 120


def run_page(name: str, folder: Path) -> None:
    """Run the shell and Python blocks of a page in ``folder``, except those it says are not run, and pip."""
    page = ROOT / "docs" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    save_files(text, folder)
    names: dict[str, object] = {}  # Python blocks of a page follow one another
    for block in blocks(text):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.not_run or block.text.startswith("pip install"):
            continue
        if block.language == "python":
            exec(compile(block.text, where, "exec"), names)
        elif block.language == "sh":
            run_shell(block.text, folder, where)


def run_shell(text: str, folder: Path, where: str) -> None:
    """Run a block in a shell; or here, if it only starts our programs, each of which would import everything again."""
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    if not re.search(r"[&|<>$*]", text) and all(words[:2] == ["python", "-m"] for words in lines):
        for _, _, module, *words in lines:
            try:
                code = run_main(PROGRAMS[module].main, words)
            except SystemExit as leaving:  # after --help
                code = leaving.code or 0
            assert code == 0, f"{where}: {module} {words}"
        return
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "train")])}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{where}\n{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tutorials")


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages build on those before them, which the order of the parameters is."""
    monkeypatch.chdir(folder)
    run_page(name, folder)


def test_every_tutorial_is_run() -> None:
    found = {f"tutorials/{path.stem}" for path in (ROOT / "docs" / "tutorials").glob("*.md")}
    assert found <= set(TUTORIALS)
    for name in TUTORIALS:  # what is left out says why
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert text.count("<!-- not run") == sum(bool(block.not_run) for block in blocks(text))
        assert not re.findall(r"```(?:bash|shell|py)\b", text)
