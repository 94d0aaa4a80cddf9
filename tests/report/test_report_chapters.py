"""Chapters of the training half on the summary page: in order, complete, escaped, and honest about what is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from test_report_browser import browser, probe  # noqa: F401  (the fixture, and what it does)
from test_report_page import Links, text_of

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.pages.chapters import Chapter, ChapterPlace, Link, Picture, Table, read_chapter, write_chapter
from megasynth_attr.report.page import read_chapters, write_report

PLACES = (
    ChapterPlace("training/pretrain"),
    ChapterPlace("training/cluster", "Does it learn?"),
    ChapterPlace("training/subspaces"),
)
WIDE = Table("Numbers <of> it", tuple(f"column {i} of many" for i in range(9)), (("row", *(["1.2345 ± 0.1234"] * 8)),))


def add_chapter(out: Path, name: str, section: str = "training") -> Chapter:
    """Write a chapter with a picture, a table and a link into ``out/<section>/<name>``."""
    folder = out / section / name
    folder.mkdir(parents=True)
    Image.new("RGB", (800, 400), "teal").save(folder / "curves.png")
    (folder / "index.html").write_text("<!doctype html><title>all</title>")
    chapter = Chapter(
        title=f"Title of {name}",
        lead=f"Lead of {name} & more.",
        facts=(("Adapters", "8 of 8"),),
        pictures=(Picture("curves.png", f"Caption of {name}.", f"Curves of {name} fall."),),
        tables=(WIDE,),
        links=(Link(f"All about {name}", "index.html"),),
        caveat=f"Limits of {name}.",
    )
    write_chapter(folder, chapter)
    assert read_chapter(folder) == chapter
    return chapter


@pytest.fixture
def out(experiment: Path, tmp_path: Path) -> Path:
    """One dataset and three chapters, and a folder that is none."""
    shutil.copytree(experiment / "texture_00", tmp_path / "texture_00")
    for name in ("subspaces", "another", "cluster"):
        add_chapter(tmp_path, name)
    (tmp_path / "training/comparison/runs").mkdir(parents=True)
    return tmp_path


def test_chapters_stand_in_the_pipelines_order_and_say_everything(out: Path) -> None:
    add_chapter(out, "cluster", section="elsewhere")
    page = write_report(out, chapters=PLACES, progress=False)
    text = text_of(page)
    assert text.index("Does it learn?") < text.index("Lead of cluster")
    places = [text.index(f"Lead of {name} & more.") for name in ("cluster", "subspaces", "another")]
    assert places == sorted(places) and places[0] > text.index("Isolation matrix")
    assert text.count("Lead of cluster & more.") == 2  # two stages may use one name
    for words in ("Caption of cluster.", "8 of 8", "Numbers <of> it", "1.2345 ± 0.1234", "Limits of subspaces."):
        assert words in text
    assert "What this cannot show." in text and "is no longer there" not in text
    links = Links(page)
    assert not links.undescribed and {a[1:] for a in links.anchors} <= links.ids
    names = ("training-cluster", "training-subspaces", "elsewhere-cluster", "training-another")
    assert set(names) <= links.ids
    for link in links.files:
        assert (page.parent / link).resolve().is_file(), link
    assert 'alt="Curves of cluster fall."' in page.read_text(encoding="utf-8")


def test_without_chapters_the_page_does_not_speak_of_training(index: Path) -> None:
    assert read_chapters(index.parents[1]) == []
    assert "adapt" not in text_of(index)


def test_what_is_gone_is_said_and_not_linked(out: Path) -> None:
    (out / "training/cluster/index.html").unlink()
    (out / "training/cluster/curves.png").unlink()
    page = write_report(out, progress=False)
    assert text_of(page).count("is no longer there") == 2
    for link in Links(page).files:
        assert (page.parent / link).resolve().is_file(), link


def test_a_damaged_chapter_is_named_and_the_old_report_stays(out: Path) -> None:
    page = write_report(out, progress=False)
    before = page.read_bytes()
    (out / "training/cluster/chapter.json").write_text('{"format": "megasynth-attr chapter 1", "chapter": {}}')
    with pytest.raises(DatasetError, match=r"cluster/chapter\.json"):
        write_report(out, progress=False)
    assert page.read_bytes() == before


def test_datasets_for_the_comparison_are_marked(out: Path) -> None:
    (out / "experiment.json").write_text('{"format": "megasynth-attr experiment 1", "downstream": ["texture"]}')
    assert "for the comparison" in text_of(write_report(out, progress=False))


def test_chapters_on_a_phone(browser: str, out: Path, tmp_path: Path) -> None:  # noqa: F811
    seen = probe(browser, write_report(out, progress=False), tmp_path, 390)
    assert seen["page"] <= 390 and seen["wide"] == []
    assert all(width > 0 for _, width, _ in seen["images"])
    assert max(shown for source, _, shown in seen["images"] if source.endswith("curves.png")) > 300
