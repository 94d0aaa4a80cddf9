"""The report of a subspace analysis: figures as PNG and SVG files, tables, and one page that works offline."""

from __future__ import annotations

import json
from pathlib import Path

from megasynth_attr.core.pages.figures import figure_style
from megasynth_attr.core.pages.template import render, require_report_libraries
from megasynth_attr.core.temporary import replacing_folder
from megasynth_train.subspace.analysis import Analysis
from megasynth_train.subspace.figures.adapters import draw_coherence, draw_drift, draw_energy, draw_weights
from megasynth_train.subspace.figures.evidence import (
    BASES,
    draw_alike,
    draw_held_out,
    draw_mean_share,
    draw_tests,
    held_out_numbers,
)
from megasynth_train.subspace.figures.layout import places, quantiles
from megasynth_train.subspace.figures.numbers import attribute_numbers, pair_numbers, split_numbers
from megasynth_train.subspace.figures.overlap import draw_halves, draw_joint, draw_lambdas, draw_maps
from megasynth_train.subspace.figures.spectra import draw_ranks, draw_spectra
from megasynth_train.subspace.figures.tables import adapter_numbers, kind_numbers, write_tables
from megasynth_train.subspace.figures.words import CAVEAT, INDEX, facts, findings, what_was_mined
from megasynth_train.subspace.null_angles import Chance

TEMPLATES = Path(__file__).parent / "templates"


def write_report(analysis: Analysis, folder: Path) -> Path:
    """Write the report into ``folder`` (which is replaced as a whole) and return its index.html.

    Needs only the analysis. Raises EnvironmentProblem if matplotlib or jinja2 is missing or writing fails.
    """
    require_report_libraries()
    folder = Path(folder).resolve()
    with replacing_folder(folder, "the report") as new:
        (new / "figures").mkdir()
        _fill(analysis, new)
    return folder / INDEX


def _fill(analysis: Analysis, folder: Path) -> None:
    chance = Chance()
    numbers, pairs, splits = attribute_numbers(analysis), pair_numbers(analysis, chance), split_numbers(analysis)
    place = places(analysis)
    held_out = held_out_numbers(analysis, place.kinds)
    figures = folder / "figures"
    with figure_style():
        drawings = {
            "spectra": draw_spectra(analysis, place, figures),
            "adapters": (
                *draw_coherence(analysis, numbers, figures),
                *draw_weights(analysis, numbers, figures),
                *draw_drift(analysis, figures),
            ),
            "energy": draw_energy(analysis, numbers, figures),
            "held_out": draw_held_out(held_out, analysis, figures),
            "means": (*draw_mean_share(analysis, place, figures), *draw_alike(analysis, figures)),
            "halves": draw_halves(splits, figures),
            "lambdas": draw_lambdas(pairs, place, chance, figures),
            "maps": draw_maps(pairs, place, figures),
            "joint": draw_joint(pairs, chance, figures),
            "ranks": (*draw_tests(analysis, figures), *draw_ranks(analysis, numbers, place, figures)),
        }
    files = write_tables(analysis, pairs, splits, folder)
    text = render(
        TEMPLATES,
        "analysis.html",
        analysis=analysis,
        numbers=numbers,
        pairs=pairs,
        splits=splits,
        held_out=held_out,
        bases=BASES,
        adapters=adapter_numbers(analysis),
        kinds=kind_numbers(analysis, place.rows),
        concatenation={
            field: quantiles(getattr(row, field) for row in analysis.concatenation)
            for field in ("dimension", "dropped", "smallest_singular_out", "smallest_singular_in")
        },
        drawings=drawings,
        files=files,
        lead=what_was_mined(analysis, numbers),
        findings=findings(numbers, pairs, splits, held_out),
        facts=facts(analysis, numbers),
        caveat=CAVEAT,
        settings=json.dumps(
            {"mining": analysis.settings, "base": analysis.base, "versions": analysis.versions},
            indent=1,
            sort_keys=True,
        ),
    )
    # Undecodable bytes of file names (surrogates) become character references
    (folder / INDEX).write_bytes(text.encode("utf-8", errors="xmlcharrefreplace"))
