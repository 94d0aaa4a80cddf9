"""A preset's section ``training``: every key checked before anything runs. Free of PyTorch.

::

    training:
      model: {size: vggt-tiny}          model, data, loss and run hold for every stage
      adapter: {mode: lora, rank: 8}    of the cluster
      optim: {steps: 80, lr: 2.0e-3}    of the cluster, and of the other stages where they set nothing else
      mining: {dimension: 8}
      compare: {methods: [...], seeds: [0, 1], optim: {steps: 60}}
      pretrain: {optim: {steps: 4000}}  only where the base model is trained first
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megasynth_attr.core.command.keys import sections
from megasynth_attr.core.command.layers import merge
from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.fields import setting
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.core.stages import StageRun
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.evaluate.protocols import NONE, PROTOCOLS, clearpose_sides
from megasynth_train.subspace.settings import MineRunSettings, MiningSettings
from megasynth_train.training.settings import (
    DataSettings,
    LossSettings,
    OptimSettings,
    RunSettings,
    SeveralSettings,
    TrainSettings,
)
from megasynth_train.vggt.source_names import SHIPPED

SECTION = "training"
PRETRAIN, CLUSTER, SUBSPACES, COMPARISON = "pretrain", "cluster", "subspaces", "comparison"  # folders of the stages
PRETRAIN_ADAPTER = {"mode": "full", "train_encoder": True}
_BY_PROTOCOL = PROTOCOLS.keys() - {"spoof_plane"}  # which was compared before there were protocols
_COMMON = ("model", "data", "loss", "optim", "run")  # what a stage's own section may override
# what the pipeline decides itself
_TAKEN = {
    ("data", "sources"): "the datasets of the experiment are the data",
    ("run", "out"): "the pipeline's out= holds everything",
    ("run", "max_runtime_s"): "use max_runtime=",
    ("run", "seed"): "give training.seed=, or training.compare.seeds=",
    ("adapter", "seed"): "it is derived for each adapter; give training.seed=",
    ("compare", "basis"): "the stage mine makes it",
    ("compare", "plan"): "use plan=true",
    ("compare", "across", "data"): "give downstream.twok2k= after downstream.thuman=",
}


@dataclass(frozen=True)
class PretrainKeys:
    """Training the base model on the members' datasets, before the cluster; done only if optim.steps is given."""

    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    run: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class Keys(SeveralSettings):
    """The stages pretrain, cluster, mine and compare. training.pretrain and training.compare may override keys of data,
    loss, optim and run for their stage, e.g. training.compare.optim.steps=60. data.sources, run.out and run.seed are
    refused: the pipeline sets them."""

    seed: int = setting(0, "each adapter's seed is derived from this one and the dataset's name", minimum=0)
    mining: MiningSettings = field(default_factory=MiningSettings)
    mine: MineRunSettings = field(default_factory=MineRunSettings)
    pretrain: PretrainKeys = field(default_factory=PretrainKeys)
    compare: CompareSettings = field(default_factory=CompareSettings)


@dataclass(frozen=True)
class StageSettings:
    """The settings of every stage, folders included, as its own program takes them."""

    seed: int
    parallel: int
    pretrain: TrainSettings | None  # None: the base model is taken as it is
    cluster: TrainSettings  # what all adapters have in common
    mining: MiningSettings
    mine: MineRunSettings
    compare: CompareSettings | None  # None: the experiment has no downstream data


def stage_settings(run: StageRun) -> StageSettings:
    """Return what the section ``training`` says; ConfigError, naming the key, for anything that cannot work.

    Reads no file of the experiment, so it can be called before the first frame is rendered.
    """
    keys = check_keys(run.values)
    _check_shipped(keys.model.checkpoint)
    common = {name: run.values[name] for name in _COMMON if name in run.values}
    limit = {"run": {"max_runtime_s": run.max_runtime_s}}
    own = dict(run.values.get("pretrain") or {})
    pretrain = None
    if "steps" in (own.get("optim") or {}):
        sources = keys.pretrain.data.sources or run.paths(run.datasets)
        place = {"data": {"sources": sources}, "run": {"out": str(run.folder(PRETRAIN))}}
        pretrain = _filled(TrainSettings, common, own, {"adapter": PRETRAIN_ADAPTER}, place, limit)
        common = merge(common, {"model": {"checkpoint": str(run.folder(PRETRAIN) / "adapter")}})
    adapter = {"adapter": run.values.get("adapter") or {}}
    cluster = _filled(TrainSettings, common, adapter, {"run": {"out": str(run.folder(CLUSTER))}}, limit)
    compare = _compare(run, common, limit, keys) if run.downstream or run.photographs else None
    return StageSettings(keys.seed, keys.parallel, pretrain, cluster, keys.mining, keys.mine, compare)


