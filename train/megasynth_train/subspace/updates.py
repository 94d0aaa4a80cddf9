"""A cluster of adapters, each of one attribute, checked to belong together and read layer by layer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import read_json
from megasynth_attr.core.pages.words import listed
from megasynth_train.subspace.analysis import AdapterRow, DriftRow, layer_key
from megasynth_train.subspace.core import Update
from megasynth_train.subspace.peft_folder import CONFIG, RECORD, adapted_modules, open_adapter
from megasynth_train.subspace.peft_updates import BaseWeights, StoredAdapter, is_zero, with_row_scales

MANIFEST, ADAPTER, DRIFT = "cluster.json", "adapter", "drift.json"
DEFAULT_PREFIX = "aggregator."  # of the layers that are mined by default
OPENED_AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class Cluster:
    """Adapters of one base model on the same layers, sorted by attribute and then by name; small to pickle."""

    stored: tuple[StoredAdapter, ...]
    attributes: tuple[str, ...]
    modules: tuple[str, ...]  # the mined layers, which all adapters have, sorted
    shapes: Mapping[str, tuple[int, int]]  # module → (m, n)
    base: Mapping[str, Any]  # size, config, weights_sha256; for adapters of PEFT alone: base_model_name_or_path
    drift: tuple[DriftRow, ...]  # where it is recorded
    notes: tuple[str, ...]  # what makes results less trustworthy
    idle: tuple[str, ...]  # names of adapters whose updates are zero in all of these layers

    @property
    def adapters(self) -> tuple[AdapterRow, ...]:
        """Return one row per adapter."""
        return tuple(
            AdapterRow(a.name, a.attribute, str(a.folder), a.mode, a.rank, a.seed, a.sha256, a.dataset)
            for a in self.stored
        )

    def of_attribute(self, attribute: str) -> tuple[str, ...]:
        """Return the names of an attribute's adapters."""
        return tuple(adapter.name for adapter in self.stored if adapter.attribute == attribute)

    def datasets(self, attribute: str) -> tuple[str, ...]:
        """Return the dataset of each of an attribute's adapters; one that is not recorded is an adapter's own."""
        return tuple(adapter.dataset or adapter.name for adapter in self.stored if adapter.attribute == attribute)

    def updates(self, module: str) -> dict[str, Update]:
        """Return adapter name → update of a layer, read from disk; DatasetError for damage or non-finite values."""
        return {adapter.name: adapter.update(module) for adapter in self.stored}


@dataclass(frozen=True)
class _Place:
    """Where an adapter is; ``data``: what its cluster's manifest says of its dataset's content."""

    name: str
    attribute: str
    folder: Path
    cluster: Path
    data: str = ""


def open_cluster(
    folders: str | Path | Sequence[str | Path],
    attributes: Sequence[str] = (),
    modules: str = "",
    base: BaseWeights | None = None,
) -> Cluster:
    """Return the cluster in one or several ``folders``, checked, without reading all values.

    A folder is that of ``python -m megasynth_train.cluster``, or holds PEFT's adapter folders, each named
    ``<attribute>_<number>``. Names from the second folder on end in ``+1``, ``+2`` …; adapters of one dataset, known by
    its content, have its first adapter's name as ``dataset``. ``attributes`` chooses some and their order (none: all,
    sorted). ``modules`` is a regular expression for whole names of layers (empty: all linears of the aggregator). Only
    DoRA needs ``base``. Raises ConfigError for a choice that matches nothing, adapters that cannot be mined, are not
    finished or belong to another model than ``base``, and DatasetError for damage and adapters of different base
    models, layers or shapes.
    """
    paths = [Path(folder).resolve() for folder in ([folders] if isinstance(folders, str | Path) else folders)]
    chosen = _chosen(paths, attributes)
    wanted = _wanted(modules)
    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:  # each file is read whole for its checksum
        stored = tuple(pool.map(lambda one: open_adapter(one.folder, one.name, one.attribute, wanted), chosen))
    datasets = _datasets(chosen, stored)
    stored = tuple(replace(adapter, dataset=dataset) for adapter, dataset in zip(stored, datasets, strict=True))
    _check_layers(stored, modules)
    _check_base(stored, base)
    names = tuple(sorted(stored[0].keys))
    stored, dora_notes = with_row_scales(stored, names, base)
    idle = tuple(adapter.name for adapter in stored if all(is_zero(adapter.update(module)) for module in names))
    return Cluster(
        stored=stored,
        attributes=tuple(dict.fromkeys(adapter.attribute for adapter in stored)),
        modules=names,
        shapes=stored[0].shapes,
        base=stored[0].base,
        drift=tuple(row for adapter in stored for row in _drift(adapter, set(names))),
        notes=_notes(stored, idle) + dora_notes,
        idle=idle,
    )


