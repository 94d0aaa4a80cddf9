"""All layers of a cluster: how many dimensions each gets, the processes that mine them, and the resulting files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from megasynth_attr import __version__
from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.parallel import for_each
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.threads import available_cores
from megasynth_train.subspace.allocation import LayerBudget, allocate
from megasynth_train.subspace.analysis import FORMAT, Analysis, layer_key
from megasynth_train.subspace.basis import Basis, ranks_of
from megasynth_train.subspace.core import Update
from megasynth_train.subspace.evidence import Turn, reported, turns
from megasynth_train.subspace.half_splits import Halves, draw_halves
from megasynth_train.subspace.layer_file import is_whole, layer_file, read_layer_basis, write_layer
from megasynth_train.subspace.mine_layer import WHOLE, LayerRows, LayerTask, MinedLayer, layer_budgets, mine_layer
from megasynth_train.subspace.result_folder import LAYERS
from megasynth_train.subspace.settings import MineRunSettings, MiningSettings
from megasynth_train.subspace.spectrum import FrameBank
from megasynth_train.subspace.updates import Cluster

Dimensions = Mapping[str, Mapping[str, int]]  # module → attribute → dimensions
PACKAGES = ("numpy", "scipy")


@dataclass(frozen=True)
class LayerMiner:
    """Mines a layer; layers of equal sizes share their random frames, paired anew in each."""

    cluster: Cluster
    settings: MiningSettings
    frames: FrameBank
    dimensions: Dimensions
    halves: Mapping[str, Sequence[Halves]]
    datasets: Mapping[str, Sequence[str]]
    turns: Mapping[str, Turn]
    reported: frozenset[str]  # modules in which what only the report needs is mined as well
    base_ranks: Mapping[str, float]  # module → effective rank of its base weight, with allocate_from=base

    def __call__(self, module: str) -> MinedLayer:
        """Return one layer, mined."""
        whole = module in self.reported
        task = LayerTask(
            self.settings if whole else replace(self.settings, all_extractors=False),
            self.dimensions[module],
            self.halves if whole else {},
            self.datasets,
            self.turns[module],
            self.base_ranks.get(module),
        )
        return mine_layer(module, updates_by_attribute(self.cluster, module), task, self.frames)


def _survey(cluster: Cluster, settings: MiningSettings, frames: FrameBank, module: str) -> dict[str, LayerBudget]:
    """Return what the allocation of dimensions needs of a layer, by attribute."""
    return layer_budgets(module, updates_by_attribute(cluster, module), settings, frames)


def updates_by_attribute(cluster: Cluster, module: str) -> dict[str, list[Update]]:
    """Return a layer's updates, those of each attribute in the cluster's order of adapters."""
    updates = cluster.updates(module)
    return {name: [updates[adapter] for adapter in cluster.of_attribute(name)] for name in cluster.attributes}


def mine_layers(
    cluster: Cluster,
    settings: MiningSettings,
    base_ranks: Mapping[str, float],
    run: MineRunSettings,
    out: Path,
    stop: StopRequest,
) -> None:
    """Mine the layers that ``out`` does not hold yet; Interrupted if asked to stop, which loses the layers in progress.

    ``base_ranks``: effective rank of the base weight by module, if the allocation is to use these.
    """
    processes = run.workers or available_cores()
    folder = out / LAYERS
    missing = [module for module in cluster.modules if not is_whole(layer_file(folder, module))]
    if not missing:
        return
    frames = FrameBank(settings.null_draws, settings.seed)
    dimensions = _dimensions(cluster, settings, frames, base_ranks, processes, stop)
    datasets = {name: cluster.datasets(name) for name in cluster.attributes}
    halves = draw_halves(datasets, settings.splits, settings.seed)
    keys = [layer_key(module) for module in cluster.modules]
    by_turns, sample = turns(keys, settings.held_out), reported(keys, settings.report_layers)
    miner = LayerMiner(cluster, settings, frames, dimensions, halves, datasets, by_turns, sample, base_ranks)
    done = len(cluster.modules) - len(missing)
    with tqdm(total=len(cluster.modules), initial=done, unit="layer", disable=not run.progress) as bar:

        def keep(module: str, mined: MinedLayer) -> None:
            # only this process holds the folder: a worker may outlive it, and its last layer must not end up among
            # those of the next run, which may have other settings
            write_layer(layer_file(folder, module), mined)
            bar.update()

        for_each(miner, missing, processes, stop, keep)


def _dimensions(
    cluster: Cluster,
    settings: MiningSettings,
    frames: FrameBank,
    base_ranks: Mapping[str, float],
    processes: int,
    stop: StopRequest,
) -> Dimensions:
    """Return the dimensions of every attribute in every layer; those of one attribute are shared among its layers."""
    if settings.allocation == "uniform":
        return {module: dict.fromkeys(cluster.attributes, settings.dimension) for module in cluster.modules}
    surveys: dict[str, dict[str, LayerBudget]] = {}
    survey = partial(_survey, cluster, settings, frames)
    for_each(survey, cluster.modules, processes, stop, surveys.__setitem__)
    shares = {}
    for attribute in cluster.attributes:
        layers = [surveys[module][attribute] for module in cluster.modules]
        layers = [replace(layer, effective_rank=base_ranks.get(layer.module, layer.effective_rank)) for layer in layers]
        shares[attribute] = allocate(layers, settings.allocation, settings.dimension, settings.budget)
    return {module: {name: shares[name][module] for name in cluster.attributes} for module in cluster.modules}


def assemble_analysis(
    cluster: Cluster, settings: MiningSettings, layers: Mapping[str, LayerRows], seconds: float
) -> Analysis:
    """Return the analysis of all layers' rows."""
    return Analysis(
        format=FORMAT,
        attributes=cluster.attributes,
        adapters=cluster.adapters,
        base=dict(cluster.base),
        settings=to_plain(settings),
        layers=tuple(row for rows in layers.values() for row in rows.layers),
        pairs=tuple(row for rows in layers.values() for row in rows.pairs),
        splits=tuple(row for rows in layers.values() for row in rows.splits),
        drift=cluster.drift,
        concatenation=tuple(rows.concatenation for rows in layers.values()),
        seconds=seconds,
        versions={"megasynth-attr": __version__} | {name: version(name) for name in PACKAGES},
        notes=(*cluster.notes, *_opposite_means(cluster, settings), *_too_small_layers(settings, layers)),
        held_out=tuple(row for rows in layers.values() for row in rows.held_out),
    )


