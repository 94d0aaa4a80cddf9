"""Write the results of a comparison.

::

    <out>/comparison.json    every run's numbers, means, spreads and paired differences
    <out>/comparison.md      the tables, also printed
    <out>/index.html         the same with pictures and links to the point clouds; <out>/pictures/
    <out>/across/            the same about data of another domain, if there are any
    <out>/chapter.json       its part of an experiment's summary page (megasynth_attr.core.pages.chapters)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.files import json_bytes, storage_errors
from megasynth_attr.core.pages import chapters
from megasynth_attr.core.pages.chapters import Chapter, Link, Picture
from megasynth_attr.core.pages.template import render
from megasynth_attr.core.temporary import replace_atomically, replacing_folder
from megasynth_train.compare import figures
from megasynth_train.compare.collect import PAGE, Results, Row, learning_curve
from megasynth_train.compare.manifest import ACROSS, notes_of
from megasynth_train.compare.statistics import METRICS
from megasynth_train.compare.table import Table, cells, header, make_table, meaning, over_scenes
from megasynth_train.compare.text import CONTROLS_TEXT, RATES_TEXT, Trials, caveat, lead, markdown
from megasynth_train.compare.tuning import rates_table, read_trials
from megasynth_train.evaluate.protocols import NONE, PROTOCOLS

TEMPLATES = Path(__file__).parent / "templates"
JSON, MARKDOWN, PICTURES = "comparison.json", "comparison.md", "pictures"
FORMAT = "megasynth-attr comparison 1"
AGAINST = ("accuracy", "abs_rel")  # metrics drawn against trained parameters, and with their intervals
AGAINST_NAMES = tuple(metric.name for metric in METRICS if metric.key in AGAINST)


@dataclass(frozen=True)
class Report:
    """A comparison's results as written into ``out``; ``runs``: the comparison's folder, which holds the runs."""

    out: Path
    runs: Path
    manifest: Mapping[str, Any]
    results: Results
    table: Table

    @cached_property
    def trials(self) -> Trials:
        """Return the learning rates that were tried, by method."""
        return read_trials(self.runs, self.manifest)

    def point_page(self, row: Row) -> str | None:
        """Return the page of a run's point clouds, relative to ``out``, or None if it was not written."""
        file = row.evaluation / PAGE
        return _relative(file, self.out) if file.is_file() else None


def write_report(
    runs: Path,
    manifest: Mapping[str, Any],
    results: Results,
    reference: str,
    *,
    within: str = "",
    across: Report | None = None,
) -> Report:
    """Write all files, each whole or not at all, in place of older ones; EnvironmentProblem if that fails.

    ``runs``: the comparison's folder; ``within``: the folder in it that they go to, for data of another domain.
    ``across``: what was written before about such data.
    """
    out, protocol = runs / within, PROTOCOLS.get(manifest["identity"].get("test.protocol", NONE))
    report = Report(out, runs, manifest, results, make_table(results, reference, protocol))
    with storage_errors("the comparison", out):
        pictures = []
        if results.scenes:
            with replacing_folder(out / PICTURES, "the comparison") as new:
                pictures = _draw(new, report)
        text = markdown(results, report.table, manifest["scenes"]["test"], notes_of(manifest), report.trials)
        replace_atomically(out / MARKDOWN, text.encode())
        replace_atomically(out / PAGE, _page(report, _chapter(report, pictures, across), pictures).encode())
        replace_atomically(out / JSON, json_bytes(_record(report)))
        chapters.write_chapter(out, _chapter(report, pictures[:2], across))
    return report


def _chapter(report: Report, pictures: list[Picture], across: Report | None) -> Chapter:
    """Return what goes on the experiment's summary page."""
    results, table, manifest = report.results, report.table, report.manifest
    links = [Link("the whole comparison", PAGE), Link("all numbers as JSON", JSON)]
    for method in results.methods:
        if (clouds := report.point_page(results.of(method)[0])) is not None:
            links.append(Link(f"point clouds: {method}", clouds))
    tables = [_numbers(report, "Mean ± standard deviation over n seeds.")]
    if across is not None:
        tables.append(_numbers(across, "The same adapters on data of another domain, on which none was trained."))
        links.insert(1, Link("the comparison on data of another domain", f"{ACROSS}/{PAGE}"))
    return Chapter(
        title="Comparison of methods",
        lead=lead(results, table),
        facts=_facts(report),
        pictures=tuple(pictures),
        tables=tuple(tables),
        links=tuple(links),
        caveat=caveat(results, table, manifest["scenes"]["test"], notes_of(manifest), tuned=bool(report.trials)),
    )


