"""Rows of the analysis that leave the sample: energy in bases mined without an adapter, cosines across attributes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from megasynth_train.subspace.analysis import HeldOutRow, LayerKey
from megasynth_train.subspace.core import Core, Update
from megasynth_train.subspace.held_out import Miner, Shares, around_the_mean, held_out, same, shares

Sides = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Turn:
    """Which adapters a layer leaves out: those whose turn it is among the layers of its kind, ``rounds`` times each."""

    number: int = 0  # of the layer among these, from 0
    layers: int = 1
    rounds: int = 1

    def of(self, count: int) -> list[int]:
        """Return positions among ``count``: at most all, and in all layers together every one ``rounds`` times."""
        share = -(-count * self.rounds // self.layers)
        return [(self.number * share + step) % count for step in range(min(share, count))]


def turns(layers: Sequence[LayerKey], rounds: int) -> dict[str, Turn]:
    """Return the turn of every layer, by module."""
    return {
        module: Turn(number, len(modules), rounds)
        for modules in _kinds(layers)
        for number, module in enumerate(modules)
    }


def reported(layers: Sequence[LayerKey], most: int) -> frozenset[str]:
    """Return the modules of at most ``most`` layers of each kind, from first to last evenly in depth; 0: all."""
    chosen: set[str] = set()
    for modules in _kinds(layers):
        places = np.linspace(0, len(modules) - 1, min(most, len(modules)) or len(modules))
        chosen |= {modules[place] for place in np.rint(places).astype(int)}
    return frozenset(chosen)


def _kinds(layers: Sequence[LayerKey]) -> Collection[list[str]]:
    """Return the modules of each kind of layer by depth."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for layer in sorted(layers, key=lambda layer: (layer.depth, layer.module)):
        kinds.setdefault((layer.attention, layer.kind), []).append(layer.module)
    return kinds.values()


def held_out_rows(
    layer: LayerKey, attribute: str, core: Core, datasets: Sequence[str], miner: Miner, dimension: int, turn: Turn
) -> Iterator[HeldOutRow]:
    """Yield the rows of one attribute's updates in bases of its own others; none where no update has any."""
    alike, others = same(datasets), np.eye(len(datasets)) == 0
    names = sorted(set(datasets))
    adapters = np.isin(np.arange(len(datasets)), turn.of(len(datasets)))[:, None]
    left_out = np.isin(datasets, [names[i] for i in turn.of(len(names))])[:, None]
    tests = {
        "adapter": (adapters & others, miner),
        "dataset": (left_out & ~alike, miner),
        "around": (left_out & ~alike, around_the_mean(dimension)),
        "seeds": (left_out & alike & others, miner),
    }
    known: list[tuple[np.ndarray, Miner, Shares]] = []  # without other seeds, two tests are one
    for basis, (used, find) in tests.items():
        before = [found for table, by, found in known if by is find and np.array_equal(table, used)]
        found = before[0] if before else held_out(core, used, find)
        known.append((used, find, found))
        yield from _rows(layer, attribute, basis, [found])


def others_rows(layer: LayerKey, attribute: str, core: Core, bases: Sequence[Sides]) -> Iterator[HeldOutRow]:
    """Yield the row of an attribute's updates in the bases of the other attributes, given in core coordinates."""
    yield from _rows(layer, attribute, "others", [shares(core, *sides) for sides in bases])


def _rows(layer: LayerKey, attribute: str, basis: str, found: Sequence[Shares]) -> Iterator[HeldOutRow]:
    """Yield the means as one row, unless nothing was tested."""
    if not found:
        return
    table = np.array([(s.out, s.inner, s.out_chance, s.inner_chance) for s in found]).transpose(0, 2, 1)
    tested = ~np.isnan(table).any(axis=2)  # bases × adapters
    if tested.any():
        out, inner, out_chance, inner_chance = table[tested].mean(axis=0).tolist()
        adapters = int(tested.any(axis=0).sum())
        yield HeldOutRow(layer, attribute, basis, out, inner, out_chance, inner_chance, adapters)


def mean_cosine(first: Sequence[Update], second: Sequence[Update]) -> float | None:
    """Return the mean cosine between the updates of two lists that are not zero; None if there are none."""
    cosines = [
        _inner(one, other) / np.sqrt(_inner(one, one) * _inner(other, other))
        for one, other in product(first, second)
        if _inner(one, one) and _inner(other, other)
    ]
    return float(np.mean(cosines)) if cosines else None


def _inner(one: Update, other: Update) -> float:
    """Return ⟨dW, dW'⟩ from the factors."""
    return float(np.sum((one.left.T @ other.left) * (one.right.T @ other.right)))
