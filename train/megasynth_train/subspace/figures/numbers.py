"""The numbers behind figures and tables: an analysis summarised per layer, then over layers, with chance levels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from megasynth_train.subspace.analysis import Analysis, LayerKey, LayerRow, PairRow, SplitRow
from megasynth_train.subspace.angles import lambdas, operator_cosines
from megasynth_train.subspace.figures.layout import Quantiles, by_depth, layers_of, of_layers, quantiles
from megasynth_train.subspace.null_angles import Chance, expected_energy_overlap, expected_squared_cosine


@dataclass(frozen=True)
class PairLayer:
    """Two attributes in one layer; ratios are measured ÷ chance, energies are the mean of both directions."""

    row: PairRow
    sizes: tuple[int, int]  # dimensions of the two bases
    lambda_out: float  # 1 − cos of the smallest principal angle: 0 shared direction, 1 orthogonal
    lambda_in: float
    lambda_out_ratio: float
    lambda_in_ratio: float
    energy: float
    energy_ratio: float
    joint: float  # largest cosine between operators A M Bᵀ of the two
    joint_chance: float

    @property
    def layer(self) -> LayerKey:
        """Return the layer's key."""
        return self.row.layer


@dataclass(frozen=True)
class PairNumbers:
    """Two attributes over all layers in which both have dimensions."""

    first: str
    second: str
    layers: tuple[PairLayer, ...]
    of_layers: int  # including those in which one of them has none

    @property
    def name(self) -> str:
        """Return the pair's name."""
        return f"{self.first} – {self.second}"

    def over_layers(self, field: str) -> Quantiles:
        """Return the quantiles of one field of PairLayer."""
        return quantiles(getattr(layer, field) for layer in self.layers)


@dataclass(frozen=True)
class SplitNumbers:
    """Bases from halves: mean cos² of their principal angles, over layers and splits, and its expectation by chance."""

    first: str
    second: str
    layers: str  # in how many of the mined ones
    out: Quantiles
    out_chance: Quantiles
    inner: Quantiles
    inner_chance: Quantiles

    @property
    def same(self) -> bool:
        """Return whether both halves are of one attribute."""
        return self.first == self.second

    @property
    def name(self) -> str:
        """Return the pair's name."""
        return self.first if self.same else f"{self.first} – {self.second}"


@dataclass(frozen=True)
class AttributeNumbers:
    """One attribute over all its layers."""

    name: str
    adapters: int
    layers: int
    coherence: Quantiles  # mean off-diagonal cosine of each layer
    coherence_chance: float | None  # standard deviation of one cosine between independently rotated updates
    significant: Quantiles
    effective_rank: Quantiles
    dimension: tuple[int, int]  # smallest, largest
    without: int  # layers with no dimension
    basis_energy: Quantiles  # inside the basis that is used: that of the first extractor
    energy: dict[str, Quantiles]  # by extractor, over the layers in which all of them ran
    energy_layers: str  # in how many of the mined ones that is
    energy_chance: float | None  # random basis of the same dimensions
    energy_unrelated: float | None  # the least a fitted basis holds of unrelated adapters: dimension / total rank
    not_converged: int


def _dimensions(analysis: Analysis) -> dict[tuple[str, str], int]:
    """Return (module, attribute) → dimensions of its basis."""
    return {(row.layer.module, row.attribute): row.dimension for row in analysis.layers}


def pair_numbers(analysis: Analysis, chance: Chance) -> tuple[PairNumbers, ...]:
    """Return the numbers of every pair of attributes; layers in which one has no dimension are left out."""
    known = _dimensions(analysis)
    found = []
    for first, second in dict.fromkeys((row.first, row.second) for row in analysis.pairs):
        rows = by_depth(row for row in analysis.pairs if (row.first, row.second) == (first, second))
        both = tuple(_pair_layer(row, known, chance) for row in rows if row.angles_out_deg and row.angles_in_deg)
        found.append(PairNumbers(first, second, both, len(rows)))
    return tuple(found)


