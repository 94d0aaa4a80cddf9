"""One layer: from its adapters' updates to the rows of the analysis and the layer's part of every basis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from megasynth_attr.core.codec import younger
from megasynth_train.subspace.allocation import LayerBudget, effective_rank
from megasynth_train.subspace.analysis import (
    ConcatenationRow,
    ExtractorRow,
    HeldOutRow,
    LayerKey,
    LayerRow,
    PairRow,
    SplitRow,
    layer_key,
)
from megasynth_train.subspace.angles import energy_overlap
from megasynth_train.subspace.basis import LayerBasis
from megasynth_train.subspace.centre import centred
from megasynth_train.subspace.concatenate import concatenate
from megasynth_train.subspace.core import Core, Update, core_coordinates
from megasynth_train.subspace.evidence import Turn, held_out_rows, mean_cosine, others_rows
from megasynth_train.subspace.extract import Options, Subspace, extract, solve
from megasynth_train.subspace.half_splits import Halves, angles_of, split_rows
from megasynth_train.subspace.held_out import mined
from megasynth_train.subspace.join import float32_layer, joined_layer
from megasynth_train.subspace.settings import EXTRACTORS, MiningSettings, can_find
from megasynth_train.subspace.spectrum import (
    FrameBank,
    null_spectrum,
    significant,
    significant_normalised,
    significant_reweighted,
    spectrum,
)

Updates = Mapping[str, Sequence[Update]]  # attribute → one per adapter
WHOLE = "all"  # name of the basis of all attributes


@dataclass(frozen=True)
class LayerTask:
    """How a layer is mined: ``dimensions``, ``halves`` and ``datasets`` by attribute."""

    settings: MiningSettings
    dimensions: Mapping[str, int]
    halves: Mapping[str, Sequence[Halves]]
    datasets: Mapping[str, Sequence[str]]  # of each adapter
    turn: Turn
    base_effective_rank: float | None = None  # of the base weight, with allocate_from=base


@dataclass(frozen=True)
class LayerRows:
    """What one layer adds to the analysis, and where each attribute's columns are in the basis of all."""

    layers: tuple[LayerRow, ...]
    pairs: tuple[PairRow, ...]
    splits: tuple[SplitRow, ...]
    concatenation: ConcatenationRow
    columns: dict[str, tuple[int, int]]
    held_out: tuple[HeldOutRow, ...] = younger(())


@dataclass(frozen=True)
class MinedLayer:
    """A layer's rows, and its part of each attribute's basis and of that of ``all``; those without dimensions lack."""

    rows: LayerRows
    bases: Mapping[str, LayerBasis]


def layer_budgets(module: str, updates: Updates, settings: MiningSettings, frames: FrameBank) -> dict[str, LayerBudget]:
    """Return what the allocation of dimensions needs of every attribute in one layer."""
    cores = {name: core_coordinates(of_attribute) for name, of_attribute in updates.items()}
    room = {name: core.room for name, core in centred(cores, settings.centre).items()}
    return {name: _budget(module, core, room[name], settings, frames.at(module, name)) for name, core in cores.items()}


def _budget(module: str, core: Core, room: int, settings: MiningSettings, frames: FrameBank) -> LayerBudget:
    above = 0
    if settings.allocation == "null":  # no other allocation uses it
        above = significant_normalised(core, frames, settings.null_quantile)
    return LayerBudget(module, effective_rank(spectrum(core)), float(np.sum(core.norms**2)), above, room)


def mine_layer(module: str, updates: Updates, task: LayerTask, frames: FrameBank) -> MinedLayer:
    """Return everything mined from one layer; ``frames`` are the random rotations."""
    layer, settings = layer_key(module), task.settings
    for_report = _options(settings, settings.report_tolerance)
    cores = {name: core_coordinates(of_attribute) for name, of_attribute in updates.items()}
    shifted = centred(cores, settings.centre)
    dimensions = {name: min(task.dimensions[name], core.room) for name, core in shifted.items()}
    # an attribute without dimensions has nothing to extract
    found = {name: _extract_all(core, dimensions[name], settings) for name, core in shifted.items() if dimensions[name]}
    chosen = {name: of_extractor[settings.extractor] for name, of_extractor in found.items()}
    bases = {
        name: float32_layer(s.left, s.right, s.singular_values, _mean_coordinates(cores[name], s.left, s.right))
        for name, s in chosen.items()
    }
    concatenation, columns, whole = _concatenated(layer, cores, chosen, settings)
    rows = LayerRows(
        tuple(
            _layer_row(layer, name, core, dimensions[name], found.get(name, {}), task, frames.at(module, name))
            for name, core in cores.items()
        ),
        tuple(_pair_row(layer, pair, updates, shifted, chosen, task.turn) for pair in combinations(cores, 2)),
        split_rows(layer, shifted, dimensions, task.halves, settings.extractor, for_report),
        concatenation,
        columns,
        tuple(_held_out(layer, cores, chosen, dimensions, task)),
    )
    return MinedLayer(rows, bases if whole is None else {**bases, WHOLE: whole})


