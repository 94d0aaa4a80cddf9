"""All keys of ``python -m megasynth_train.compare``; free of PyTorch, so that the pipeline can check them at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.command.layers import merge
from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting, shared_values
from megasynth_attr.core.selection import parse_shard
from megasynth_train.compare.methods import (
    BASE,
    CONTROLS,
    MATCHED,
    PAPER,
    RANDOM,
    Method,
    builtin,
    expand,
    frame_of,
    is_control,
)
from megasynth_train.evaluate.depth import ALIGNMENTS
from megasynth_train.evaluate.options import EvaluateSettings, MeasureSettings
from megasynth_train.evaluate.protocols import NONE, PROTOCOLS
from megasynth_train.training.settings import (
    SUBSPACE_KEYS,
    AdapterSettings,
    DataSettings,
    OptimSettings,
    SeveralSettings,
    TrainSettings,
)

TUNING = "tuning"  # folder of the trials of learning rates
OWN_KEYS = ("like", "lr", "adapter", "optim")  # of a method in define
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class AcrossSettings:
    """Other data, on which every method is evaluated as well without having been trained on their like."""

    data: tuple[str, ...] = setting(
        (),
        "folders of data from another domain; evaluated as test says, into <out>/across",
        literal=True,
        identity=False,
    )
    protocol: str = setting(
        NONE, "the paper's evaluation of a task, instead of test.protocol", options=[NONE, *PROTOCOLS]
    )


@dataclass(frozen=True)
class TuneSettings:
    """How the learning rate of each trained method is chosen: by validation scenes, never by test scenes."""

    lr: tuple[float, ...] = setting(
        (),
        "learning rates to try for every trained method, with one seed and the full budget; the best on the "
        "validation scenes is used for all seeds; empty: optim.lr for all methods",
        minimum=0,
    )
    share: float = setting(
        0.1,
        "share of the training scenes that trials hold out, if data.validation_share is 0",
        minimum=0.001,
        maximum=0.9,
    )


@dataclass(frozen=True)
class CompareSettings(SeveralSettings):
    """What is compared. adapter: what the methods have in common; their names set mode, basis and attributes."""

    methods: tuple[str, ...] = setting(
        (PAPER,),
        "base, full, heads, heads-matched, lora-16 (also rslora, dora, pissa, adalora, lora_xs), subspace, "
        "subspace-block, random, only-texture+geometry, without-texture, random-without-texture, names in define; "
        "paper: the paper's whole list; controls: base and models that are not trained (mean, mean-texture, "
        "merge-ties, held-out, held-out-projected and others: docs/subspaces.md)",
    )
    define: dict[str, Any] = setting(
        {},
        "methods of your own, or changes to those above: define.slow.like=lora-16 define.slow.lr=1e-6 (keys: like, lr, "
        "adapter.…, optim.…)",
    )
    seeds: tuple[int, ...] = setting(
        (0, 1, 2),
        "each method is trained once per seed, which sets data order, initial values and random basis",
        minimum=0,
    )
    reference: str = setting("", "method that the others are compared with seed by seed; empty: subspace, or the first")
    basis: str = setting(
        "",
        "basis of the subspace and random methods: a folder of megasynth_train.mine (chosen attributes then come from "
        "their own files, each in full), or one basis file (chosen attributes are columns of it; if all its columns "
        "are orthonormal, those of an attribute span only what the attributes before it do not)",
    )
    held_out: int = setting(
        1, "held-out methods: adapters of each attribute that are left out, each in turn", minimum=1
    )
    alignment: str = setting("median", "how depth is aligned before AbsRel and δ<1.25", options=ALIGNMENTS[1:])
    shard: str = setting("1/1", "this process's share of the runs, i/n, counted from 1")
    plan: bool = setting(False, "print runs, trained parameters and cost, and stop")
    test: MeasureSettings = field(default_factory=MeasureSettings)
    across: AcrossSettings = field(default_factory=AcrossSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)

    def check(self) -> None:
        """Raise ConfigError for keys that are missing, contradict each other or cannot be set in a comparison.

        Names of methods are checked as far as possible without a basis.
        """
        for key, value, example in (
            ("data", self.data.sources, "data=runs/demo/everything_00"),
            ("test.data", self.test.data, "test=runs/demo/everything_01"),
            ("out", self.run.out, "out=runs/comparison"),
        ):
            if not value:
                raise ConfigError(f"{key}= is missing, e.g. {example}")
        self.test.check()
        if self.across.protocol != NONE and not self.across.data:
            raise ConfigError(f"across.protocol={self.across.protocol} needs across.data=, the data it evaluates")
        if self.across.data:
            across_of(self).check()
        parse_shard(self.shard)
        if not self.seeds:
            raise ConfigError("seeds= is empty; give at least one, e.g. seeds=[0,1,2]")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds={list(self.seeds)} names a seed twice: it would count as two runs")
        _check_foreign(self)
        if self.test.split != "all" and self.test.validation_share != self.data.validation_share:
            raise ConfigError(
                f"test.validation_share={self.test.validation_share:g} and data.validation_share="
                f"{self.data.validation_share:g} differ: with test.split={self.test.split} they must be equal"
            )
        folders = {trial_folder(Path(), "", lr) for lr in self.tune.lr}
        if len(folders) < len(self.tune.lr) or 0.0 in self.tune.lr:
            raise ConfigError(f"tune.lr={list(self.tune.lr)}: give different rates above 0, e.g. tune.lr=[1e-5,3e-5]")
        if not self.methods:
            raise ConfigError("methods= is empty; name some, e.g. methods=[base,heads,lora-16]")
        for name in {*self.methods, *self.define} - {PAPER, CONTROLS}:
            if not _SAFE_NAME.fullmatch(name) or name.endswith("."):
                raise ConfigError(
                    f"method {name!r}: the name becomes a folder; use letters, digits, '-', '_', '+', '.' inside"
                )
            _check_definition(name, self.define)
        for name in self.methods if self.tune.lr else ():
            chain = [one for one in _chain(name, self.define) if one in self.define]
            if own := next((one for one in chain if "lr" in _layer(self.define[one])["optim"]), ""):
                raise ConfigError(
                    f"define.{own}.lr= fixes the learning rate of {name}, and tune.lr= would choose another; leave out "
                    "one of the two"
                )

    def uses_basis(self) -> bool:
        """Return whether a method needs a basis, or its adapters or size; ``paper``: whether a basis is given."""
        names = [_chain(name, self.define)[-1] for name in self.methods]
        needs = any(frame_of(name) or name in (MATCHED, CONTROLS) or is_control(name) for name in names)
        return needs or (PAPER in names and bool(self.basis))

    def resolve(self, attributes: Sequence[str] = (), dimension: int = 0) -> tuple[Method, ...]:
        """Return the methods to compare, in order; ``attributes`` and ``dimension`` (columns of a layer): the basis's.

        ConfigError for an unknown method, with the nearest known one, and for a definition that does not fit.
        """
        names = expand(self.methods, attributes, dimension or 64)
        methods = tuple(self.method(name, attributes) for name in names)
        if self.reference and self.reference not in names:
            raise ConfigError(f"reference={self.reference} is not one of the methods {', '.join(names)}")
        return methods

    def method(self, name: str, attributes: Sequence[str]) -> Method:
        """Return a method, whether it is compared or not; raises as ``resolve``.

        The method's name overrides the common settings, and define overrides both.
        """
        chain = _chain(name, self.define)
        root, layers = chain[-1], [_layer(self.define[one]) for one in reversed(chain) if one in self.define]
        keys: dict[str, Any] = {}
        basis, matched = "", False
        has_mode = "mode" in ((self.define.get(root) or {}).get("adapter") or {})
        if not has_mode:
            keys, basis = builtin(root, attributes)
            matched = root == MATCHED
        if basis == RANDOM:
            keys["m_init"] = AdapterSettings.m_init  # a random basis has no cluster whose mean it could start from
        shared = to_plain(self.adapter)
        if not basis:
            shared = {key: value for key, value in shared.items() if key not in SUBSPACE_KEYS}
        common: dict[str, Any] = {"adapter": shared, "optim": to_plain(self.optim)}
        for layer in ({"adapter": keys}, *layers):
            common = merge(common, layer)
        try:
            adapter, optim = fill(AdapterSettings, common["adapter"]), fill(OptimSettings, common["optim"])
        except ConfigError as error:
            raise ConfigError(f"method {name}: {error}") from None
        if matched and any("head_rank" in layer["adapter"] for layer in layers):
            raise ConfigError(f"method {name}: the rank of {MATCHED} is computed; use like=heads to choose a head_rank")
        if root == BASE or (is_control(root) and not keys and not has_mode):
            if len(chain) > 1 or self.define.get(root):
                raise ConfigError(f"define.{name}: {root} is not trained, so it has nothing to change")
            return Method(name, None, optim)
        return Method(name, adapter, optim, basis, matched)

    def reference_of(self, names: Sequence[str]) -> str:
        """Return the method the others are compared with."""
        return self.reference or next((name for name in ("subspace", *names) if name in names), "")


def _chain(name: str, define: Mapping[str, Any]) -> list[str]:
    """Return ``name`` and, one after another, the methods that ``like`` leads to; ConfigError for a cycle."""
    chain = [name]
    while like := (define.get(chain[-1]) or {}).get("like"):
        if like in chain:
            raise ConfigError(f"define.{name}.like={like} is circular: {' → '.join([*chain, like])}")
        chain.append(str(like))
    return chain


def _layer(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a definition as keys of the sections adapter and optim."""
    optim = dict(definition.get("optim") or {})
    if "lr" in definition:
        optim["lr"] = definition["lr"]
    return {"adapter": dict(definition.get("adapter") or {}), "optim": optim}


