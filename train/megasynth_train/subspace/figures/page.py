"""The report of a subspace analysis: figures as PNG and SVG files, tables, and one page that reads without network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.pages.template import render, require_report_libraries
from megasynth_attr.core.temporary import replacing_folder
from megasynth_train.subspace.analysis import Analysis
from megasynth_train.subspace.figures.adapters import draw_coherence, draw_drift, draw_energy, draw_weights
from megasynth_train.subspace.figures.canvas import Drawing, figure_style, short
from megasynth_train.subspace.figures.chance import Chance
from megasynth_train.subspace.figures.halves import draw_halves
from megasynth_train.subspace.figures.layout import places, spread
from megasynth_train.subspace.figures.numbers import (
    AttributeNumbers,
    PairNumbers,
    SplitNumbers,
    attribute_numbers,
    pair_numbers,
    split_numbers,
)
from megasynth_train.subspace.figures.overlap import draw_joint, draw_lambdas, draw_maps
from megasynth_train.subspace.figures.ranks import draw_ranks
from megasynth_train.subspace.figures.spectra import draw_spectra
from megasynth_train.subspace.figures.tables import adapter_numbers, kind_numbers, write_tables
from megasynth_train.subspace.figures.words import (
    CAVEAT,
    INDEX,
    basis_energy,
    facts,
    findings,
    what_was_mined,
)


@dataclass(frozen=True)
class Drawings:
    """All figures of a report, by section of the page."""

    spectra: dict[str, tuple[Drawing, ...]]
    adapters: tuple[Drawing, ...]
    energy: tuple[Drawing, ...]
    halves: tuple[Drawing, ...]
    lambdas: tuple[Drawing, ...]
    maps: tuple[Drawing, ...]
    joint: tuple[Drawing, ...]
    ranks: tuple[Drawing, ...]


TEMPLATES = Path(__file__).parent / "templates"


def write_report(analysis: Analysis, folder: Path) -> Path:
    """Write the report into ``folder`` (which is replaced as a whole) and return its index.html.

    Needs nothing but the analysis. Raises EnvironmentProblem if matplotlib or jinja2 is missing or the disk refuses.
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
    drawings = _draw(analysis, numbers, pairs, splits, chance, folder / "figures")
    files = write_tables(analysis, pairs, splits, folder)
    text = render(
        TEMPLATES,
        "analysis.html",
        analysis=analysis,
        numbers=numbers,
        pairs=pairs,
        splits=splits,
        adapters=adapter_numbers(analysis),
        kinds=kind_numbers(analysis, place.rows),
        concatenation={
            field: spread(getattr(row, field) for row in analysis.concatenation)
            for field in ("dimension", "dropped", "smallest_singular_out", "smallest_singular_in")
        },
        drawings=drawings,
        files=files,
        lead=what_was_mined(analysis, numbers),
        findings=findings(numbers, pairs, splits),
        facts=facts(analysis, numbers),
        caveat=CAVEAT,
        short=short,
        basis_energy=basis_energy,
        settings=json.dumps(
            {"mining": analysis.settings, "base": analysis.base, "versions": analysis.versions},
            indent=1,
            sort_keys=True,
        ),
    )
    # A name that is no text (surrogates from a folder's bytes) becomes character references
    (folder / INDEX).write_bytes(text.encode("utf-8", errors="xmlcharrefreplace"))


def _draw(
    analysis: Analysis,
    numbers: tuple[AttributeNumbers, ...],
    pairs: tuple[PairNumbers, ...],
    splits: tuple[SplitNumbers, ...],
    chance: Chance,
    folder: Path,
) -> Drawings:
    place = places(analysis)
    with figure_style():
        return Drawings(
            spectra=draw_spectra(analysis, place, folder),
            adapters=(
                *draw_coherence(analysis, numbers, folder),
                *draw_weights(analysis, numbers, folder),
                *draw_drift(analysis, folder),
            ),
            energy=draw_energy(analysis, numbers, folder),
            halves=draw_halves(splits, folder),
            lambdas=draw_lambdas(analysis, pairs, place, chance, folder),
            maps=draw_maps(pairs, place, folder),
            joint=draw_joint(analysis, pairs, chance, folder),
            ranks=draw_ranks(analysis, numbers, place, folder),
        )
