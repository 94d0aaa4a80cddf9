"""The one style of all figures: the same bytes every time, matplotlib left as it was, colours that mean something."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from megasynth_attr.core.pages.figures import PAPER_RGB as PAPER
from megasynth_attr.core.pages.figures import (
    evenly,
    false_colour,
    figure_style,
    panels_for,
    place,
    save,
    sheet,
    show_pixels,
)


def test_false_colour_gets_darker_with_depth_and_leaves_the_background() -> None:
    depth = np.linspace(1.5, 4.5, 200, dtype=np.float32)[None]
    colours = false_colour(depth, 1.5, 4.5, np.ones(depth.shape, dtype=bool))[0].astype(float) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert luminance[0] > 0.7 and luminance[-1] < 0.03
    # 8-bit steps of neighbouring colours may tie or wiggle by less than one level
    assert np.all(np.diff(luminance) < 2e-3)
    assert np.all(np.diff(luminance[::8]) < 0)
    hidden = false_colour(np.zeros((2, 2)), 0.0, 1.0, np.zeros((2, 2), dtype=bool))
    assert np.all(hidden == PAPER)


@given(count=st.integers(1, 400), limit=st.integers(1, 60))
def test_evenly_spread_indices(count: int, limit: int) -> None:
    indices = evenly(count, limit)
    assert len(indices) == min(count, limit) and indices == sorted(set(indices)) and indices[0] == 0
    if min(count, limit) > 1:
        assert indices[-1] == count - 1
        assert np.ptp(np.diff(indices)) <= 1


def test_figures_are_the_same_bytes_whatever_matplotlib_was_told(tmp_path: Path) -> None:
    def draw(folder: Path) -> list[bytes]:
        folder.mkdir()
        with figure_style():
            page = sheet(2, 1, 1.0)
            for axes, values in panels_for(page, [(1, 3, 2), (2, 1, 3)]):
                axes.plot(values)
                axes.set_title("a $ is a letter, ‖A‖²")
            save(page, folder, "lines")
        return [(folder / f"lines.{suffix}").read_bytes() for suffix in ("png", "svg")]

    first = draw(tmp_path / "first")
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        assert draw(tmp_path / "second") == first
        assert dict(matplotlib.rcParams) == before
    assert b"Date" not in first[1]


def test_axes_are_where_they_were_placed(tmp_path: Path) -> None:
    with figure_style():
        page = sheet(1, 1, 2.0, width=4.0)
        page.axes[0, 0].remove()
        show_pixels(place(page.figure, 1.0, 0.5, 2.0, 1.0), np.full((3, 5, 3), (255, 0, 0), np.uint8))
        save(page, tmp_path, "square")
    with Image.open(tmp_path / "square.png") as image:
        red = (np.asarray(image.convert("RGB")) == (255, 0, 0)).all(axis=-1)
    rows, columns = np.nonzero(red)
    bounds = np.array([columns.min(), columns.max() + 1, rows.min(), rows.max() + 1]) / 180
    assert bounds == pytest.approx([1.0, 3.0, 0.5, 1.5], abs=2 / 180)


def test_panels_left_over_are_removed() -> None:
    with figure_style():
        page = sheet(2, 2, 1.0)
        assert [item for _, item in panels_for(page, "abc")] == ["a", "b", "c"]
        assert len(page.figure.axes) == 3
