"""What two random subspaces look like: their principal angles, drawn once for every combination of sizes."""

from __future__ import annotations

import numpy as np

from megasynth_train.subspace.null_angles import null_angles


class Chance:
    """Remembers its draws; each combination of sizes has its own seed, so that no figure depends on the others."""

    def __init__(self, seed: int = 0, draws: int = 100) -> None:
        self._seed, self._draws = seed, draws
        self._known: dict[tuple[int, int, int], np.ndarray] = {}

    def angles(self, size: int, first: int, second: int) -> np.ndarray:
        """Return draws × min(first, second) angles of random subspaces of R^size, radians, smallest first."""
        key = (size, min(first, second), max(first, second))
        if key not in self._known:
            self._known[key] = null_angles(*key, self._draws, np.random.default_rng((self._seed, *key)))
        return self._known[key]

    def smallest(self, size: int, first: int, second: int) -> float:
        """Return the median over the draws of the smallest angle, radians."""
        return float(np.median(self.angles(size, first, second)[:, 0]))
