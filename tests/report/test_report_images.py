"""Sheets, colours and the animation, against analytic answers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from megasynth_attr.core.pages.figures import PAPER_RGB as PAPER
from megasynth_attr.report import animation
from megasynth_attr.report.images import (
    contact_sheet,
    id_colour,
    instance_colour,
    normal_colour,
    on_paper,
    plan_sheet,
    strip,
)

RED, GREEN, BLUE = (200, 30, 20), (20, 160, 40), (30, 50, 210)


def flat(colour: tuple[int, int, int], height: int = 30, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_contact_sheet_has_every_picture_in_its_cell_and_paper_between() -> None:
    colours = [RED, GREEN, BLUE, (90, 90, 90), (5, 200, 200)]
    sheet = plan_sheet(len(colours), aspect=4 / 3, columns=3, cell_width=120)
    assert (sheet.columns, sheet.rows, sheet.cell_height) == (3, 2, 90)
    picture = contact_sheet([flat(c) for c in colours], [f"{i:06d}" for i in range(5)], sheet)
    assert picture.shape == (sheet.size[1], sheet.size[0], 3)
    outside = np.ones(picture.shape[:2], dtype=bool)
    for index, colour in enumerate(colours):
        x, y = sheet.origin(index)
        assert (x, y) == (7 + (index % 3) * 127, 7 + (index // 3) * (90 + 16 + 7))
        assert np.all(picture[y : y + 90, x : x + 120] == colour)
        label = picture[y + 90 : y + 106, x : x + 120]
        assert (label.min(axis=(1, 2)) < 120).any(), "there is no text under the picture"
        assert np.all(label[:, :4] == PAPER) and np.all(label[:, -4:] == PAPER), "the label is clipped"
        outside[y : y + 106, x : x + 120] = False
    assert np.all(picture[outside] == PAPER)


@given(count=st.integers(1, 70), columns=st.integers(1, 9), aspect=st.floats(0.3, 3))
def test_cells_neither_overlap_nor_leave_the_sheet(count: int, columns: int, aspect: float) -> None:
    sheet = plan_sheet(count, aspect, columns, cell_width=40)
    covered = np.zeros((sheet.size[1], sheet.size[0]), dtype=int)
    for index in range(count):
        x, y = sheet.origin(index)
        cell = covered[y : y + sheet.cell_height + sheet.label_height, x : x + sheet.cell_width]
        assert cell.shape == (sheet.cell_height + sheet.label_height, sheet.cell_width)
        cell += 1
    assert covered.max() == 1


def test_strip_puts_frames_side_by_side() -> None:
    picture = strip([flat(RED), flat(GREEN), flat(BLUE)], 24, 18)
    assert picture.shape == (18, 72, 3)
    assert [tuple(picture[9, x]) for x in (0, 23, 24, 47, 48, 71)] == [RED, RED, GREEN, GREEN, BLUE, BLUE]


def test_alpha_blends_over_paper() -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], dtype=np.uint8)
    expected = [
        [200, 100, 0],
        list(PAPER),
        [round(0.2 * c + 0.8 * p) for c, p in zip((200, 100, 0), PAPER, strict=True)],
    ]
    np.testing.assert_array_equal(on_paper(rgba)[0], expected)


def test_normals_and_instances_have_the_stated_colours() -> None:
    normal = np.array([[[1, 0, 0], [0, 0, -1], [0, 0, 0]]], dtype=np.float32)
    np.testing.assert_array_equal(normal_colour(normal)[0], [[255, 128, 128], [128, 128, 0], PAPER])
    ids = np.array([[0, 1, 2, 1]], dtype=np.uint16)
    np.testing.assert_array_equal(instance_colour(ids)[0], [PAPER, id_colour(1), id_colour(2), id_colour(1)])


def test_first_forty_ids_have_forty_colours_that_differ() -> None:
    colours = np.array([id_colour(i) for i in range(1, 41)], dtype=int)
    distance = np.abs(colours[:, None] - colours[None]).sum(axis=-1) + 999 * np.eye(40, dtype=int)
    assert distance.min() > 20
    assert np.diag(distance, 1).min() > 120, "neighbours must be far apart"


def moving_square(count: int = 7) -> list[np.ndarray]:
    frames = []
    for index in range(count):
        frame = np.full((60, 80, 3), PAPER, dtype=np.uint8)
        frame[20:40, 8 * index + 4 : 8 * index + 20] = (30 * index, 90, 200 - 20 * index)
        frames.append(frame)
    return frames


@pytest.mark.parametrize(("there_and_back", "count"), [(False, 7), (True, 12)])
def test_gif_loops_for_ever_with_all_frames_in_order(tmp_path: Path, there_and_back: bool, count: int) -> None:
    path = tmp_path / "a.gif"
    assert animation.write_gif(path, moving_square(), there_and_back) == count
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.info["loop"], gif.info["duration"]) == (count, 0, animation.FRAME_MS)
        shown = []
        for index in range(count):
            gif.seek(index)
            frame = np.asarray(gif.convert("RGB")).astype(int)
            assert tuple(frame[0, 0]) == PAPER
            columns = np.nonzero(np.abs(frame[frame.shape[0] // 2] - PAPER).sum(axis=-1) > 120)[0]
            shown.append(round((columns.mean() * 80 / frame.shape[1] - 11.5) / 8))
    order = [0, 1, 2, 3, 4, 5, 6]
    assert shown == (order + order[-2:0:-1] if there_and_back else order)


def test_gif_keeps_colours(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:90, 0:120]
    ball = (rows - 45) ** 2 + (columns - 60) ** 2 < 38**2
    shade = np.clip(1 - ((rows - 30) ** 2 + (columns - 45) ** 2) / 4000, 0.1, 1)[..., None]
    frame = np.where(ball[..., None], shade * [220, 140, 60], PAPER).astype(np.uint8)
    path = tmp_path / "a.gif"
    animation.write_gif(path, [frame, frame[:, ::-1]], there_and_back=False)
    with Image.open(path) as gif:
        shown = np.asarray(gif.convert("RGB").resize((120, 90), Image.Resampling.BOX)).astype(float)
    inner = (rows - 45) ** 2 + (columns - 60) ** 2 < 34**2  # away from the resized edge
    assert 10 * np.log10(255**2 / np.mean((shown - frame)[inner] ** 2)) > 38


def test_large_gif_is_narrowed_until_it_fits(tmp_path: Path) -> None:
    noise = [np.random.default_rng(i).integers(0, 255, (90, 90, 3), dtype=np.uint8) for i in range(2)]
    path = tmp_path / "a.gif"
    animation.write_gif(path, noise, there_and_back=False, max_bytes=40_000)
    assert path.stat().st_size <= 40_000
    with Image.open(io.BytesIO(path.read_bytes())) as gif:
        assert animation.SMALLEST_WIDTH <= gif.width < animation.START_WIDTH
        assert gif.n_frames == 2