def _check_definition(name: str, define: Mapping[str, Any]) -> None:
    definition = define.get(name, {})
    if not isinstance(definition, Mapping):
        raise ConfigError(
            f"define.{name}={definition}: give keys, e.g. define.{name}.lr=1e-4 or define.{name}.like=lora"
        )
    for key, value in definition.items():
        if key not in OWN_KEYS:
            guess = nearest(str(key), OWN_KEYS)
            raise ConfigError(f"unknown key define.{name}.{key}{guess}; known: {', '.join(OWN_KEYS)}")
        if key in ("adapter", "optim") and not isinstance(value, Mapping):
            raise ConfigError(f"define.{name}.{key}={value}: this is a section; set one of its keys")
    if "steps" in (definition.get("optim") or {}):
        raise ConfigError(f"define.{name}.optim.steps: all methods have the same budget; set optim.steps for all")
    if {"basis", "seed"} & set(definition.get("adapter") or {}):
        raise ConfigError(
            f"define.{name}.adapter: basis and seed are set for the whole comparison; use basis= and seeds="
        )
    if (definition.get("adapter") or {}).get("mode") == "subspace":
        raise ConfigError(f"define.{name}.adapter.mode=subspace: use define.{name}.like=subspace (or random) instead")


def _check_foreign(settings: CompareSettings) -> None:
    """Raise ConfigError for keys of the common sections that methods= and seeds= decide."""
    usual = AdapterSettings()
    for key, instead in (
        ("mode", "methods="),
        ("seed", "seeds="),
        ("basis", "basis="),
        ("attributes", "methods=, e.g. only-texture"),
        ("mask", "methods=, e.g. subspace-block"),
    ):
        if getattr(settings.adapter, key) != getattr(usual, key):
            raise ConfigError(f"adapter.{key}= cannot be set for a whole comparison; use {instead}")
    if settings.run.seed:
        raise ConfigError("run.seed= is for a single run; a comparison takes seeds=, e.g. seeds=[0,1,2]")


