"""The tables that accompany the figures, on the page and as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_train.subspace.analysis import AdapterRow, Analysis
from megasynth_train.subspace.figures.layout import Quantiles, layers_of, quantiles
from megasynth_train.subspace.figures.numbers import PairLayer, PairNumbers, SplitNumbers


@dataclass(frozen=True)
class AdapterNumbers:
    """One adapter over all layers; ``number`` is its place on the axes of the figures."""

    number: int
    row: AdapterRow
    norm: Quantiles
    weight: Quantiles  # relative to equal weights, in the basis
    change: Quantiles
    angle: Quantiles


@dataclass(frozen=True)
class KindNumbers:
    """One kind of layer of one attribute, over the depths."""

    attribute: str
    attention: str
    kind: str
    sizes: str
    layers: int
    dimension: Quantiles
    significant: Quantiles
    effective_rank: Quantiles


def adapter_numbers(analysis: Analysis) -> tuple[AdapterNumbers, ...]:
    """Return the numbers of every adapter, attribute by attribute."""
    found = []
    for attribute in analysis.attributes:
        rows = layers_of(analysis, attribute)
        own = [adapter for adapter in analysis.adapters if adapter.attribute == attribute]
        for index, adapter in enumerate(own):
            moved = [row for row in analysis.drift if row.adapter == adapter.name]
            found.append(
                AdapterNumbers(
                    index + 1,
                    adapter,
                    quantiles(row.norms[index] for row in rows),
                    quantiles(row.extractors[0].weights[index] * len(own) for row in rows if row.extractors),
                    quantiles(row.relative_change for row in moved),
                    quantiles(row.largest_angle_deg for row in moved),
                )
            )
    return tuple(found)


def kind_numbers(analysis: Analysis, rows: Sequence[tuple[str, str]]) -> tuple[KindNumbers, ...]:
    """Return the numbers of every attribute's kinds of layers; ``rows`` are the (attention, kind) pairs in order."""
    found = []
    for attribute in analysis.attributes:
        for attention, kind in rows:
            layers = [
                row
                for row in layers_of(analysis, attribute)
                if (row.layer.attention, row.layer.kind) == (attention, kind)
            ]
            if layers:
                sizes = " or ".join(sorted({f"{row.outputs} × {row.inputs}" for row in layers}))
                measured = (
                    quantiles(getattr(r, f) for r in layers) for f in ("dimension", "significant", "effective_rank")
                )
                found.append(KindNumbers(attribute, attention, kind, sizes, len(layers), *measured))
    return tuple(found)


def write_tables(
    analysis: Analysis, pairs: Sequence[PairNumbers], splits: Sequence[SplitNumbers], folder: Path
) -> tuple[tuple[str, str], ...]:
    """Write layers.csv, and pairs.csv and halves.csv if there are any; return (file name, what is in it)."""
    written = [("layers.csv", "one line per layer and attribute", _layer_lines(analysis))]
    if pairs:
        written.append(("pairs.csv", "one line per layer and pair of attributes", _pair_lines(pairs)))
    if splits:
        written.append(("halves.csv", "one line per pair of halves", _split_lines(splits)))
    if analysis.held_out:
        written.append(("held_out.csv", "one line per layer, attribute and basis", _held_out_lines(analysis)))
    for name, _, lines in written:
        (folder / name).write_text(_csv(lines), encoding="utf-8")
    return tuple((name, meaning) for name, meaning, _ in written)


def _csv(lines: Iterable[dict[str, Any]]) -> str:
    lines = list(lines)
    text = io.StringIO()
    # Lines may differ in extractors: every column that any line has
    writer = csv.DictWriter(text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _layer_lines(analysis: Analysis) -> list[dict[str, Any]]:
    lines = []
    for row in analysis.layers:
        lines.append(
            {"attribute": row.attribute, **asdict(row.layer), "outputs": row.outputs, "inputs": row.inputs}
            | {"dimension": row.dimension, "significant": row.significant, "effective_rank": row.effective_rank}
            | {name: getattr(row, name) for name in ("significant_reweighted", "significant_normalised")}
            | {"largest_singular_value": max(row.spectrum, default=0.0)}
            | {"mean_coherence": row.mean_coherence}
            | {f"energy_{e.extractor}": float(np.mean(e.energy_inside)) for e in row.extractors if e.energy_inside}
        )
    return lines


def _held_out_lines(analysis: Analysis) -> list[dict[str, Any]]:
    return [
        {**asdict(row.layer), **{f.name: getattr(row, f.name) for f in fields(row)[1:]}} for row in analysis.held_out
    ]


def _pair_lines(pairs: Sequence[PairNumbers]) -> list[dict[str, Any]]:
    names = [field.name for field in fields(PairLayer) if field.name not in ("row", "sizes")]
    return [
        {"first": pair.first, "second": pair.second, **asdict(layer.layer)} | {n: getattr(layer, n) for n in names}
        for pair in pairs
        for layer in pair.layers
    ]


def _split_lines(splits: Sequence[SplitNumbers]) -> list[dict[str, Any]]:
    return [
        {"first": n.first, "second": n.second, "layers_and_splits": n.out.count}
        | {f"{side}_{what}": getattr(s, what) for side, s in _sides(n) for what in ("median", "low", "high")}
        | {"outputs_chance": n.out_chance.median, "inputs_chance": n.inner_chance.median}
        for n in splits
    ]


def _sides(numbers: SplitNumbers) -> tuple[tuple[str, Quantiles], tuple[str, Quantiles]]:
    return ("outputs", numbers.out), ("inputs", numbers.inner)
