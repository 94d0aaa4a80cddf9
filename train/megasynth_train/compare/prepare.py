"""A comparison before anything is trained: its methods, its bases, and what each method trains.

Trained parameters are counted on the model's shapes, without weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from megasynth_attr.core.errors import ConfigError, MegaSynthError
from megasynth_attr.core.pages.words import number_text
from megasynth_train.adapters import trainable_counts
from megasynth_train.compare.bases import Bases, open_bases
from megasynth_train.compare.controls import Origin
from megasynth_train.compare.methods import MINED, Method, is_control
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.subspace.basis import Basis
from megasynth_train.vggt.config import named_config

PARTS = ("aggregator", "heads", "encoder")
HEADS = ("camera head", "depth head", "point head")


@dataclass(frozen=True)
class Size:
    """A method's trained parameters by part; the largest number of columns in a layer of its basis, and its hash."""

    parameters: dict[str, int]
    columns: int = 0
    basis_sha256: str = ""  # of the mined basis it trains in or takes its shapes from; empty: none
    note: str = ""  # what a reader of its results must know

    @property
    def total(self) -> int:
        """Return the count of all trained parameters."""
        return sum(self.parameters.values())


@dataclass(frozen=True)
class Prepared:
    """A comparison whose methods are known and checked, with the basis in memory if a method needs one."""

    settings: CompareSettings
    methods: tuple[Method, ...]
    sizes: dict[str, Size]  # by method
    bases: Bases | None

    @cached_property
    def origin(self) -> Origin:
        """Return the adapters from which the bases were mined, of which controls are made; they are not opened yet."""
        assert self.bases is not None  # checked by prepare
        return Origin(self.bases, self.settings.held_out)

    @property
    def trained(self) -> tuple[Method, ...]:
        """Return the methods that are trained."""
        return tuple(method for method in self.methods if method.adapter is not None)

    @property
    def notes(self) -> dict[str, str]:
        """Return what a reader of a method's results must know, by method."""
        return {name: size.note for name, size in self.sizes.items() if size.note}


def prepare(settings: CompareSettings) -> Prepared:
    """Return the comparison with every method checked against the model's size; reads no data and no weights.

    ConfigError naming the method that cannot be built, DatasetError for a basis that cannot be read. Each choice of
    attributes is joined once.
    """
    settings.check()
    bases = None
    if settings.uses_basis():
        if not settings.basis:
            settings.resolve()  # names the method, or explains why its name is unknown
            raise ConfigError(
                "basis= is missing: some of methods= train in a basis; give a folder of megasynth_train.mine"
            )
        bases = open_bases(settings.basis, settings.run.out)
    methods = settings.resolve(bases.whole.attributes, _columns(bases.whole)) if bases else settings.resolve()
    target = 0
    if bases and any(method.matched for method in methods):
        reference = settings.method("subspace", bases.whole.attributes)
        target = sum(_parameters(reference, settings, bases, bases.whole).values())
        methods = tuple(_matched(one, settings, target) if one.matched else one for one in methods)
    sizes = {}
    choices = {method.name: _choice(method, bases) for method in methods}
    for choice in dict.fromkeys(choices.values()):
        basis = bases.of(choice) if bases and choice is not None else None
        for method in (one for one in methods if choices[one.name] == choice):
            sizes[method.name] = _size(method, settings, bases, basis, target)
    return Prepared(settings, methods, {method.name: sizes[method.name] for method in methods}, bases)


def by_part(parts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the trained parameters of aggregator, heads and encoder, summed from those of a model's finer parts."""
    total = dict.fromkeys(PARTS, 0)
    for part, count in parts:
        total["heads" if part in HEADS else "encoder" if part == "encoder" else "aggregator"] += count
    return total


def _choice(method: Method, bases: Bases | None) -> tuple[str, ...] | None:
    """Return the attributes whose basis a method trains in (empty: all), None if it needs none."""
    return bases.choice(method.adapter.attributes) if bases and method.basis and method.adapter else None


def _columns(basis: Basis) -> int:
    return max((layer.dimension for layer in basis.layers.values()), default=0)


def _matched(method: Method, settings: CompareSettings, target: int) -> Method:
    """Return the method with the rank of LoRA on the heads whose count, linear in the rank, is nearest ``target``."""
    assert method.adapter is not None
    one = replace(method, adapter=replace(method.adapter, head_rank=1))
    rank = max(1, round(target / sum(_parameters(one, settings).values())))
    return replace(method, adapter=replace(method.adapter, head_rank=rank))


def _size(method: Method, settings: CompareSettings, bases: Bases | None, basis: Basis | None, target: int) -> Size:
    if method.adapter is None:
        is_of_basis = bases is not None and is_control(method.name)
        return Size(by_part([]), basis_sha256=bases.whole.sha256 if bases and is_of_basis else "")
    size = Size(_parameters(method, settings, bases, basis))
    if method.matched:
        note = (
            f"LoRA of rank {method.adapter.head_rank} on the heads alone: {number_text(size.total)} trained "
            f"parameters, the nearest to the {number_text(target)} of subspace"
        )
        return replace(size, note=note)
    if bases is None or basis is None:
        return size
    note = bases.note(method.adapter.attributes, method.adapter.mask) if method.basis == MINED else ""
    return Size(size.parameters, _columns(basis), basis.sha256, note)


def _parameters(
    method: Method, settings: CompareSettings, bases: Bases | None = None, basis: Basis | None = None
) -> dict[str, int]:
    """Return the trained parameters by part; ConfigError naming the method if the model does not take it."""
    assert method.adapter is not None
    adapter = replace(method.adapter, basis=str(bases.file)) if bases and basis else method.adapter
    try:
        config = named_config(settings.model.size, point_head=False)
        rows = trainable_counts(config, adapter, settings.optim.steps, basis=basis)
    except MegaSynthError as error:
        raise ConfigError(f"method {method.name}: {error}") from None
    return by_part((row.part, row.parameters) for row in rows)
