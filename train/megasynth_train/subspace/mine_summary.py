"""What mining found, in a few lines for the terminal; the report has all of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from megasynth_attr.core.pages.words import short, table_text
from megasynth_train.subspace.analysis import Analysis, LayerRow, PairRow
from megasynth_train.subspace.null_angles import expected_energy_overlap

ATTRIBUTE_COLUMNS = (
    "attribute", "adapters", "layers", "dimensions", "coherence", "above the null", "energy inside", "by chance",
)  # fmt: skip
PAIR_COLUMNS = ("pair", "layers", "smallest angle out", "in", "energy of 1st in 2nd", "of 2nd in 1st")


def summary(analysis: Analysis) -> str:
    """Return a table of the attributes, one of their pairs, and the notes; numbers are medians over the layers."""
    parts = [table_text([ATTRIBUTE_COLUMNS, *(_attribute_row(analysis, name) for name in analysis.attributes)])]
    pairs = dict.fromkeys((row.first, row.second) for row in analysis.pairs)
    if pairs:
        parts.append(table_text([PAIR_COLUMNS, *(_pair_row(analysis.pairs, *pair) for pair in pairs)]))
    parts += [f"note: {note}" for note in analysis.notes]
    return "\n".join(parts)


def _attribute_row(analysis: Analysis, name: str) -> tuple[str, ...]:
    rows = [row for row in analysis.layers if row.attribute == name]
    used = [row for row in rows if row.extractors]
    count = len(rows[0].norms)
    return (
        name,
        str(count),
        str(len(rows)),
        str(sum(row.dimension for row in rows)),
        _median(_mean_cosine(row) for row in rows) if count > 1 else "",
        _median(row.significant for row in rows),
        _median(float(np.mean(row.extractors[0].energy_inside)) for row in used),
        _median(expected_energy_overlap(row.outputs, row.inputs, row.dimension, row.dimension) for row in used),
    )


def _mean_cosine(row: LayerRow) -> float:
    cosines = np.array(row.coherence)
    return float(cosines[~np.eye(len(cosines), dtype=bool)].mean())


def _pair_row(pairs: Sequence[PairRow], first: str, second: str) -> tuple[str, ...]:
    rows = [row for row in pairs if (row.first, row.second) == (first, second)]
    both = [row for row in rows if row.angles_out_deg and row.angles_in_deg]  # both attributes have dimensions
    return (
        f"{first}, {second}",
        f"{len(both)} of {len(rows)}",
        _median((row.angles_out_deg[0] for row in both), "°"),
        _median((row.angles_in_deg[0] for row in both), "°"),
        _median(row.energy_first_in_second for row in both),
        _median(row.energy_second_in_first for row in both),
    )


def _median(values: Iterable[float | None], unit: str = "") -> str:
    known = [value for value in values if value is not None]
    return f"{short(float(np.median(known)))}{unit}" if known else ""