def _extract_all(core: Core, dimension: int, settings: MiningSettings) -> dict[str, Subspace]:
    """Return what each extractor finds, the one that makes the basis first."""
    found = {settings.extractor: extract(core, dimension, settings.extractor, _options(settings, settings.tolerance))}
    if settings.all_extractors:
        options = _options(settings, settings.report_tolerance)
        single = core.subset(np.ones(len(core.norms), dtype=bool)).single()  # their bases are in no file
        others = [name for name in EXTRACTORS if name not in found and can_find(settings.centre, name)]
        found |= {name: extract(single, dimension, name, options) for name in others}
    return found


def _options(settings: MiningSettings, tolerance: float) -> Options:
    return Options(settings.power, settings.epsilon, tolerance, settings.max_iterations)


def _weights(core: Core, found: Mapping[str, Subspace], settings: MiningSettings) -> np.ndarray:
    """Return the weights (k,) that irls gives the updates as they are."""
    if settings.centre == "none" and "irls" in found:
        return found["irls"].weights
    dimension, options = max(1, min(settings.dimension, core.room)), _options(settings, settings.report_tolerance)
    return solve(core.single(), dimension, "irls", options).weights


def _held_out(
    layer: LayerKey,
    cores: Mapping[str, Core],
    chosen: Mapping[str, Subspace],
    dimensions: Mapping[str, int],
    task: LayerTask,
) -> Iterator[HeldOutRow]:
    """Yield the rows on energy outside the sample: of the updates as they are, whatever mean was removed to mine."""
    settings = task.settings
    for name, core in cores.items():
        if not (dimensions[name] and settings.held_out):
            continue
        miner = mined(dimensions[name], settings.extractor, _options(settings, settings.report_tolerance))
        yield from held_out_rows(layer, name, core.single(), task.datasets[name], miner, dimensions[name], task.turn)
        others = [found for other, found in chosen.items() if other != name]
        yield from others_rows(layer, name, core, [(core.left.T @ s.left, core.right.T @ s.right) for s in others])


def _mean_coordinates(core: Core, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the mean over the adapters of Aᵀ dW B, d × d; no mean was removed from these updates."""
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
    layer: LayerKey,
    attribute: str,
    core: Core,
    dimension: int,
    found: Mapping[str, Subspace],
    task: LayerTask,
    frames: FrameBank,
) -> LayerRow:
    settings = task.settings
    values = spectrum(core)
    quantile = settings.null_quantile
    null = null_spectrum(core, frames, quantile)
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
        dimension=dimension,
        extractors=tuple(_extractor_row(name, subspace) for name, subspace in found.items()),
        significant_reweighted=significant_reweighted(core, frames, quantile, _weights(core, found, settings)),
        significant_normalised=significant_normalised(core, frames, quantile),
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
    layer: LayerKey,
    pair: tuple[str, str],
    updates: Updates,
    cores: Mapping[str, Core],
    chosen: Mapping[str, Subspace],
    turn: Turn,
) -> PairRow:
    first, second = pair
    one, other = (_sides(cores[name], chosen.get(name)) for name in pair)
    some = [[updates[name][i] for i in turn.of(len(updates[name]))] for name in pair]
    return PairRow(
        layer,
        first,
        second,
        len(one[0]),
        len(one[1]),
        *angles_of(one, other),
        energy_first_in_second=_mean_energy(cores[first], other),
        energy_second_in_first=_mean_energy(cores[second], one),
        coherence=mean_cosine(*some),
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