def _opposite_means(cluster: Cluster, settings: MiningSettings) -> tuple[str, ...]:
    """Return a note where removing the grand mean leaves two attributes the same directions."""
    if settings.centre != "grand" or len(cluster.attributes) != 2:
        return ()
    first, second = cluster.attributes
    return (
        f"mining.centre=grand with two attributes leaves half the difference of their means in both, with opposite "
        f"signs: the bases of {first} and {second} share these directions by construction, so how close they are says "
        "nothing; use three attributes or more",
    )


def _too_small_layers(settings: MiningSettings, layers: Mapping[str, LayerRows]) -> tuple[str, ...]:
    """Return a note on the layers with less room than ``settings.dimension``, if every layer was to have as many."""
    if settings.allocation != "uniform":
        return ()
    fewest = [min(row.dimension for row in rows.layers) for rows in layers.values()]  # of any attribute
    small = [number for number in fewest if number < settings.dimension]
    if not small:
        return ()
    found = f"{min(small)}" if min(small) == max(small) else f"{min(small)} to {max(small)}"
    return (
        f"dimension={settings.dimension}: {len(small)} of {len(fewest)} layers have fewer dimensions for some "
        f"attribute ({found}), because its adapters changed them in no more directions",
    )


def assemble_basis(name: str, analysis: Analysis, rows: Mapping[str, LayerRows], out: Path) -> Basis:
    """Return the basis of one attribute, or that of ``all``, from the layers' files."""
    whole = name == WHOLE
    layers, columns = {}, {}
    for module in rows:
        layer = read_layer_basis(layer_file(out / LAYERS, module), name)
        if layer is not None:
            layers[module] = layer
            columns[module] = rows[module].columns if whole else {name: (0, layer.dimension)}
    attributes = analysis.attributes if whole else (name,)
    record = {
        "extractor": analysis.settings["extractor"],
        "settings": analysis.settings,
        "adapters": [  # without the folder: a path is no part of the identity
            {key: value for key, value in to_plain(row).items() if key != "folder"}
            for row in analysis.adapters
            if row.attribute in attributes
        ],
        "ranks": ranks_of(columns, empty=[module for module in rows if module not in layers]),
        "orthonormal": not whole or analysis.settings["orthonormalise"],
        "versions": analysis.versions,
    }
    return Basis(layers, columns, attributes, analysis.base, record)
