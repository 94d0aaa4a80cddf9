"""Writing what a comparison found.

::

    <out>/comparison.json    every run's numbers, means, spreads and paired differences
    <out>/comparison.md      the tables, also printed
    <out>/index.html         the same with pictures and links to the point clouds; <out>/pictures/
    <out>/chapter.json       its part of an experiment's summary page (megasynth_attr.core.pages.chapters)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.files import json_bytes, storage_errors
from megasynth_attr.core.pages import chapters
from megasynth_attr.core.pages.chapters import Chapter, Link, Picture
from megasynth_attr.core.pages.template import render
from megasynth_attr.core.temporary import (
    replace_atomically,
    replacing_folder,
)
from megasynth_train.compare import figures
from megasynth_train.compare.collect import PAGE, Results, Row, learning_curve
from megasynth_train.compare.manifest import notes_of, run_folder
from megasynth_train.compare.statistics import METRICS
from megasynth_train.compare.table import Table, cells, header, interval_words, make_table, meaning, run_words
from megasynth_train.compare.text import caveat, differences_by_method, lead, markdown

TEMPLATES = Path(__file__).parent / "templates"
JSON, MARKDOWN, PICTURES = "comparison.json", "comparison.md", "pictures"
FORMAT = "megasynth-attr comparison 1"
AGAINST = ("accuracy", "abs_rel")  # metrics drawn against trained numbers


@dataclass(frozen=True)
class Report:
    """A comparison's results as written."""

    out: Path
    manifest: Mapping[str, Any]
    results: Results
    table: Table
    pictures: tuple[Picture, ...]


def write_report(out: Path, manifest: Mapping[str, Any], results: Results, reference: str) -> Report:
    """Write all files, each whole or not at all, in place of older ones; EnvironmentProblem if the disk refuses."""
    table = make_table(results, reference)
    with storage_errors("the comparison", out):
        pictures = _draw(out, manifest, results, table)
        report = Report(out, manifest, results, table, pictures)
        scenes = manifest["scenes"]["test"]
        replace_atomically(out / MARKDOWN, markdown(results, table, scenes, notes_of(manifest)).encode())
        replace_atomically(out / PAGE, page(report).encode())
        replace_atomically(out / JSON, json_bytes(_record(report)))
        chapters.write_chapter(out, chapter(report))
    return report


def chapter(report: Report) -> Chapter:
    """Return what goes on the experiment's summary page."""
    results, table, manifest = report.results, report.table, report.manifest
    links = [Link("the whole comparison", PAGE), Link("all numbers as JSON", JSON)]
    for method in results.methods:
        if (clouds := point_page(report, results.of(method)[0])) is not None:
            links.append(Link(f"point clouds: {method}", clouds))
    return Chapter(
        title="Comparison of methods",
        lead=lead(results, table),
        facts=facts(report),
        pictures=report.pictures[:2],
        tables=(
            chapters.Table(
                "Mean ± standard deviation over n seeds.", tuple(header(table)), tuple(map(tuple, cells(table)))
            ),
        ),
        links=tuple(links),
        caveat=caveat(results, table, manifest["scenes"]["test"], notes_of(manifest)),
    )


def page(report: Report) -> str:
    """Return index.html: tables, pictures and links to the point clouds, from files beside it, offline."""
    results, table = report.results, report.table
    return render(
        TEMPLATES,
        "comparison.html",
        name=report.out.name,
        lead=lead(results, table),
        caveat=caveat(results, table, report.manifest["scenes"]["test"], notes_of(report.manifest)),
        facts=facts(report),
        header=header(table),
        rows=cells(table),
        reference=table.reference,
        metric_names=[f"{metric.name} {metric.arrow}" for metric in METRICS],
        differences=differences_by_method(table) if table.differences else [],
        interval=interval_words,
        pictures=report.pictures,
        clouds=[
            (method, [(row.seed, point_page(report, row)) for row in results.of(method)]) for method in results.methods
        ],
        missing=[(run_words(one.method, one.seed), one.reason) for one in results.missing],
        uneven=[(run_words(row.method, row.seed), row.excluded) for row in results.uneven],
        common=len(results.scenes),
        seen=report.manifest["scenes"]["seen"],
        meanings=[(f"{m.name} {m.arrow}", meaning(m, results.alignment)) for m in METRICS],
    )


