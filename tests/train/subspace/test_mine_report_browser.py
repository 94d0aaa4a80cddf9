"""The report in a real browser: widths, dark, what it loads, what opens."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2]))
from browser_probe import running_chromium
from synthetic_analysis import tiny

from megasynth_train.subspace.figures import write_report

LONG = "a_name_of_an_attribute_without_any_place_to_break_it_in_two"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with running_chromium(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    analysis = tiny(attributes=("texture", LONG), kinds=("qkv",), depth=1, notes=("Two adapters have one seed.",))
    return write_report(analysis, tmp_path_factory.mktemp("report") / "report")


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_scrolls_sideways_and_all_is_local(chromium, report, width):
    with chromium.page(report.as_uri(), width, 900, mobile=width < 600) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        page.evaluate("document.querySelectorAll('img').forEach((i) => { i.loading = 'eager'; })")
        page.evaluate("Promise.all([...document.images].map((i) => i.decode()))")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("[...document.images].every((i) => i.naturalWidth > 500)")
        shown = page.evaluate("Math.min(...[...document.images].map((i) => i.clientWidth))")
        assert shown > 0.8 * min(width, 500)
        assert page.complaints() == []
        assert all(address.startswith(report.parent.as_uri()) for address in page.requested())


def test_contents_lead_somewhere_and_sets_open(chromium, report):
    with chromium.page(report.as_uri()) as page:
        missing = "[...document.querySelectorAll('nav a')].filter((a) => !document.querySelector(a.hash)).length"
        assert page.evaluate("document.querySelectorAll('nav a').length") >= 8
        assert page.evaluate(missing) == 0
        closed = "details.set:not([open])"
        before = page.evaluate(f"document.querySelectorAll('{closed}').length")
        page.click(f"{closed} > summary")
        assert page.evaluate(f"document.querySelectorAll('{closed}').length") == before - 1
        assert page.evaluate("[...document.images].every((i) => i.alt.length > 40)")
        assert "one seed" in page.evaluate("document.querySelector('.note').textContent")


def test_dark_page_keeps_the_pictures_on_paper(chromium, report):
    with chromium.page(report.as_uri(), prefers_color_scheme="dark") as page:
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
        page.evaluate("document.querySelector('figure img').scrollIntoView()")
        page.wait_for("document.querySelector('figure img').complete")
        page.settle()
        window = page.screenshot()
        assert np.count_nonzero((window == (246, 247, 249)).all(axis=2)) > 20_000
