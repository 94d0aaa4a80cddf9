"""One layer: from its adapters' updates to the rows of the analysis and the layer's part of every basis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from megasynth_train.subspace.allocation import LayerBudget, effective_rank
from megasynth_train.subspace.analysis import (
    ConcatenationRow,
    ExtractorRow,
    LayerKey,
    LayerRow,
    PairRow,
    SplitRow,
    layer_key,
)
from megasynth_train.subspace.angles import energy_overlap
from megasynth_train.subspace.basis import LayerBasis
from megasynth_train.subspace.concatenate import concatenate
from megasynth_train.subspace.core import Core, Update, core_coordinates
from megasynth_train.subspace.extract import Options, Subspace, extract
from megasynth_train.subspace.half_splits import Halves, angles_of, split_rows
from megasynth_train.subspace.join import float32_layer, joined_layer
from megasynth_train.subspace.settings import EXTRACTORS, MiningSettings
from megasynth_train.subspace.spectrum import FrameBank, null_spectrum, significant, spectrum

Updates = Mapping[str, Sequence[Update]]  # attribute → one per adapter
WHOLE = "all"  # name of the basis of all attributes


@dataclass(frozen=True)
class LayerTask:
    """How a layer is mined: ``dimensions`` and ``halves`` by attribute."""

    settings: MiningSettings
    dimensions: Mapping[str, int]
    halves: Mapping[str, Sequence[Halves]]
    base_effective_rank: float | None = None  # of the base weight, with allocate_from=base


@dataclass(frozen=True)
class LayerRows:
    """What one layer adds to the analysis, and where each attribute's columns are in the basis of all."""

    layers: tuple[LayerRow, ...]
    pairs: tuple[PairRow, ...]
    splits: tuple[SplitRow, ...]
    concatenation: ConcatenationRow
    columns: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class MinedLayer:
    """A layer's rows, and its part of each attribute's basis and of that of ``all``; those without dimensions lack."""

    rows: LayerRows
    bases: Mapping[str, LayerBasis]


def layer_budget(module: str, core: Core, settings: MiningSettings, frames: FrameBank) -> LayerBudget:
    """Return what the allocation of dimensions needs of one attribute in one layer."""
    values = spectrum(core)
    above = 0
    if settings.allocation == "null":  # no other allocation uses it
        above = significant(values, null_spectrum(core, frames, settings.null_quantile).upper)
    energy = float(np.sum(core.norms**2))
    return LayerBudget(module, effective_rank(values), energy, above, core.room)


def mine_layer(module: str, updates: Updates, task: LayerTask, frames: FrameBank) -> MinedLayer:
    """Return everything mined from one layer; ``frames`` are the random rotations, shared by layers of equal sizes."""
    layer, settings = layer_key(module), task.settings
    for_report = _options(settings, settings.report_tolerance)
    cores = {name: core_coordinates(of_attribute) for name, of_attribute in updates.items()}
    dimensions = {name: min(task.dimensions[name], core.room) for name, core in cores.items()}
    # an attribute without dimensions has nothing to extract
    found = {name: _extract_all(core, dimensions[name], settings) for name, core in cores.items() if dimensions[name]}
    chosen = {name: of_extractor[settings.extractor] for name, of_extractor in found.items()}
    bases = {
        name: float32_layer(s.left, s.right, s.singular_values, _mean_coordinates(cores[name], s.left, s.right))
        for name, s in chosen.items()
    }
    concatenation, columns, whole = _concatenated(layer, cores, chosen, settings)
    rows = LayerRows(
        tuple(_layer_row(layer, name, core, found.get(name, {}), task, frames) for name, core in cores.items()),
        tuple(_pair_row(layer, one, other, cores, chosen) for one, other in combinations(cores, 2)),
        split_rows(layer, cores, dimensions, task.halves, settings.extractor, for_report),
        concatenation,
        columns,
    )
    return MinedLayer(rows, bases if whole is None else {**bases, WHOLE: whole})


