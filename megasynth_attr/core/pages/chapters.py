"""Chapters: what a stage that is not built in adds to an experiment's summary page, as plain files.

A chapter is a folder with ``chapter.json`` and the pictures and pages it names. The report reads these files only, so
it needs nothing from the part that wrote them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.codec import from_plain, to_plain
from megasynth_attr.core.files import json_bytes, read_json
from megasynth_attr.core.temporary import replace_atomically

FILE = "chapter.json"
FORMAT = "megasynth-attr chapter 1"


@dataclass(frozen=True)
class Picture:
    """A picture file beside chapter.json; ``alt`` says in words what a person would see."""

    file: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """A small table of words; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Link:
    """A page or file beside chapter.json."""

    text: str
    file: str


@dataclass(frozen=True)
class Chapter:
    """One section of the summary page."""

    title: str
    lead: str  # one or two sentences: what was done and found
    facts: tuple[tuple[str, str], ...] = ()  # label, value
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    links: tuple[Link, ...] = ()
    caveat: str = ""  # what it does not show


@dataclass(frozen=True)
class ChapterPlace:
    """Where a stage of the pipeline may have written a chapter, and the question it answers, for a new reader."""

    folder: str  # below the output folder
    question: str = ""


def write_chapter(folder: Path, chapter: Chapter) -> Path:
    """Write ``chapter.json`` into ``folder`` whole or not at all; return its path."""
    path = folder / FILE
    replace_atomically(path, json_bytes({"format": FORMAT, "chapter": to_plain(chapter)}))
    return path


def read_chapter(folder: Path) -> Chapter | None:
    """Return the folder's chapter, or None if there is none; DatasetError if it is damaged."""
    path = folder / FILE
    if not path.is_file():
        return None
    return from_plain(Chapter, read_json(path, FORMAT).get("chapter"), str(path))
