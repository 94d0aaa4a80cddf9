"""Find settings that cannot work together before the first frame is rendered. Free of PyTorch.

Only the chosen stages are checked. Each program checks its settings again when it runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.stages import StageRun
from megasynth_train.compare.methods import HELD_OUT, expand, is_control
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.data.sizes import check_settings, check_width
from megasynth_train.experiment.settings import PRETRAIN, SECTION, StageSettings, stage_settings
from megasynth_train.subspace.settings import check_centre
from megasynth_train.training.settings import AdapterSettings, TrainSettings, head_rank
from megasynth_train.vggt.config import SIZES, VGGTConfig
from megasynth_train.vggt.source_names import check_source

_AGGREGATOR = "aggregator."
_LINEARS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # of every block
_CAMERA = ("embed_pose", "poseLN_modulation.1", "pose_branch.fc1", "pose_branch.fc2")  # besides its blocks


def check_pretrain(run: StageRun) -> None:
    """Raise ConfigError or DatasetError, naming the key and what to do, for settings that the stage refuses."""
    settings = stage_settings(run)
    if settings.pretrain is not None:
        _check_training(run, settings.pretrain, f"{SECTION}.pretrain")


def check_cluster(run: StageRun) -> None:
    """As ``check_pretrain``."""
    common = stage_settings(run).cluster
    _check_training(run, common, SECTION)
    _check_adapter(common.adapter, common.model.size, f"{SECTION}.adapter")


def layer_names(config: VGGTConfig) -> tuple[str, ...]:
    """Return the names of all linear layers that can have adapters: first the aggregator's, then the camera head's."""
    blocks = [f"{_AGGREGATOR}{kind}_blocks.{depth}" for kind in ("frame", "global") for depth in range(config.depth)]
    blocks += [f"camera_head.trunk.{depth}" for depth in range(config.camera_depth)]
    inner = tuple(f"{block}.{linear}" for block in blocks for linear in _LINEARS)
    return inner + tuple(f"camera_head.{name}" for name in _CAMERA)


def largest_rank(config: VGGTConfig) -> int:
    """Return the largest rank that an update of these layers can have; the heads are twice as wide."""
    return 2 * config.width


def _check_training(run: StageRun, settings: TrainSettings, section: str) -> None:
    """Check the base model and the data settings."""
    checkpoint = settings.model.checkpoint
    try:
        if checkpoint and Path(checkpoint).parent != run.folder(PRETRAIN):  # which the stage pretrain makes
            check_source(checkpoint)
    except DatasetError as error:
        raise DatasetError(f"{section}.model.checkpoint: {error}; leave it empty for random weights") from None
    try:
        check_settings(settings.training().data)
    except ConfigError as error:
        raise ConfigError(f"{section}.{error}") from None


def _check_adapter(adapter: AdapterSettings, size: str, key: str) -> None:
    _pattern(f"{key}.targets", adapter.targets)
    if adapter.mode == "subspace":
        if not adapter.basis:
            raise ConfigError(
                f"{key}.mode=subspace needs {key}.basis=, a basis file mined earlier, e.g. "
                "runs/subspaces/all.safetensors; or use mode=lora"
            )
        if not Path(adapter.basis).is_file():
            raise ConfigError(f"{key}.basis={adapter.basis}: there is no such file; name a basis mined earlier")
    limit = largest_rank(SIZES[size])
    name, rank = ("rank", adapter.rank) if not adapter.head_rank else ("head_rank", adapter.head_rank)
    if adapter.mode != "full" and max(rank, head_rank(adapter)) > limit:
        raise ConfigError(
            f"{key}.{name}={rank}: no layer of {size} can have a rank above {limit}; choose a smaller one"
        )


def check_mine(run: StageRun) -> None:
    """As ``check_pretrain``."""
    settings = stage_settings(run)
    adapter, mining = settings.cluster.adapter, settings.mining
    _check_minable(run, settings, "the stage mine")
    check_centre(mining.centre, mining.extractor)
    targets = _pattern(f"{SECTION}.adapter.targets", adapter.targets)
    modules = _pattern(f"{SECTION}.mining.modules", mining.modules)
    names = layer_names(SIZES[settings.cluster.model.size])
    adapted = [name for name in names if targets is None or targets.fullmatch(name)]
    example = r"it must match whole names, e.g. aggregator\.frame_blocks\.\d+\.attn\.qkv"
    if modules is None and not any(name.startswith(_AGGREGATOR) for name in adapted):
        raise ConfigError(
            f"{SECTION}.adapter.targets={adapter.targets} matches no layer of the aggregator of "
            f"{settings.cluster.model.size}, and the stage mine works on no others; {example}"
        )
    if modules is not None and not any(modules.fullmatch(name) for name in adapted):
        where = f" that adapter.targets={adapter.targets} adapts" if targets is not None else ""
        raise ConfigError(
            f"{SECTION}.mining.modules={mining.modules} matches no linear layer of "
            f"{settings.cluster.model.size}{where}; {example}"
        )


def _check_minable(run: StageRun, settings: StageSettings, who: str) -> None:
    """Check that the cluster's adapters are low-rank, and that the cluster has the attributes to be mined."""
    mode = settings.cluster.adapter.mode
    if mode in ("full", "heads"):
        what = "changes all weights" if mode == "full" else "adapts no layer of the aggregator"
        raise ConfigError(
            f"{SECTION}.adapter.mode={mode} {what}, but {who} needs low-rank adapters on the aggregator: use e.g. "
            "mode=lora, or leave the stages mine and compare out of stages="
        )
    for attribute in settings.mining.attributes:
        if attribute not in run.members:
            known = list(run.members)
            raise ConfigError(
                f"{SECTION}.mining.attributes={attribute}: the cluster has no such "
                f"attribute{nearest(attribute, known)}; it has {', '.join(known)}"
            )