def check_keys(values: Mapping[str, Any]) -> Keys:
    """Return the section's keys, each checked by itself; ConfigError, naming the nearest, for an unknown one."""
    keys = fill(Keys, values, f"{SECTION}.")
    _refuse_taken(values)
    return keys


def _compare(run: StageRun, common: Mapping[str, Any], limit: Mapping[str, Any], keys: Keys) -> CompareSettings:
    """Return the comparison's settings, its method names checked against the attributes to be mined."""
    own = dict(run.values.get("compare") or {})
    training, test, protocol = _downstream(run)
    place = {
        "data": {"sources": keys.compare.data.sources or training},
        "test": {"data": keys.compare.test.data or test},
        "basis": str(run.folder(SUBSPACES)),
        "run": {"out": str(run.folder(COMPARISON))},
    }
    usual: dict[str, Any] = {"parallel": keys.parallel}
    if protocol in _BY_PROTOCOL and not keys.compare.test.data:
        usual["test"] = {"protocol": protocol}
    if run.across:
        (attribute, names), *more = run.across.items()
        if more:
            raise ConfigError(
                f"downstream.{more[0][0]}=: scans of two kinds at most, to train on and to test on as well"
            )
        place["across"] = {"data": run.paths(names), "protocol": attribute if attribute in _BY_PROTOCOL else NONE}
    attributes = keys.mining.attributes or tuple(run.members)
    try:
        settings = _filled(CompareSettings, usual, common, own, place, limit)
        settings.check()
        settings.resolve(attributes, keys.mining.dimension * len(attributes))
    except ConfigError as error:
        raise ConfigError(f"{SECTION}.compare: {error}") from None
    return settings


def _downstream(run: StageRun) -> tuple[list[str], list[str], str]:
    """Return the folders to train on, those to test on, and the name of the data, which may be that of a protocol."""
    for name, folder in run.photographs.items():
        from megasynth_train.data.layouts.choose import choose  # help needs no readers

        training, _ = clearpose_sides(choose(Path(folder).resolve(), name, f"downstream.{name}").folders)
        if not training:
            raise DatasetError(
                f"downstream.{name}={folder}: it holds no scene to train on; all scenes of sets 8 and 9, and the last "
                "of each other set, are for testing"
            )
        return [str(scene) for scene in training], [folder], name
    name = run.downstream[-1].rpartition("_")[0]
    return run.paths(run.downstream[:-1]), run.paths(run.downstream[-1:]), name


def _filled(kind: Any, *layers: Mapping[str, Any]) -> Any:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer)
    return fill(kind, merged)


def _refuse_taken(values: Mapping[str, Any]) -> None:
    for path, advice in _TAKEN.items():
        for where in (path, *((stage, *path) for stage in ("pretrain", "compare") if path[0] in ("run", "adapter"))):
            if _get(values, where) is not None:
                raise ConfigError(f"{SECTION}.{'.'.join(where)}= cannot be set in a pipeline: {advice}")


def _get(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _check_shipped(checkpoint: str) -> None:
    name = checkpoint.removeprefix(SHIPPED)
    if checkpoint != name and not (resource_dir("assets") / "models" / f"{name}.safetensors").is_file():
        raise DatasetError(
            f"{SECTION}.model.checkpoint={checkpoint}: no such model comes with the project; leave it empty for random "
            "weights, or give a file, a folder or a hub id"
        )


def help_sections() -> dict[str, type]:
    """Return the dataclass of every section of ``--help``, by its full name; common keys are listed once."""
    found = {prefix.removesuffix("."): kind for prefix, kind in sections(Keys, f"{SECTION}.")}
    own = (f"{SECTION}.compare", f"{SECTION}.compare.test", f"{SECTION}.compare.tune")
    again = (f"{SECTION}.pretrain", f"{SECTION}.compare.")
    return {name: kind for name, kind in found.items() if name in own or not name.startswith(again)}
