"""index.html of a comparison: tables, pictures and links to the point clouds, from files beside it, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megasynth_attr.core.pages import template
from megasynth_train.compare import table as words
from megasynth_train.compare.manifest import notes_of
from megasynth_train.compare.statistics import METRICS
from megasynth_train.compare.text import caveat, differences_by_method, lead

if TYPE_CHECKING:
    from megasynth_train.compare.report import Report

TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """Return the page."""

    from megasynth_train.compare.report import facts, point_page

    results, table = report.results, report.table
    return template.render(
        TEMPLATES,
        "comparison.html",
        name=report.out.name,
        lead=lead(results, table),
        caveat=caveat(results, table, report.manifest["scenes"]["test"], notes_of(report.manifest)),
        facts=facts(report),
        header=words.header(table),
        rows=words.cells(table),
        reference=table.reference,
        metric_names=[f"{metric.name} {metric.arrow}" for metric in METRICS],
        differences=differences_by_method(table) if table.differences else [],
        signed=words.signed,
        interval=words.interval_words,
        pictures=report.pictures,
        clouds=[
            (method, [(row.seed, point_page(report, row)) for row in results.of(method)]) for method in results.methods
        ],
        missing=[(words.run_words(one.method, one.seed), one.reason) for one in results.missing],
        uneven=[(words.run_words(row.method, row.seed), row.excluded) for row in results.uneven],
        common=len(results.scenes),
        seen=report.manifest["scenes"]["seen"],
        meanings=[(f"{m.name} {m.arrow}", words.meaning(m, results.alignment)) for m in METRICS],
    )