def check_compare(run: StageRun) -> None:
    """As ``check_pretrain``; ConfigError also if the experiment has no downstream data."""
    settings = stage_settings(run)
    compare = settings.compare
    if compare is None:
        raise ConfigError(
            "stage compare: the experiment has no downstream data; name a preset, e.g. downstream=everything, or leave "
            "the stage out of stages="
        )
    if compare.uses_basis():
        _check_minable(run, settings, "the stage compare")
        _check_controls(run, compare, settings)
    _check_training(run, compare.training(), f"{SECTION}.compare")
    check_width(f"{SECTION}.compare.test.width_px", compare.test.width_px)
    _check_methods(compare, settings.mining.attributes or tuple(run.members), settings.mining.dimension)


def _check_controls(run: StageRun, compare: CompareSettings, settings: StageSettings) -> None:
    """Check that the stage cluster will make adapters of which controls can be made."""
    names = expand(compare.methods, settings.mining.attributes or tuple(run.members), 1)
    if settings.cluster.adapter.mode == "dora" and any(map(is_control, names)):
        raise ConfigError(
            f"{SECTION}.adapter.mode=dora: no control holds its change of magnitudes; leave controls, mean, merge-ties "
            f"and held-out out of {SECTION}.compare.methods="
        )
    single = [attribute for attribute, datasets in run.members.items() if len(datasets) < 2]
    if single and any(name in HELD_OUT for name in names):
        raise ConfigError(
            f"{SECTION}.compare.methods: held-out leaves out an adapter of each attribute, but {single[0]} has one "
            f"dataset: choose dataset_count=2 or more, or leave controls and held-out out of {SECTION}.compare.methods="
        )


def _check_methods(compare: CompareSettings, attributes: Sequence[str], dimension: int) -> None:
    for method in compare.resolve(attributes, dimension * len(attributes)):
        adapter = method.adapter
        if adapter is None:
            continue
        if adapter.mode == "subspace":  # the stage mine makes its basis
            _pattern(f"{SECTION}.compare.adapter.targets", adapter.targets)
        else:
            _check_adapter(adapter, compare.model.size, f"{SECTION}.compare: method {method.name}: adapter")


def _pattern(key: str, pattern: str) -> re.Pattern[str] | None:
    """Return a compiled regular expression, None for an empty one."""
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise ConfigError(f"{key}={pattern}: not a regular expression ({error})") from None