def check_minable(cluster: Cluster) -> None:
    """Raise DatasetError for an attribute whose updates are all zero, and for one adapter under two names.

    A copy would count twice in the mean, and would lie in every basis that holds the original.
    """
    for attribute in cluster.attributes:
        if set(cluster.of_attribute(attribute)) <= set(cluster.idle):
            raise DatasetError(
                f"all updates of {attribute} are zero; there is nothing to mine; leave it out with attributes="
            )
    first: dict[str, str] = {}
    for adapter in cluster.stored:
        if adapter.name not in cluster.idle and first.setdefault(adapter.sha256, adapter.name) != adapter.name:
            raise DatasetError(f"{first[adapter.sha256]} and {adapter.name} are the same file; leave one out")


def check_means(cluster: Cluster, centre: str) -> None:
    """Raise ConfigError if removing the mean that ``centre`` names would leave nothing."""
    alone = [name for name in cluster.attributes if len(cluster.of_attribute(name)) < 2]
    if centre == "attribute" and alone:
        raise ConfigError(f"mining.centre=attribute: {alone[0]} has one adapter, which is its mean; leave it out")
    if centre == "grand" and len(cluster.attributes) < 2:
        raise ConfigError("mining.centre=grand needs two attributes at least; with one use mining.centre=attribute")


def _chosen(folders: Sequence[Path], attributes: Sequence[str]) -> list[_Place]:
    """Return where the adapters of ``attributes`` are, in this order, all of them finished."""
    found = [place for number, folder in enumerate(folders) for place in _found(folder, number)]
    if repeated := [name for name, count in Counter(place.name for place in found).items() if count > 1]:
        raise ConfigError(f"two adapters in cluster= are named {repeated[0]}; rename one of their folders")
    known = sorted({place.attribute for place in found})
    for attribute in attributes:
        if attribute not in known:
            hint = nearest(attribute, known)
            raise ConfigError(
                f"attributes={attribute}: {listed([str(folder) for folder in folders])} has no such attribute{hint}; "
                f"it has {', '.join(known)}"
            )
    order = list(dict.fromkeys(attributes)) or known
    chosen = [place for place in found if place.attribute in order]
    if unused := [folder for folder in folders if all(place.cluster != folder for place in chosen)]:
        raise ConfigError(f"cluster={unused[0]} holds no adapter of {', '.join(order)}; leave it out")
    chosen.sort(key=lambda place: (order.index(place.attribute), place.name))
    unfinished = [place for place in chosen if not _is_adapter(place.folder)]
    if unfinished:
        cluster = unfinished[0].cluster
        raise ConfigError(
            f"{len(unfinished)} of {len(chosen)} adapters in {cluster} are not finished: "
            f"{listed([place.name for place in unfinished])}; run the "
            f"same python -m megasynth_train.cluster … out={cluster} again to finish them, or choose finished "
            "attributes with attributes="
        )
    return chosen


def _found(folder: Path, number: int) -> list[_Place]:
    """Return the adapters in the folder given as the ``number``-th, from 0, which is in their names if it is not 0."""
    found = _of_manifest(folder) if (folder / MANIFEST).is_file() else _of_folders(folder)
    return [replace(place, name=f"{place.name}+{number}") for place in found] if number else found


def _datasets(places: Sequence[_Place], stored: Sequence[StoredAdapter]) -> list[str]:
    """Return the dataset of each adapter: the name of the first that was trained on the same data; "" if not known.

    The manifest of a cluster says it, or the adapter's own record.
    """
    first: dict[str, str] = {}
    data = [place.data or adapter.dataset for place, adapter in zip(places, stored, strict=True)]
    return [first.setdefault(one, place.name) if one else "" for one, place in zip(data, places, strict=True)]


