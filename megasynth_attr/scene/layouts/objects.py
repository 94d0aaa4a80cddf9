"""Object-centred layout: large and small boxes around the centre, touching into clusters, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from megasynth_attr.scene.layout import KeepoutOf, Layout, Site, Spot, between, count_in

if TYPE_CHECKING:
    from megasynth_attr.scene.factors.geometry import GeometrySettings
    from megasynth_attr.scene.layouts.counts import Counts


def sample(rng: np.random.Generator, settings: GeometrySettings, counts: Counts, keepout_of: KeepoutOf) -> Layout:
    """Return boxes in a volume without walls. The scene's scale follows from them, so cameras are checked later."""
    extent = np.array([*between(rng, settings.objects_size_xy, 2), between(rng, settings.objects_size_z)])
    site = Site(extent, settings.objects_overlap, keepout=None)
    for kind, limits, xy, z in (
        ("large", counts.large, settings.large_size_xy, settings.large_size_z),
        ("small", counts.small, settings.small_size_xy, settings.small_size_z),
    ):
        for _ in range(count_in(rng, limits)):
            site.place(kind, _around_centre(rng, settings, extent, xy, z), solid=True, primitives=kind)
    return site.finish("objects", None)


def _around_centre(
    rng: np.random.Generator,
    settings: GeometrySettings,
    extent: np.ndarray,
    xy: tuple[float, float],
    z: tuple[float, float],
) -> Spot:
    """Return candidates near the centre first (``objects_spread``), the last ones anywhere in the volume."""
    trials = settings.box_trials
    sizes = np.column_stack([between(rng, xy, (trials, 2)), between(rng, z, trials)])
    reach = settings.objects_spread + (1 - settings.objects_spread) * np.arange(trials)[:, None] / trials
    slack = np.maximum(extent - sizes, 0)
    return Spot(extent / 2 + reach * slack * (rng.random((trials, 3)) - 0.5), sizes)
