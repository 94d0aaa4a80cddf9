"""Pages made of templates."""

from __future__ import annotations

from pathlib import Path

from megasynth_attr.core.pages.template import render


def test_a_name_that_is_not_utf8_is_shown_as_far_as_it_is_text(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>{{ name }}</p>")
    assert render(tmp_path, "page.html", name="é&\udcff") == "<p>é&amp;?</p>"
