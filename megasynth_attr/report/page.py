"""The report: one page of pictures and facts per dataset, and one that compares them. Works from files, offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from megasynth_attr.core.names import inside
from megasynth_attr.core.pages.chapters import FILE, Chapter, ChapterPlace, read_chapter
from megasynth_attr.core.pages.template import render, require_report_libraries
from megasynth_attr.core.temporary import replacing_folder
from megasynth_attr.dataset.paths import DATASET_FILE, REPORT, VIEW
from megasynth_attr.dataset.reader import Dataset, downstream_attributes, open_dataset, open_experiment
from megasynth_attr.report.facts import Facts, hash_rows, licence_counts, read_facts, settings_text
from megasynth_attr.report.figures import save_isolation
from megasynth_attr.report.images import id_colour
from megasynth_attr.report.pictures import (
    STEPS,
    Limits,
    Pictures,
    draw_dataset,
)

TEMPLATES = Path(__file__).parent / "templates"
INDEX = "index.html"


@dataclass(frozen=True)
class DatasetPage:
    """A written page: its facts and pictures, for the summary. ``pictures`` is None if no scene is complete."""

    facts: Facts
    pictures: Pictures | None


@dataclass(frozen=True)
class ChapterPart:
    """A chapter of the summary: its place, and its pictures, tables and links as the summary refers to them."""

    place: ChapterPlace
    chapter: Chapter
    missing: tuple[str, ...]  # files it names that are not there

    @property
    def name(self) -> str:
        """Return the name of the chapter's anchor on the page; no two chapters share one."""
        return self.place.folder.replace("/", "-")

    @property
    def question(self) -> str:
        return self.place.question

    def address(self, file: str) -> str:
        """Return a file of the chapter as seen from the summary."""
        return f"../{self.place.folder}/{file}"


def write_report(
    out: Path, *, chapters: Sequence[ChapterPlace] = (), limits: Limits | None = None, progress: bool = True
) -> Path:
    """Write ``<dataset>/report/`` for every dataset of ``out`` and ``<out>/report/``; return the summary's index.html.

    ``out`` may also be one dataset's folder: then only its page is written, and returned. An older report is replaced
    as a whole. Stages that have not run are named on the page. ``chapters``: where other stages may have written one,
    in reading order; chapters found elsewhere follow. Raises DatasetError if ``out`` holds no dataset or a file of one
    is damaged, EnvironmentProblem if matplotlib or jinja2 is missing or the report cannot be written.
    """
    require_report_libraries()
    out, limits = Path(out), limits or Limits()
    single = (out / DATASET_FILE).is_file()
    datasets = [open_dataset(out)] if single else open_experiment(out)
    with tqdm(total=STEPS * len(datasets), desc="report", unit="picture", disable=not progress) as bar:
        pages = [_write_dataset(dataset, limits, bar, has_summary=not single) for dataset in datasets]
    if single:
        return out / REPORT / INDEX
    return _write_summary(out, pages, chapters)


def _write_dataset(dataset: Dataset, limits: Limits, bar: Any, has_summary: bool) -> DatasetPage:
    facts = read_facts(dataset)
    bar.set_postfix_str(facts.name)
    with replacing_folder(dataset.path / REPORT, "the report") as folder:
        pictures = None
        if facts.scene_indices:
            pictures = draw_dataset(dataset, facts, folder, limits, bar.update)
        else:
            bar.update(STEPS)
        if facts.isolation is not None:
            save_isolation(folder / "isolation.png", [facts], facts.factors)
        scenes, rows = hash_rows(facts, limits.hash_scenes)
        text = render(
            TEMPLATES,
            "dataset.html",
            facts=facts,
            pictures=pictures,
            hash_scenes=scenes,
            hash_rows=rows,
            licences=licence_counts(facts.materials),
            hash_colour=lambda rank: "rgb({}, {}, {})".format(*id_colour(rank + 1)),
            settings=settings_text(facts.record["config"]),
            views=sorted(path.name for path in (dataset.path / VIEW).glob("*.html")),
            summary=f"../../{REPORT}/{INDEX}" if has_summary else None,
        )
        (folder / INDEX).write_text(text, encoding="utf-8")
    return DatasetPage(facts, pictures)


def _write_summary(out: Path, pages: Sequence[DatasetPage], chapters: Sequence[ChapterPlace]) -> Path:
    measured = [page.facts for page in pages if page.facts.isolation is not None]
    factors = tuple(dict.fromkeys(factor for page in pages for factor in page.facts.factors))
    references = sorted({str(p.facts.isolation["reference"]) for p in pages if p.facts.isolation is not None})
    pages = sorted(pages, key=lambda page: ([factors.index(f) for f in page.facts.varying], page.facts.name))
    with replacing_folder(out / REPORT, "the report") as folder:
        if measured:
            save_isolation(folder / "isolation.png", measured, factors)
        text = render(
            TEMPLATES,
            "summary.html",
            name=out.resolve().name,
            pages=pages,
            measured=measured,
            references=references,
            factors=factors,
            missing_isolation=[page.facts.name for page in pages if page.facts.isolation is None],
            scenes=sum(len(page.facts.scene_indices) for page in pages),
            frames=sum(page.facts.frames for page in pages),
            size_bytes=sum(page.facts.size_bytes for page in pages),
            parts=read_chapters(out, chapters),
            downstream=downstream_attributes(out),
        )
        (folder / INDEX).write_text(text, encoding="utf-8")
    return out / REPORT / INDEX


def read_chapters(out: Path, places: Sequence[ChapterPlace] = ()) -> list[ChapterPart]:
    """Return the chapters at ``places``, then all others, by folder; DatasetError if one is damaged."""
    known = {place.folder: place for place in places}
    others = sorted(file.parent.relative_to(out).as_posix() for file in out.glob(f"*/*/{FILE}"))
    parts = []
    for place in (known | {name: ChapterPlace(name) for name in others if name not in known}).values():
        folder = out / place.folder
        if (chapter := read_chapter(folder)) is not None:
            files = [picture.file for picture in chapter.pictures] + [link.file for link in chapter.links]
            missing = tuple(file for file in files if not inside(folder, file, str(folder / FILE)).is_file())
            parts.append(ChapterPart(place, chapter, missing))
    return parts
