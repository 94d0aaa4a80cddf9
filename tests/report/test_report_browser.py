"""The pages in a real browser: images decode, nothing overflows a phone, the slider works."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser_probe import FLAGS, find_chromium

SIZE = ("--virtual-time-budget=4000", "--window-size=1400,2400")

# Windows are never narrower than 500 px, frames are: the page is shown in one, and reports to the page around it.
FRAME = """<!doctype html><iframe id="page" src="probe.html" width="{width}" height="2000" style="border: 0"></iframe>
<script>
addEventListener("message", (event) => {{
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = event.data;
  document.body.append(out);
}});
</script>
"""

PROBE = """
<script>
window.addEventListener("load", () => {
  const slider = document.querySelector("#frame");
  if (slider) { slider.value = 2; slider.dispatchEvent(new Event("input")); }
  const wide = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, .crop, .skip, pre")
    && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.tagName + "." + e.className);
  const left = (element) => element.getBoundingClientRect().left;
  const crop = document.querySelector(".crop"), cut = crop && crop.querySelector("img");
  const result = {
    width: innerWidth, page: document.documentElement.scrollWidth, wide,
    images: [...document.images].map((i) => [i.getAttribute("src"), i.naturalWidth, i.getBoundingClientRect().width]),
    slider: slider && !slider.closest("[hidden]") && slider.getAttribute("aria-valuetext"),
    shift: crop && (left(crop) - left(cut)) / cut.getBoundingClientRect().width,
    alt: cut && cut.alt,
    crops: document.querySelectorAll(".crop").length,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    colours: [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color],
  };
  parent.postMessage(JSON.stringify(result), "*");
});
</script>
"""


@pytest.fixture(scope="session")
def browser() -> str:
    return find_chromium()


def probe(browser: str, page: Path, tmp_path: Path, width: int, *extra: str) -> dict[str, Any]:
    """Return what the page looks like at this width; a copy with the probe lies beside it for a moment."""
    copy, outer = page.with_name("probe.html"), page.with_name("frame.html")
    outer.write_text(FRAME.format(width=width), encoding="utf-8")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    try:
        command = [browser, *FLAGS, *SIZE, *extra, f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run(
            [*command, "--dump-dom", outer.as_uri()], capture_output=True, text=True, timeout=60, check=True
        )
    finally:
        copy.unlink()
        outer.unlink()
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert found, f"the page's script did not finish: {done.stderr[-2000:]}"
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    return result


@pytest.mark.parametrize("width", [390, 1280])
def test_dataset_page(browser: str, index: Path, tmp_path: Path, width: int) -> None:
    seen = probe(browser, index.parents[1] / "texture_00/report/index.html", tmp_path, width)
    assert seen["width"] == width
    assert seen["page"] <= width, f"the page is {seen['page']} px wide: {seen['wide']}"
    assert seen["wide"] == []
    assert len(seen["images"]) >= 12
    assert [src for src, natural, shown in seen["images"] if natural == 0 or shown == 0] == []
    assert seen["crops"] == 4
    assert seen["slider"] == "frame 2" and seen["alt"] == "Scene 000000 at frame 2"
    assert seen["shift"] == pytest.approx(2 / 6, abs=0.005), "the crop shows another frame than the slider says"


def test_incomplete_dataset_and_summary_on_a_phone(browser: str, index: Path, tmp_path: Path) -> None:
    for page in (index, index.parents[1] / "camera_00/report/index.html"):
        seen = probe(browser, page, tmp_path, 390)
        assert seen["page"] <= 390 and seen["wide"] == []
        assert seen["images"] and all(natural > 0 for _, natural, _ in seen["images"])


def test_dark_page(browser: str, index: Path, tmp_path: Path) -> None:
    seen = probe(browser, index, tmp_path, 800, "--force-dark-mode")
    if not seen["dark"]:
        pytest.skip("this browser does not offer a dark scheme without a window")
    background, text = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in seen["colours"])
    assert background < 40 and text > 200
