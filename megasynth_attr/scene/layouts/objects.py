"""Object-centred layout: large and small boxes around the centre, touching into clusters, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.ranges import Range, Uniform
from megasynth_attr.scene.layout import BoxSettings, KeepoutOf, Layout, Site, Spot, length, probability
from megasynth_attr.scene.layouts.counts import Counts

LARGE, SMALL = Uniform(3, 6), Uniform(3, 6)  # boxes where the preset does not say


@dataclass(frozen=True)
class ObjectsSettings(BoxSettings):
    """Boxes around the centre."""

    objects_size_xy: Range[float] = length(12, 15, "objects: length and width of the volume")
    objects_size_z: Range[float] = length(12, 18, "objects: height of the volume")
    objects_overlap: float = probability(0.25, "objects: tolerated intersection of boxes, share of the smaller volume")
    objects_spread: float = probability(
        0.4, "objects: share of the volume used first; it grows to 1 as places are tried"
    )


def sample(rng: np.random.Generator, settings: ObjectsSettings, counts: Counts, keepout_of: KeepoutOf) -> Layout:
    """Return boxes in a volume without walls. The scene's scale follows from them, so cameras are checked later."""
    extent = np.array([*settings.objects_size_xy.draw(rng, 2), settings.objects_size_z.draw(rng)])
    site = Site(extent, settings.objects_overlap, keepout=None)
    for kind, limits, xy, z in (
        ("large", counts.large, settings.large_size_xy, settings.large_size_z),
        ("small", counts.small, settings.small_size_xy, settings.small_size_z),
    ):
        for _ in range(limits.draw(rng)):
            site.place(kind, _around_centre(rng, settings, extent, xy, z), solid=True, primitives=kind)
    return site.finish("objects", None)


def _around_centre(
    rng: np.random.Generator, settings: ObjectsSettings, extent: np.ndarray, xy: Range[float], z: Range[float]
) -> Spot:
    """Return candidates near the centre first (``objects_spread``), the last ones anywhere in the volume."""
    trials = settings.box_trials
    sizes = np.column_stack([xy.draw(rng, (trials, 2)), z.draw(rng, trials)])
    reach = settings.objects_spread + (1 - settings.objects_spread) * np.arange(trials)[:, None] / trials
    slack = np.maximum(extent - sizes, 0)
    return extent / 2 + reach * slack * (rng.random((trials, 3)) - 0.5), sizes
