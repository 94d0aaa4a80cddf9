"""The isolation matrix: how much each factor really varies between the scenes of a dataset.

A row is measured from scene files alone: the mean distance between all pairs of scenes, factor by factor, divided by
the same mean in a reference where everything varies: a preset for the factors that every dataset has, and the dataset's
own ranges for any other. The attribute's own entry should be near 1, all others 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from megasynth_attr.core.streams import Scope
from megasynth_attr.scene.config import Config, resolve
from megasynth_attr.scene.factor import Records, registered
from megasynth_attr.scene.sample import sample_scene
from megasynth_attr.scene.spec import Scene


@dataclass(frozen=True)
class IsolationRow:
    """Spread of every factor in one dataset, in the reference, and their ratio: 0 where nothing varies, None where
    only the dataset varies."""

    reference: str
    scenes: int
    spread: dict[str, float]
    reference_spread: dict[str, float]
    relative: dict[str, float | None]


def factor_spread(scenes: Sequence[Scene], records: Records) -> dict[str, float]:
    """Return, per factor, the mean distance between all pairs of ``scenes`` (0 for one scene)."""
    spread = {}
    for name, factor in registered().items():
        items = [scene.factors[name] for scene in scenes if name in scene.factors]
        if not items:  # it is off
            continue
        distinct = [
            item for i, item in enumerate(items) if item not in items[:i]
        ]  # a constant factor is described once
        described = [factor.describe(item, records) for item in distinct]
        which = [distinct.index(item) for item in items]
        between = np.zeros((len(distinct), len(distinct)))
        for i, j in combinations(range(len(distinct)), 2):
            between[i, j] = between[j, i] = factor.distance(described[i], described[j])
        distances = [between[i, j] for i, j in combinations(which, 2)]
        spread[name] = float(np.mean(distances)) if distances else 0.0
    return spread


def reference_of(config: Config) -> Config:
    """Return the configuration in which all factors of ``config`` vary: the reference preset, with the factors that it
    lacks added and drawn for every scene."""
    reference = resolve([f"preset={config.isolation.reference}"]).members[0]
    added = {name: settings for name, settings in config.factors.items() if name not in reference.factors}
    varying = {name: replace(settings, scope=Scope.SCENE.value, variants=1) for name, settings in added.items()}
    return replace(reference, factors={**reference.factors, **varying})


def reference_spread(reference: Config, config: Config, records: Records) -> dict[str, float]:
    """Return the spread of every factor in ``reference``, where all vary, over ``config.isolation.scenes`` scenes."""
    return factor_spread([sample_scene(reference, 0, i, records) for i in range(config.isolation.scenes)], records)


def compare(spread: dict[str, float], full: dict[str, float], config: Config, scenes: int) -> IsolationRow:
    """Return the row for a measured ``spread`` and the reference's ``full`` spread."""
    relative = {name: _ratio(value, full.get(name, 0.0)) for name, value in spread.items()}
    return IsolationRow(config.isolation.reference, scenes, spread, full, relative)


def _ratio(spread: float, full: float) -> float | None:
    if full:
        return spread / full
    return None if spread else 0.0
