"""What each method of a comparison trains: counted on the model's shapes, without weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from megasynth_attr.core.errors import ConfigError, MegaSynthError
from megasynth_attr.core.pages.words import number_text
from megasynth_train.adapters import trainable_counts
from megasynth_train.compare.bases import Bases
from megasynth_train.compare.collect import by_part
from megasynth_train.compare.methods import MINED, Method
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.subspace.basis import Basis
from megasynth_train.vggt.config import named_config


@dataclass(frozen=True)
class Size:
    """A method's trained numbers by part, and of a basis most columns in a layer and its hash (of the mined one)."""

    parameters: dict[str, int]
    columns: int = 0
    basis_sha256: str = ""
    note: str = ""  # what a reader of its results must know

    @property
    def total(self) -> int:
        """Return all trained numbers."""
        return sum(self.parameters.values())


def measured(
    methods: Sequence[Method], settings: CompareSettings, bases: Bases | None
) -> tuple[tuple[Method, ...], dict[str, Size]]:
    """Return the methods, with the rank of matched heads filled in, and what each trains.

    ConfigError naming the method that the model does not take. Each choice of attributes is made once.
    """
    sizes: dict[str, Size] = {}
    if any(method.matched for method in methods) and bases is not None:
        methods, sizes = _matched(methods, settings, bases)
    plain = [method for method in methods if method.name not in sizes]
    for choice in dict.fromkeys(_choice(method, bases) for method in plain):
        basis = bases.of(choice) if bases is not None and choice is not None else None
        for method in (one for one in plain if _choice(one, bases) == choice):
            sizes[method.name] = _size(method, settings, bases, basis)
    return tuple(methods), {method.name: sizes[method.name] for method in methods}


def _choice(method: Method, bases: Bases | None) -> tuple[str, ...] | None:
    """Return the attributes whose basis a method trains in (empty: all), None if it needs none."""
    if method.adapter is None or not method.basis or bases is None:
        return None
    return bases.choice(method.adapter.attributes)


def _size(method: Method, settings: CompareSettings, bases: Bases | None, basis: Basis | None) -> Size:
    if method.adapter is None:
        return Size(by_part([]))
    adapter = method.adapter
    if bases is None or basis is None:
        return Size(_parameters(method, settings, None))
    placed = replace(method, adapter=replace(adapter, basis=str(bases.file)))
    columns = max((layer.dimension for layer in basis.layers.values()), default=0)
    note = bases.note(adapter.attributes, adapter.mask) if method.basis == MINED else ""
    return Size(_parameters(placed, settings, basis), columns, basis.sha256, note)


def _matched(
    methods: Sequence[Method], settings: CompareSettings, bases: Bases
) -> tuple[tuple[Method, ...], dict[str, Size]]:
    """Return the methods with a rank for those of matched heads, and the sizes of these.

    The rank is the one at which LoRA on the heads comes nearest to what ``subspace`` trains; it is linear in the rank.
    """
    reference = settings.method("subspace", bases.whole.attributes)
    target = _size(reference, settings, bases, bases.whole).total
    found, sizes = [], {}
    for method in methods:
        if method.matched and method.adapter is not None:
            one = replace(method, adapter=replace(method.adapter, head_rank=1))
            rank = max(1, round(target / sum(_parameters(one, settings, None).values())))
            method = replace(method, adapter=replace(method.adapter, head_rank=rank))
            size = Size(_parameters(method, settings, None))
            note = (
                f"LoRA of rank {rank} on the heads alone: {number_text(size.total)} trained numbers, the nearest "
                f"to the {number_text(target)} of subspace"
            )
            sizes[method.name] = replace(size, note=note)
        found.append(method)
    return tuple(found), sizes


def _parameters(method: Method, settings: CompareSettings, basis: Basis | None) -> dict[str, int]:
    """Return the trained numbers by part; ConfigError naming the method if the model does not take it."""
    if method.adapter is None:
        raise ValueError(f"{method.name} is not trained")
    try:
        config = named_config(settings.model.size, point_head=False)
        rows = trainable_counts(config, method.adapter, settings.optim.steps, basis=basis)
    except MegaSynthError as error:
        raise ConfigError(f"method {method.name}: {error}") from None
    return by_part([(row.part, row.parameters) for row in rows])