def _of_manifest(folder: Path) -> list[_Place]:
    # imported here: it loads PyTorch, which the worker processes that unpickle a cluster do not need
    from megasynth_train.training.cluster_manifest import read_manifest

    entries = read_manifest(folder)["adapters"]
    if not entries:
        raise DatasetError(f"{folder / MANIFEST} lists no adapters; an empty cluster has no subspaces")
    try:
        return [
            _Place(
                name,
                str(entry["attribute"]),
                folder / name / ADAPTER,
                folder,
                str(entry.get("content_sha256") or entry.get("fingerprint") or ""),
            )
            for name, entry in entries.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{folder / MANIFEST} is damaged ({error!r}); restore it") from None


def _of_folders(folder: Path) -> list[_Place]:
    """Return the adapters in the subfolders of ``folder``, or one level deeper as the results of runs."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    places = {path.name: where for path in inside for where in (path, path / ADAPTER) if _is_adapter(where)}
    if not places:
        raise ConfigError(
            f"{folder} holds no adapters: give the folder of python -m megasynth_train.cluster (with {MANIFEST}), or "
            "one with PEFT adapter folders named <attribute>_<number>"
        )
    found = []
    for name, where in places.items():
        match = re.fullmatch(r"(.+?)_?\d+", name)
        if match is None:
            raise ConfigError(
                f"{folder / name} does not name its attribute; rename it <attribute>_<number>, e.g. texture_00"
            )
        found.append(_Place(name, match[1], where, folder))
    return found


def _is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / RECORD).is_file()


def _wanted(modules: str) -> Callable[[str], bool]:
    if not modules:
        return lambda name: name.startswith(DEFAULT_PREFIX)
    try:
        pattern = re.compile(modules)
    except re.error as error:
        raise ConfigError(f"modules={modules}: not a regular expression ({error})") from None
    return lambda name: pattern.fullmatch(name) is not None


def _check_layers(stored: Sequence[StoredAdapter], modules: str) -> None:
    """Raise ConfigError if there are no layers, DatasetError if an adapter's differ from those of the first."""
    first = stored[0]
    if not first.keys:
        others = adapted_modules(first.folder)
        if not others:
            raise ConfigError(
                f"{first.folder} adapts no layer that can be mined: its file has no factors of a known method"
            )
        advice = (
            f"modules={modules} matches none of the linear layers it adapts" if modules else "choose some with modules="
        )
        raise ConfigError(f"{first.folder} adapts no such layer of the aggregator; {advice}: {listed(others)}")
    for adapter in stored[1:]:
        for one, other in ((first, adapter), (adapter, first)):
            if missing := sorted(one.keys.keys() - other.keys.keys()):
                raise DatasetError(
                    f"{other.folder} does not adapt {listed(missing)}, which {one.name} does; all adapters of a "
                    "cluster need the same layers; choose common ones with modules="
                )
        for module, shape in adapter.shapes.items():
            if shape != first.shapes[module]:
                raise DatasetError(
                    f"{module} is {shape[0]} × {shape[1]} in {adapter.folder}, {first.shapes[module][0]} × "
                    f"{first.shapes[module][1]} in {first.name}; they belong to different models"
                )


def _check_base(stored: Sequence[StoredAdapter], base: BaseWeights | None) -> None:
    """Raise DatasetError if the adapters belong to different models, ConfigError if ``base`` is another one."""
    first = stored[0]
    for adapter in stored[1:]:
        if _base_text(adapter) != _base_text(first):
            raise DatasetError(
                f"{adapter.name} was trained from {_base_text(adapter)}, {first.name} from {_base_text(first)}: "
                "updates of different base models have no common subspace; leave one of them out"
            )
    recorded = first.base.get("weights_sha256")
    if base is not None and recorded not in (None, base.sha256):
        raise ConfigError(
            f"the adapters belong to a model with weights {recorded[:12]}, but the given base has "
            f"{base.sha256[:12]}; give the checkpoint they were trained from"
        )


def _base_text(adapter: StoredAdapter) -> str:
    if "weights_sha256" in adapter.base:
        return f"{adapter.base.get('size') or 'a model'} with weights {adapter.base['weights_sha256']}"
    return f"base_model_name_or_path={adapter.base['base_model_name_or_path']}"


def _drift(adapter: StoredAdapter, modules: set[str]) -> list[DriftRow]:
    file = adapter.folder / DRIFT
    layers = read_json(file)["layers"] if file.is_file() else []
    return [
        DriftRow(layer_key(layer["module"]), adapter.name, layer["relative_change"], layer["angles_deg"][0])
        for layer in layers
        if layer["module"] in modules
    ]


def _notes(stored: Sequence[StoredAdapter], idle: Sequence[str]) -> tuple[str, ...]:
    notes = []
    seeds = Counter(adapter.seed for adapter in stored if adapter.seed is not None)
    for seed in sorted(seed for seed, count in seeds.items() if count > 1):
        same = [adapter.name for adapter in stored if adapter.seed == seed]
        notes.append(
            f"{listed(same)} started from the same seed {seed}: they share their initial row space, which shows in "
            "spectra and angles whatever they learned"
        )
    if unknown := [adapter.name for adapter in stored if adapter.seed is None]:
        notes.append(
            f"the seeds of {listed(unknown)} are not recorded: if they are equal, the adapters share their initial "
            "row space whatever they learned"
        )
    if idle:
        notes.append(f"{listed(idle)} left the base model unchanged: all updates are zero")
    for left_out in dict.fromkeys(adapter.left_out for adapter in stored if adapter.left_out):
        same = [adapter.name for adapter in stored if adapter.left_out == left_out]
        notes.append(
            f"{listed(same)}: {len(left_out)} trained tensors are not part of the mined updates (whole "
            f"modules, biases, layers that are not linear): {listed(left_out)}"
        )
    if stored[0].base.get("weights_sha256") is None and stored[0].base.get("base_model_name_or_path") is None:
        notes.append("the adapters do not record their base model, so whether it is the same for all is not checked")
    if unknown := [adapter.name for adapter in stored if not adapter.dataset]:
        notes.append(
            f"the datasets of {listed(unknown)} are not recorded: each adapter counts as the only one of its dataset"
        )
    return tuple(notes)
