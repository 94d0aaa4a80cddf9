"""Updates less a mean: what an attribute's adapters differ in, or what is its own and not every attribute's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from megasynth_train.subspace.core import NO_ENERGY, Core, Update, core_coordinates


def centred(cores: Mapping[str, Core], centre: str) -> dict[str, Core]:
    """Return each attribute's core with a mean removed from its updates; ``centre`` is one of settings.CENTRES.

    ``attribute``: its own mean; ``grand``: the mean over the attributes of their means. The updates then have as many
    dimensions as all that the mean is of span together, and mining them takes longer by as much.
    """
    if centre == "none":
        return dict(cores)
    if centre == "attribute":
        return {name: _less(core, core.cores, core.cores.mean(axis=0)) for name, core in cores.items()}
    whole = core_coordinates([update for core in cores.values() for update in _updates(core)])
    ends = np.cumsum([len(core.factors_left) for core in cores.values()])[:-1]
    parts = dict(zip(cores, np.split(whole.cores, ends), strict=True))
    grand = np.mean([part.mean(axis=0) for part in parts.values()], axis=0)
    return {name: _less(whole, part, grand) for name, part in parts.items()}


def _updates(core: Core) -> list[Update]:
    factors = zip(core.factors_left, core.factors_right, strict=True)
    return [Update(core.left @ left, core.right @ right) for left, right in factors]


def _less(frame: Core, updates: np.ndarray, mean: np.ndarray) -> Core:
    """Return updates (k × p × q) less a mean, in the coordinates of ``frame``; a rest that is rounding is zero."""
    rest = updates - mean
    sizes = np.linalg.norm(rest, axis=(1, 2)), np.linalg.norm(updates, axis=(1, 2)) + np.linalg.norm(mean)
    rest = np.where((sizes[0] > NO_ENERGY * sizes[1])[:, None, None], rest, 0.0)
    units = (np.eye(rest.shape[2]),) * len(rest)
    return Core(frame.left, frame.right, tuple(rest), units)