def _extract_all(core: Core, dimension: int, settings: MiningSettings) -> dict[str, Subspace]:
    """Return what each extractor finds, the one that makes the basis first."""
    found = {settings.extractor: extract(core, dimension, settings.extractor, _options(settings, settings.tolerance))}
    if settings.all_extractors:
        options = _options(settings, settings.report_tolerance)
        found |= {name: extract(core, dimension, name, options) for name in EXTRACTORS if name not in found}
    return found


def _options(settings: MiningSettings, tolerance: float) -> Options:
    return Options(settings.power, settings.epsilon, tolerance, settings.max_iterations)


def _mean_coordinates(core: Core, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the mean over the adapters of Aᵀ dW B, d × d."""
    return np.asarray(core.svds.coefficients(core.left.T @ left, core.right.T @ right).mean(axis=0))


def _concatenated(
    layer: LayerKey, cores: Mapping[str, Core], chosen: Mapping[str, Subspace], settings: MiningSettings
) -> tuple[ConcatenationRow, dict[str, tuple[int, int]], LayerBasis | None]:
    """Return the row on all attributes' columns side by side, each attribute's range, and the layer they make."""
    if not chosen:
        return ConcatenationRow(layer, 0, 0, 1.0, 1.0), {}, None
    parts = [(name, found.left, found.right) for name, found in chosen.items()]
    joined = concatenate(parts, settings.orthonormalise, settings.drop_below)
    size = joined.left.shape[1]
    row = ConcatenationRow(layer, size, joined.dropped, joined.smallest_singular_out, joined.smallest_singular_in)
    scales = [found.singular_values for found in chosen.values()]
    whole, columns = joined_layer(joined, scales, lambda name, *sides: _mean_coordinates(cores[name], *sides))
    return row, columns, whole


def _layer_row(
    layer: LayerKey, attribute: str, core: Core, found: Mapping[str, Subspace], task: LayerTask, frames: FrameBank
) -> LayerRow:
    values = spectrum(core)
    null = null_spectrum(core, frames, task.settings.null_quantile)
    base_rank = task.base_effective_rank
    return LayerRow(
        layer=layer,
        attribute=attribute,
        outputs=len(core.left),
        inputs=len(core.right),
        norms=_numbers(core.norms),
        coherence=tuple(map(_numbers, core.coherence())),
        spectrum=_numbers(values),
        null_median=_numbers(null.median),
        null_upper=_numbers(null.upper),
        significant=significant(values, null.upper),
        effective_rank=effective_rank(values) if base_rank is None else base_rank,
        dimension=min(task.dimensions[attribute], core.room),
        extractors=tuple(_extractor_row(name, subspace) for name, subspace in found.items()),
    )


def _extractor_row(name: str, found: Subspace) -> ExtractorRow:
    return ExtractorRow(
        extractor=name,
        weights=_numbers(found.weights),
        residuals=_numbers(found.residuals),
        energy_inside=_numbers(found.energy_inside),
        singular_values=_numbers(found.singular_values),
        iterations=found.iterations,
        converged=found.converged,
        objective=float(found.objective),
    )


def _pair_row(
    layer: LayerKey, first: str, second: str, cores: Mapping[str, Core], chosen: Mapping[str, Subspace]
) -> PairRow:
    one, other = (_sides(cores[name], chosen.get(name)) for name in (first, second))
    return PairRow(
        layer,
        first,
        second,
        len(one[0]),
        len(one[1]),
        *angles_of(one, other),
        energy_first_in_second=_mean_energy(cores[first], other),
        energy_second_in_first=_mean_energy(cores[second], one),
    )


def _sides(core: Core, found: Subspace | None) -> tuple[np.ndarray, np.ndarray]:
    if found is None:
        return np.zeros((len(core.left), 0)), np.zeros((len(core.right), 0))
    return found.left, found.right


def _mean_energy(core: Core, sides: tuple[np.ndarray, np.ndarray]) -> float | None:
    """Return the mean share of energy inside a basis over the adapters with a nonzero update.

    None if there are none, or the basis has no dimensions here.
    """
    moved = core.norms > 0
    if not (moved.any() and sides[0].shape[1]):
        return None
    return float(np.mean(energy_overlap(core, *sides)[moved]))


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    return tuple(values.tolist())