def facts(report: Report) -> tuple[tuple[str, str], ...]:
    """Return labels and values: what was trained and measured on what."""
    scenes, identity = report.manifest["scenes"], report.manifest["identity"]
    seen = len(scenes["seen"])
    return (
        ("base model", str(identity["model.size"])),
        ("methods", str(len(report.results.methods))),
        ("seeds", ", ".join(map(str, report.manifest["seeds"]))),
        ("steps of each training", f"{identity['optim.steps']}"),
        ("training scenes", str(scenes["training"])),
        ("test scenes", f"{scenes['test']} ({seen or 'none'} trained on)"),
    )


def point_page(report: Report, row: Row) -> str | None:
    """Return the page of a run's point clouds, relative to the comparison's folder, or None if it was not written."""
    file = row.evaluation / PAGE
    return file.relative_to(report.out).as_posix() if file.is_file() else None


def _draw(out: Path, manifest: Mapping[str, Any], results: Results, table: Table) -> tuple[Picture, ...]:
    """Draw all pictures into a new folder that takes the place of the old one."""
    if not results.scenes:
        return ()
    with replacing_folder(out / PICTURES, "the comparison") as new:
        return tuple(_pictures(new, out, manifest, results, table))


def _pictures(work: Path, out: Path, manifest: Mapping[str, Any], results: Results, table: Table) -> list[Picture]:
    styles = {}
    for method in results.methods:
        record = manifest["methods"][method]
        styles[method] = figures.style_of(method, (record["adapter"] or {}).get("mode", ""), record["basis"])
    figures.save_dots(work / "methods.png", results, table, styles)
    pictures = [
        Picture(
            f"{PICTURES}/methods.png",
            "Every dot is one seed, the bar their mean. Where dots of two methods overlap, the metric tells no "
            "difference.",
            f"Five panels of dots, one row for each of {', '.join(results.methods)}",
        )
    ]
    for metric in (m for m in METRICS if m.key in AGAINST):
        figures.save_against_parameters(work / f"{metric.key}.png", table, styles, metric)
        pictures.append(
            Picture(
                f"{PICTURES}/{metric.key}.png",
                f"{metric.name} against the count of trained numbers: mean over seeds, bars ± one standard deviation. "
                "A dashed line is the base model, which trains nothing.",
                f"Scatter plot of {metric.name} by trained numbers of each method",
            )
        )
    curves = {}
    for method in results.methods:
        found = [
            learning_curve(run_folder(out, method, row.seed)) for row in results.of(method) if row.seed is not None
        ]
        if found and all(found):
            curves[method] = found
    if curves:
        figures.save_curves(work / "curves.png", curves, styles)
        pictures.append(
            Picture(
                f"{PICTURES}/curves.png",
                "The objective on training batches: mean over seeds, the band is the range of the seeds. The test "
                "scenes do not enter here.",
                f"Learning curves of {', '.join(curves)}",
            )
        )
    return pictures


def _record(report: Report) -> dict[str, Any]:
    results, table = report.results, report.table
    return {
        "format": FORMAT,
        "manifest": {key: report.manifest[key] for key in ("identity", "methods", "scenes", "seeds")},
        "notes": notes_of(report.manifest),
        "alignment": results.alignment,
        "metrics": to_plain({m.key: m for m in METRICS}),
        "rows": [_row_record(results, row, report.out) for row in results.rows],
        "methods": to_plain(table.rows),
        "reference": table.reference,
        "differences": to_plain(table.differences),
        "missing": to_plain(results.missing),
        "common_scenes": list(results.scenes),
    }  # fmt: skip


def _row_record(results: Results, row: Row, out: Path) -> dict[str, Any]:
    """Return one run with its means over the common scenes; None for a metric that a scene lacks."""
    return {
        "method": row.method,
        "seed": row.seed,
        "parameters": row.parameters,
        "parameters_total": sum(row.parameters.values()),
        "metrics": {m.key: results.values(row.method, m.key).get(row.seed) for m in METRICS},
        "seconds": row.seconds,
        "objective": row.objective,
        "skipped_steps": row.skipped_steps,
        "excluded_scenes": list(row.excluded),
        "evaluation": row.evaluation.relative_to(out).as_posix(),
    }