def _numbers(report: Report, caption: str) -> chapters.Table:
    return chapters.Table(caption, tuple(header(report.table)), tuple(map(tuple, cells(report.table))))


def _page(report: Report, chapter: Chapter, pictures: list[Picture]) -> str:
    """Return index.html: tables, pictures and links to the point clouds; it needs only the files beside it."""
    return render(
        TEMPLATES,
        "comparison.html",
        name=report.out.name,
        chapter=chapter,
        pictures=pictures,
        results=report.results,
        table=report.table,
        seen=report.manifest["scenes"]["seen"],
        metrics=METRICS,
        meaning=meaning,
        over_scenes=over_scenes,
        controls_text=CONTROLS_TEXT,
        rates_text=RATES_TEXT,
        rates=rates_table(report.trials),
        point_page=report.point_page,
    )


def _facts(report: Report) -> tuple[tuple[str, str], ...]:
    """Return labels and values: what was trained and measured on what."""
    scenes, identity = report.manifest["scenes"], report.manifest["identity"]
    seen = len(scenes["seen"])
    return (
        ("base model", str(identity["model.size"])),
        ("methods", str(len(report.results.methods))),
        ("seeds", ", ".join(map(str, report.manifest["seeds"]))),
        ("steps of each training", f"{identity['optim.steps']}"),
        ("training scenes", str(scenes["training"])),
        ("test scenes", f"{scenes['test']} ({seen or 'none'} seen in training)"),
    )


def _draw(folder: Path, report: Report) -> list[Picture]:
    """Draw all pictures into ``folder`` and return them with paths relative to the comparison's folder."""
    results, table, methods = report.results, report.table, report.results.methods
    styles = {method: figures.style_of(report.manifest["methods"][method]) for method in methods}
    pictures = []

    def picture(name: str, caption: str, alt: str) -> Path:
        """Add a picture to the list and return the file to draw it into."""
        pictures.append(Picture(f"{PICTURES}/{name}.png", caption, alt))
        return folder / f"{name}.png"

    file = picture(
        "methods",
        "Every dot is one seed, the bar is their mean. Where the dots of two methods overlap, the metric does not "
        "separate them.",
        f"Five panels of dots, one row for each of {', '.join(methods)}",
    )
    figures.save_dots(file, results, table, styles)
    for metric in (m for m in METRICS if m.key in AGAINST):
        file = picture(
            metric.key,
            f"{metric.name} against the number of trained parameters: mean over seeds, bars ± one standard deviation. "
            "A dashed line is the base model, which is not trained.",
            f"Scatter plot of {metric.name} against the trained parameters of each method",
        )
        figures.save_against_parameters(file, table, styles, metric)
    for name, differences, what in (
        ("intervals", table.intervals, f"from {table.reference}"),
        ("controls", table.contrasts, "between models that are not trained"),
    ):
        if differences:
            file = picture(
                name,
                f"Differences {what} over seeds and scenes: mean, 95 % interval (thick) and the one corrected for all "
                "differences of its table (thin). If nothing differs, every thin bar crosses the dashed line at 0, "
                "and of the thick ones about one in twenty misses it.",
                f"Means and intervals of the differences {what} in {' and '.join(AGAINST_NAMES)}",
            )
            figures.save_intervals(file, differences, [m for m in METRICS if m.key in AGAINST])
    curves = {}
    for method in methods:
        found = [learning_curve(row.folder(report.runs)) for row in results.of(method) if row.seed is not None]
        if found and all(found):
            curves[method] = found
    if curves:
        file = picture(
            "curves",
            "The objective on training batches, not on the test scenes: mean over seeds, with their range as a band.",
            f"Learning curves of {', '.join(curves)}",
        )
        figures.save_curves(file, curves, styles)
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
        "intervals": to_plain(table.intervals),
        "contrasts": to_plain(table.contrasts),
        "learning_rates": to_plain(report.trials),
        "missing": to_plain(results.missing),
        "common_scenes": list(results.scenes),
    }


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _row_record(results: Results, row: Row, out: Path) -> dict[str, Any]:
    """Return one run with its means over the common scenes; None for a metric that a scene lacks."""
    return {
        **{key: getattr(row, key) for key in ("method", "seed", "parameters", "seconds", "objective", "skipped_steps")},
        "parameters_total": sum(row.parameters.values()),
        "metrics": {m.key: results.values(row.method, m.key).get(row.replicate) for m in METRICS},
        **({"left_out": row.member} if row.member else {}),
        "excluded_scenes": list(row.excluded),
        "evaluation": _relative(row.evaluation, out),
    }
