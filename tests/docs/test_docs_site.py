"""The documentation site: it is built strictly, asks no network for anything, and opens from files in a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser_probe import Chromium, running_chromium
from docs_site import PROGRAMS, ROOT, programs, write_sources

WIDTHS = {"laptop": 1366, "phone": 390}
LOOKED_AT = (
    "index",
    "docs/start",
    "docs/tutorials/train-and-mine",
    "docs/formats",
    "docs/programs/finetune",
    "docs/api/datasets",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, elsewhere, and return its folder; any warning fails."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("mkdocs", reason="mkdocs is not installed (pip install '.[docs]')")
    folder = tmp_path_factory.mktemp("docs")
    write_sources(folder / "sources")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for old, new in {
        "docs_dir: build/docs_source": f"docs_dir: {folder / 'sources'}",
        "hooks: [tools": f"hooks: [{ROOT / 'tools'}",
        "paths: [., train]": f"paths: [{ROOT}, {ROOT / 'train'}]",
    }.items():
        assert old in settings
        settings = settings.replace(old, new)
    (folder / "mkdocs.yml").write_text(settings, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"],
        cwd=folder, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


class Parts(HTMLParser):
    """What a page loads by itself, and the rows of its tables that were not recognised as such."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text: list[str] = []
        self._code = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self._code += tag in ("code", "pre", "script", "style")
        for name in ("src", "srcset") + (("href",) if tag == "link" and found.get("rel") != "canonical" else ()):
            if value := found.get(name):
                self.loaded.append(value)

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.text.append(data)


def test_pages_load_nothing_from_a_network_and_their_markdown_was_understood(site: Path) -> None:
    found = sorted(site.rglob("*.html"))
    assert len(found) > 60
    for path in found:
        page = Parts(path.read_text(encoding="utf-8"))
        assert not [one for one in page.loaded if re.match(r"(?:[a-z]+:)?//", one)], path
        text = "".join(page.text)
        assert not re.search(r"^\||\|---|^ *[*-] |```|::$|\]\(|^:::", text, re.MULTILINE), path
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), style


def test_every_program_has_a_page(site: Path) -> None:
    for program in programs():
        text = (site / PROGRAMS / f"{program.name}.html").read_text(encoding="utf-8")
        assert f"python -m {program.module}" in text and "exit codes:" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with running_chromium(tmp_path_factory.mktemp("browser") / "profile") as chromium:
        yield chromium


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_open_from_files(width: str, site: Path, browser: Chromium) -> None:
    for name in LOOKED_AT:
        with browser.page((site / f"{name}.html").as_uri(), WIDTHS[width], mobile=width == "phone") as page:
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
            assert all(url.startswith(("file:", "data:", "about:", "blob:")) for url in page.requested()), name
            assert page.complaints() == [], name
            assert page.evaluate("[...document.images].every((i) => !i.complete || i.naturalWidth)"), name


def test_search_works_from_files(site: Path, browser: Chromium) -> None:
    with browser.page((site / "index.html").as_uri()) as page:
        page.evaluate(
            "(() => { const i = document.querySelector('.md-search__input'); i.focus(); i.value = 'reprojection';"
            "i.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}));"
            "i.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        page.wait_for("document.querySelector('.md-search-result__item a') !== null")
        assert "docs/" in page.evaluate("document.querySelector('.md-search-result__item a').href")
