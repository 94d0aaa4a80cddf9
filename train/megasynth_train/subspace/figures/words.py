"""The findings of an analysis in a few sentences, and its chapter of the summary page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megasynth_attr.core.pages.chapters import Chapter, Link, Picture, Table
from megasynth_attr.core.pages.words import count_text, short, table_text
from megasynth_train.subspace.analysis import FILE, Analysis
from megasynth_train.subspace.figures.evidence import BASES, HeldOutNumbers, medians
from megasynth_train.subspace.figures.layout import module_count, quantiles
from megasynth_train.subspace.figures.numbers import (
    AttributeNumbers,
    PairNumbers,
    SplitNumbers,
    attribute_numbers,
    pair_numbers,
    split_numbers,
)
from megasynth_train.subspace.null_angles import Chance

REPORT, INDEX = "report", "index.html"
_PICTURES = (
    ("halves", "Do halves of the adapters give the same subspace? Grey marks: chance."),
    ("energy", "Share of the adapters' energy inside their basis. Dashed: unrelated adapters; dotted: a random basis."),
    ("significant", "How many directions of the mean update exceed chance, by depth and kind of layer."),
    ("joint_cosines", "Largest cosines between the operators of two attributes. Dashed: chance."),
)
CAVEAT = (
    "Overlap alone does not show how useful a basis is; only a comparison on held-out data does. Layers of one model "
    "are not independent of each other, so spreads over layers are not confidence intervals."
)


def what_was_mined(analysis: Analysis, numbers: Sequence[AttributeNumbers]) -> str:
    """Return one sentence: adapters, attributes, layers."""
    counts = sorted({n.adapters for n in numbers})
    each = f"{counts[0]} each" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} each"
    attributes = count_text(len(numbers), "attribute") + (f" ({each})" if len(numbers) > 1 else "")
    return (
        f"{count_text(len(analysis.adapters), 'adapter')} of {attributes}, mined in "
        f"{count_text(module_count(analysis), 'layer')}."
    )


def findings(
    numbers: Sequence[AttributeNumbers],
    pairs: Sequence[PairNumbers],
    splits: Sequence[SplitNumbers],
    held_out: Sequence[HeldOutNumbers] = (),
) -> tuple[str, ...]:
    """Return what was found, one sentence each, every number with its chance level."""
    texts = (_shared(numbers), _coherent(numbers), _outside(held_out), _halves(splits), _overlap(pairs))
    return tuple(text for text in texts if text is not None)


def _outside(held_out: Sequence[HeldOutNumbers]) -> str | None:
    bases = [name for name in BASES if any(n.basis == name for n in held_out)]
    if not bases:
        return None
    found = ", ".join(f"{medians(held_out, basis)} ({BASES[basis]})" for basis in bases)
    return (
        f"Of an adapter's energy, bases mined without it hold, on the output and the input side: {found}; chance gives "
        f"{medians(held_out, bases[-1], '_chance')}."
    )


def _shared(numbers: Sequence[AttributeNumbers]) -> str | None:
    alone = [n.name for n in numbers if n.adapters < 2]
    if not alone:
        return None
    of = (
        "every attribute has"
        if len(alone) == len(numbers)
        else f"{', '.join(alone)} {'has' if len(alone) == 1 else 'have'}"
    )
    return f"A single adapter does not show what adapters share: {of} only one."


def _coherent(numbers: Sequence[AttributeNumbers]) -> str | None:
    several = [n for n in numbers if n.coherence.median is not None]
    if not several:
        return None
    by_chance = max(n.coherence_chance or 0.0 for n in several)
    found = ", ".join(f"{short(n.coherence.median)} ({n.name})" for n in several)
    return (
        f"Two adapters of one attribute have a cosine of {found} (median over the layers; by chance 0 ± "
        f"{short(by_chance)})."
    )


def _halves(splits: Sequence[SplitNumbers]) -> str | None:
    same = [n for n in splits if n.same and n.out.count]
    cross = [n for n in splits if not n.same and n.out.count]
    if not same:
        return None
    # Both sides together: medians of medians
    of_one = quantiles(median for n in same for median in (n.out.median, n.inner.median)).median or 0.0
    of_two = quantiles(median for n in cross for median in (n.out.median, n.inner.median)).median
    chance = quantiles(m for n in same + cross for m in (n.out_chance.median, n.inner_chance.median))
    text = (
        f"In {same[0].layers}, bases from two halves of one attribute's adapters overlap by {short(of_one)} (mean cos²)"
    )
    if cross:
        text += f", halves of two attributes by {short(of_two)}"
    text += f"; chance gives {short(chance.median)}."
    if of_two is not None and of_one <= of_two:
        text += (
            " Halves of one attribute are thus no closer than halves of two: the attributes show no distinct subspaces."
        )
    return text


def _overlap(pairs: Sequence[PairNumbers]) -> str | None:
    pairs = [pair for pair in pairs if pair.layers]
    if not pairs:
        return None
    ratios = [
        quantiles(r for layer in pair.layers for r in (layer.lambda_out_ratio, layer.lambda_in_ratio)) for pair in pairs
    ]
    text = ", ".join(f"{short(ratio.median)} ({pair.name})" for ratio, pair in zip(ratios, pairs, strict=True))
    return f"Smallest λ of two attributes ÷ chance, median over layers and sides (below 1: closer than chance): {text}."


def chapter(analysis: Analysis, folder: Path) -> Chapter:
    """Return the summary's section of an analysis, for ``folder``/chapter.json.

    It links analysis.json, and the report's page and pictures if they are in ``folder``/report; without a report it has
    only tables.
    """
    numbers, pairs, splits = attribute_numbers(analysis), pair_numbers(analysis, Chance()), split_numbers(analysis)
    # The summary has room for two sentences: the strongest finding, and what limits it
    found = [text for text in (_shared(numbers), _halves(splits) or _overlap(pairs)) if text is not None]
    pictures = tuple(
        Picture(f"{REPORT}/figures/{stem}.png", caption, f"{caption} The numbers are in the tables of the report.")
        for stem, caption in _PICTURES
        if (folder / REPORT / "figures" / f"{stem}.png").is_file()
    )
    links = [Link("All figures: spectra, overlaps, drift, ranks", f"{REPORT}/{INDEX}")]
    if not (folder / REPORT / INDEX).is_file():
        links = []
    return Chapter(
        "Attribute subspaces",
        " ".join([what_was_mined(analysis, numbers), *found]),
        facts(analysis, numbers),
        pictures,
        tuple(table for table in (_attribute_table(numbers), _pair_table(pairs)) if table.rows),
        (*links, Link("All numbers (JSON)", FILE)),
        CAVEAT,
    )


def summary(analysis: Analysis) -> str:
    """Return the tables of the chapter and the notes as text for a terminal."""
    tables = (_attribute_table(attribute_numbers(analysis)), _pair_table(pair_numbers(analysis, Chance())))
    parts = [f"{table.caption}\n{table_text([table.columns, *table.rows])}\n" for table in tables if table.rows]
    return "\n".join([*parts, *(f"note: {note}" for note in analysis.notes)])


def facts(analysis: Analysis, numbers: Sequence[AttributeNumbers]) -> tuple[tuple[str, str], ...]:
    """Return label and value of the most important facts."""
    settings = analysis.settings
    dimensions = [d for n in numbers for d in n.dimension]
    low, high = min(dimensions, default=0), max(dimensions, default=0)
    return (
        ("Adapters", str(len(analysis.adapters))),
        ("Layers", str(module_count(analysis))),
        ("Dimensions", str(low) if low == high else f"{low}–{high}"),
        ("Extractor", str(settings.get("extractor", "–"))),
        ("Allocation", str(settings.get("allocation", "–"))),
        ("Base model", str(analysis.base.get("size") or "–")),
    )


def _attribute_table(numbers: Sequence[AttributeNumbers]) -> Table:
    return Table(
        "Medians over the layers",
        ("Attribute", "Adapters", "Cosine of two adapters", "Directions above chance", "Energy in the basis"),
        tuple(
            (
                n.name,
                str(n.adapters),
                short(n.coherence.median),
                short(n.significant.median),
                short(n.basis_energy.median),
            )
            for n in numbers
        ),
    )


def _pair_table(pairs: Sequence[PairNumbers]) -> Table:
    return Table(
        "Pairs of attributes, medians over the layers, ÷ chance (λ below 1: closer; energy above 1: more overlap)",
        ("Pair", "Layers", "λ min, outputs", "λ min, inputs", "Energy overlap"),
        tuple(
            (
                pair.name,
                f"{len(pair.layers)} of {pair.of_layers}",
                *(
                    f"×{short(pair.over_layers(field).median)}"
                    for field in ("lambda_out_ratio", "lambda_in_ratio", "energy_ratio")
                ),
            )
            for pair in pairs
            if pair.layers
        ),
    )