def training_of(settings: CompareSettings, method: Method, seed: int, basis: str, out: str) -> TrainSettings:
    """Return the settings of one run: data order and initial values from ``seed``, everything else in common.

    ``basis`` is the basis file of a method that needs one, else empty.
    """
    if method.adapter is None:
        raise ValueError(f"{method.name} is not trained")
    common = settings.training()
    adapter = replace(method.adapter, seed=seed)
    if method.basis:
        adapter = fill(AdapterSettings, to_plain(adapter) | {"basis": basis})
    return replace(common, adapter=adapter, optim=method.optim, run=replace(common.run, seed=seed, out=out))


def trial_folder(out: Path, method: str, lr: float) -> Path:
    """Return the folder in which a learning rate of a method is tried."""
    return out / TUNING / method / f"lr_{lr:g}"


def tuning_data(settings: CompareSettings) -> DataSettings:
    """Return the training data of trials of learning rates, which hold some scenes out."""
    data = settings.training().data
    return replace(data, validation_share=data.validation_share or settings.tune.share)


def trial_settings(
    settings: CompareSettings, method: Method, lr: float, seed: int, basis: str, out: str
) -> tuple[TrainSettings, EvaluateSettings]:
    """Return how a learning rate is tried, and how the result is measured on the scenes that were held out."""
    tried = replace(method, optim=replace(method.optim, lr=lr))
    training = replace(training_of(settings, tried, seed, basis, out), data=tuning_data(settings))
    training = replace(training, run=replace(training.run, validate_every=0))
    data, measure = training.data, evaluation_of(settings)
    return training, replace(
        measure,
        data=data.sources,
        protocol=NONE,
        format=data.format,
        depth_unit=data.depth_unit,
        scaled_rotation=data.scaled_rotation,
        split="validation",
        validation_share=data.validation_share,
        scenes=data.scenes,
        max_scenes=0,
        pictures=False,
        page=False,
    )


def across_of(settings: CompareSettings) -> MeasureSettings:
    """Return how the data of another domain are evaluated: as ``test``, or by their own protocol."""
    across = settings.across
    if across.protocol == NONE:
        return replace(settings.test, data=across.data)
    return replace(settings.test, **PROTOCOLS[across.protocol].fixed, data=across.data, protocol=across.protocol)


def evaluation_of(settings: CompareSettings, *, across: bool = False) -> EvaluateSettings:
    """Return how every run is evaluated, on the test data or on those of another domain."""
    measure = across_of(settings) if across else settings.test
    common = settings.run
    return EvaluateSettings(
        **shared_values(MeasureSettings, measure),
        model=settings.model,
        device=common.device,
        threads=common.threads,
        progress=common.progress,
    )