def _pair_layer(row: PairRow, known: dict[tuple[str, str], int], chance: Chance) -> PairLayer:
    module = row.layer.module
    sizes = known[module, row.first], known[module, row.second]
    out, inner = np.radians(row.angles_out_deg), np.radians(row.angles_in_deg)
    random_out, random_in = (chance.smallest(size, *sizes) for size in (row.outputs, row.inputs))
    shares = [e for e in (row.energy_first_in_second, row.energy_second_in_first) if e is not None]
    energy = sum(shares) / len(shares)  # both are known: a basis with dimensions has a nonzero update
    expected = sum(expected_energy_overlap(row.outputs, row.inputs, d, d) for d in sizes) / 2
    lambda_out, lambda_in = lambdas(np.array([out[0], inner[0]]))[0].tolist()
    by_chance_out, by_chance_in = lambdas(np.array([random_out, random_in]))[0].tolist()
    return PairLayer(
        row,
        sizes,
        lambda_out,
        lambda_in,
        lambda_out_ratio=_ratio(lambda_out, by_chance_out),
        lambda_in_ratio=_ratio(lambda_in, by_chance_in),
        energy=energy,
        energy_ratio=_ratio(energy, expected),
        joint=float(operator_cosines(out[:1], inner[:1])[0]),
        joint_chance=float(np.cos(random_out) * np.cos(random_in)),
    )


def _ratio(value: float, by_chance: float) -> float:
    """Return value ÷ chance; 1 if chance is 0 (bases that fill the space must intersect)."""
    return float(value / by_chance) if by_chance > 1e-9 else 1.0


def split_numbers(analysis: Analysis) -> tuple[SplitNumbers, ...]:
    """Return the numbers of every pair of halves, those of one attribute first."""
    sizes = {row.layer.module: (row.outputs, row.inputs) for row in analysis.layers}
    known = _dimensions(analysis)
    found = []
    for pair in dict.fromkeys((row.first, row.second) for row in analysis.splits):
        rows = [r for r in analysis.splits if (r.first, r.second) == pair and r.angles_out_deg and r.angles_in_deg]
        measured = []
        for side, field in enumerate(("angles_out_deg", "angles_in_deg")):
            measured.append(quantiles(np.mean(np.cos(np.radians(getattr(row, field))) ** 2) for row in rows))
            measured.append(quantiles(_mean_squared_cosine(row, sizes[row.layer.module][side], known) for row in rows))
        found.append(SplitNumbers(*pair, of_layers(analysis, (row.layer.module for row in rows)), *measured))
    return tuple(sorted(found, key=lambda numbers: not numbers.same))


def _mean_squared_cosine(row: SplitRow, size: int, known: dict[tuple[str, str], int]) -> float:
    """Return the expected mean cos² of a row's angles for random subspaces of R^size.

    A half may have fewer dimensions than its attribute; both are then taken to have as many as there are angles.
    """
    module, count = row.layer.module, len(row.angles_out_deg)
    wanted = known[module, row.first], known[module, row.second]
    return expected_squared_cosine(size, *(wanted if count == min(wanted) else (count, count)))


def attribute_numbers(analysis: Analysis) -> tuple[AttributeNumbers, ...]:
    """Return the numbers of every attribute."""
    return tuple(_attribute(analysis, name) for name in analysis.attributes)


def _attribute(analysis: Analysis, name: str) -> AttributeNumbers:
    rows = layers_of(analysis, name)
    used = [row for row in rows if row.dimension]
    extractors = dict.fromkeys(e.extractor for row in rows for e in row.extractors)
    compared = [row for row in used if len(row.extractors) == len(extractors)]
    return AttributeNumbers(
        name,
        adapters=sum(adapter.attribute == name for adapter in analysis.adapters),
        layers=len(rows),
        coherence=quantiles(row.mean_coherence for row in rows),
        coherence_chance=_median((row.outputs * row.inputs) ** -0.5 for row in rows),
        significant=quantiles(row.significant for row in rows),
        effective_rank=quantiles(row.effective_rank for row in rows),
        dimension=(min((r.dimension for r in rows), default=0), max((r.dimension for r in rows), default=0)),
        without=len(rows) - len(used),
        basis_energy=quantiles(share for row in used for e in row.extractors[:1] for share in e.energy_inside),
        energy={name: _energy(compared, name) for name in extractors},
        energy_layers=of_layers(analysis, (row.layer.module for row in compared)),
        energy_chance=_median(
            expected_energy_overlap(row.outputs, row.inputs, row.dimension, row.dimension) for row in used
        ),
        energy_unrelated=_median(min(1.0, row.dimension / len(row.spectrum)) for row in used if row.spectrum),
        not_converged=sum(not e.converged for row in rows for e in row.extractors[:1]),
    )


def _energy(rows: Iterable[LayerRow], extractor: str) -> Quantiles:
    return quantiles(
        share for row in rows for e in row.extractors if e.extractor == extractor for share in e.energy_inside
    )


def _median(values: Iterable[float]) -> float | None:
    return quantiles(values).median
