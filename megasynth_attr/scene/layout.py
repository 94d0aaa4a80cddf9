"""What every layout is made of: boxes placed by bounded rejection so that they keep clear of each other and of cameras.

Layout units; the inside of the layout is [0, extent]. Placing always ends: each box has a stated number of trials,
after which it is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.fields import setting, span
from megasynth_attr.core.ranges import Range
from megasynth_attr.scene.keepout import CameraRegion, InsideBox
from megasynth_attr.scene.spec import Box, Vec3, Window

TOLERANCE = 1e-6  # layout units; touching is not intersecting, and stored values are rounded to 1e-9
Keepout = Callable[[np.ndarray, np.ndarray], np.ndarray]  # N×3 centres and sizes of boxes → which of them keep clear
Spot = tuple[np.ndarray, np.ndarray]  # T candidates for one box, tried in order: centres and sizes, both T×3
KeepoutOf = Callable[[np.ndarray, np.ndarray], Keepout | None]  # low and high of the whole layout → its keepout


def probability(default: float, help: str) -> Any:
    """Return a settings field for a number in [0, 1]."""
    return setting(default, help, minimum=0, maximum=1)


def length(low: float, high: float, help: str) -> Any:
    """Return a settings field for a range of lengths in layout units."""
    return span(low, high, f"{help} (layout units)", minimum=0.001, maximum=1000)


@dataclass(frozen=True)
class BoxSettings:
    """Boxes that a room and a group of objects have in common."""

    box_trials: int = setting(64, "places tried for a box before it is dropped", minimum=1, maximum=10000)
    large_size_xy: Range[float] = length(4, 8, "large: length and width")
    large_size_z: Range[float] = length(4, 8, "large: height")
    small_size_xy: Range[float] = length(2, 4, "small: length and width")
    small_size_z: Range[float] = length(2, 6, "small: height")


@dataclass(frozen=True)
class Item:
    """A box and what fills it.

    ``primitives`` None: the box itself (one plain cuboid). Otherwise the class of which it holds a random number of
    primitives. ``shares_slot_of``: index of the item whose material slot this plain box shows (pieces of one wall).
    """

    box: Box
    primitives: str | None = None
    surface: str = "material"
    shares_slot_of: int | None = None


@dataclass(frozen=True)
class Layout:
    """All boxes of a scene."""

    name: str
    extent: Vec3
    items: tuple[Item, ...]
    window: Window | None
    dropped: int

    def scale_and_centre(self) -> tuple[float, Vec3]:
        """Return (scene units per layout unit, layout point that becomes the origin), rounded as they are stored.

        The box around all items becomes ±1; a layout without items has no scale.
        """
        centres = np.array([i.box.centre for i in self.items])
        halves = np.array([i.box.size for i in self.items]) / 2
        low, high = (centres - halves).min(axis=0), (centres + halves).max(axis=0)
        return rounded(2 / (high - low).max()), rounded((low + high) / 2)


def keepout(region: CameraRegion | None, clearance: float, low: np.ndarray, high: np.ndarray) -> Keepout | None:
    """Return the test of which boxes of a layout that fills [low, high] stay ``clearance`` (scene units) away from
    where cameras may be; None unless cameras stay in a box."""
    if not isinstance(region, InsideBox):
        return None
    scale, centre = 2 / float((high - low).max()), (low + high) / 2

    def allows(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        gap = region.distance((centres - centre) * scale, sizes * scale)
        return np.asarray(gap >= clearance + TOLERANCE * scale)

    return allows


@dataclass
class Site:
    """A layout being filled: what is placed so far, and whether another box fits."""

    extent: np.ndarray  # (3,)
    overlap: float  # largest tolerated intersection, as a share of the smaller volume
    keepout: Keepout | None
    items: list[Item] = field(default_factory=list)
    solid_low: list[np.ndarray] = field(default_factory=list)
    solid_high: list[np.ndarray] = field(default_factory=list)
    dropped: int = 0

    def reserve(self, low: np.ndarray, high: np.ndarray) -> None:
        """Keep [low, high] free of solid boxes."""
        self.solid_low.append(low)
        self.solid_high.append(high)

    def add(self, item: Item) -> int:
        """Add ``item`` without any test (the shell of a room) and return its index."""
        self.items.append(item)
        return len(self.items) - 1

    def place(self, kind: str, spot: Spot, *, solid: bool, primitives: str | None, surface: str = "material") -> bool:
        """Add a box at the first candidate that fits and return True; otherwise count it as dropped."""
        centres, sizes = spot
        fits = self._fits(centres, sizes, solid)
        if not fits.any():
            self.dropped += 1
            return False
        first = int(fits.argmax())
        box = Box(kind, rounded(centres[first]), rounded(sizes[first]))
        self.add(Item(box, primitives, surface))
        if solid:
            half = np.array(box.size) / 2
            self.reserve(box.centre - half, box.centre + half)
        return True

    def _fits(self, centres: np.ndarray, sizes: np.ndarray, solid: bool) -> np.ndarray:
        low, high = centres - sizes / 2, centres + sizes / 2
        fits = (low >= -TOLERANCE).all(axis=1) & (high <= self.extent + TOLERANCE).all(axis=1)
        fits &= (sizes > 0).all(axis=1)
        if self.keepout is not None:
            fits &= self.keepout(centres, sizes)
        if solid and self.solid_low:
            others_low, others_high = np.array(self.solid_low), np.array(self.solid_high)
            shared = np.minimum(high[:, None], others_high) - np.maximum(low[:, None], others_low)  # (T, M, 3)
            volume = np.where((shared > TOLERANCE).all(axis=-1), shared.prod(axis=-1), 0.0)
            smaller = np.minimum(sizes.prod(axis=1)[:, None], (others_high - others_low).prod(axis=-1))
            fits &= (volume <= self.overlap * smaller).all(axis=1)
        return fits

    def finish(self, name: str, window: Window | None) -> Layout:
        return Layout(name, rounded(self.extent), tuple(self.items), window, self.dropped)


def either(
    rng: np.random.Generator, probability: float, first: Range[float], second: Range[float], count: int
) -> np.ndarray:
    """Return ``count`` numbers, each drawn from ``first`` with ``probability`` and from ``second`` otherwise."""
    return np.where(rng.random(count) < probability, first.draw(rng, count), second.draw(rng, count))


def anywhere(rng: np.random.Generator, sizes: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Return T×3 centres, uniform where boxes of T×3 ``sizes`` stay inside the extent; too large a box is centred."""
    slack = np.maximum(extent - sizes, 0)
    return (extent - slack) / 2 + slack * rng.random(sizes.shape)
