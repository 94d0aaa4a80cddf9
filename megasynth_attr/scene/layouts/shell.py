"""The shell of a room: floor, ceiling and four walls as closed slabs, one of them with a window.

The slabs have a thickness outside of the extent and are keyed into each other by half of it, so that no ray can pass
along a seam. A wall with a window is four pieces around the hole, with one material slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.fields import range_setting, setting, span
from megasynth_attr.core.ranges import Range, Uniform
from megasynth_attr.scene.layout import Item, Site, length, probability
from megasynth_attr.scene.spec import Box, Window

SIDES = ((0, 0), (0, 1), (1, 0), (1, 1))  # (axis of the normal, 0 at the origin or 1 at the extent)
MARGIN = 0.04  # share of a wall's length and height that stays wall beside a window
GLASS_SHARE, BAR_SHARE = 0.1, 0.4  # of the wall's thickness; glass in its outer half, bars in its inner half


@dataclass(frozen=True)
class ShellSettings:
    """Walls."""

    wall_thickness: float = setting(0.2, "room, plane: thickness of floor, ceiling and walls", minimum=0.01, maximum=5)


@dataclass(frozen=True)
class WindowSettings(ShellSettings):
    """Walls, and the window in one of them."""

    window_probability: float = probability(0.8, "room: probability of a window in one wall")
    window_width: Range[float] = span(0.2, 0.6, "window: share of the wall's length", minimum=0.01, maximum=0.9)
    window_height: Range[float] = span(0.2, 0.6, "window: share of the wall's height", minimum=0.01, maximum=0.9)
    window_glass: float = probability(0.5, "window: probability of a glass pane")
    window_fence: float = probability(0.5, "window: probability of bars")
    window_bar_count: Range[int] = range_setting(Uniform(3, 8), "window: bars of a fence", minimum=1, maximum=100)
    window_bar_width: Range[float] = length(0.1, 0.3, "window: width of a bar")
    window_free_depth: float = setting(
        0.5, "window: depth of the space in front kept free of boxes (layout units)", minimum=0, maximum=100
    )


def shell_bounds(extent: np.ndarray, thickness: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) of a room including its walls."""
    return np.full(3, -thickness), extent + thickness


def _box(kind: str, low: np.ndarray, high: np.ndarray) -> Box:
    return Box(kind, rounded((low + high) / 2), rounded(high - low))


def add_shell(site: Site, thickness: float, window: Window | None) -> None:
    """Add floor, ceiling and walls (items 0 to 5, always), then the other pieces of the wall with the window."""
    low, high = shell_bounds(site.extent, thickness)
    site.add(Item(_box("floor", low, np.array([*high[:2], 0.0]))))
    site.add(Item(_box("ceiling", np.array([*low[:2], site.extent[2]]), high)))
    pieces: list[Item] = []
    for axis, side in SIDES:
        wall_low, wall_high = low.copy(), high.copy()
        wall_low[2], wall_high[2] = low[2] / 2, site.extent[2] + thickness / 2
        if axis == 1:  # the walls across y end inside the walls across x
            wall_low[0], wall_high[0] = low[0] / 2, site.extent[0] + thickness / 2
        wall_low[axis], wall_high[axis] = (-thickness, 0.0) if side == 0 else (site.extent[axis], high[axis])
        if window is None or window.outward[axis] != 2 * side - 1:
            site.add(Item(_box("side", wall_low, wall_high)))
            continue
        around = _around(wall_low, wall_high, window, along=1 - axis)
        index = site.add(Item(around[0]))
        pieces = [Item(piece, shares_slot_of=index) for piece in around[1:]]
    for piece in pieces:
        site.add(piece)


def _around(low: np.ndarray, high: np.ndarray, window: Window, along: int) -> list[Box]:
    """Return the four pieces of the wall [low, high] around a window: two of full height, one below, one above."""
    centre, half = np.array(window.centre), np.array(window.size) / 2
    hole_low, hole_high = centre - half, centre + half
    pieces = []
    for near in (True, False):
        piece_low, piece_high = low.copy(), high.copy()
        (piece_high if near else piece_low)[along] = (hole_low if near else hole_high)[along]
        pieces.append(_box("side", piece_low, piece_high))
    for below in (True, False):
        piece_low, piece_high = low.copy(), high.copy()
        piece_low[along], piece_high[along] = hole_low[along], hole_high[along]
        (piece_high if below else piece_low)[2] = (hole_low if below else hole_high)[2]
        pieces.append(_box("side", piece_low, piece_high))
    return pieces


def draw_window(rng: np.random.Generator, settings: WindowSettings, extent: np.ndarray) -> Window | None:
    """Return a window in one of the walls, or None; the same number of draws either way."""
    exists = rng.random() < settings.window_probability
    axis, side = SIDES[int(rng.integers(len(SIDES)))]
    along = 1 - axis
    share = np.array([settings.window_width.draw(rng), settings.window_height.draw(rng)])
    position = rng.random(2)
    if not exists:
        return None
    wall = np.array([extent[along], extent[2]])
    opening = np.minimum(share, 1 - 2 * MARGIN) * wall
    middle = MARGIN * wall + opening / 2 + position * (wall * (1 - 2 * MARGIN) - opening)
    size, centre, outward = np.zeros(3), np.zeros(3), np.zeros(3)
    size[[along, 2]], centre[[along, 2]] = opening, middle
    size[axis] = settings.wall_thickness
    centre[axis] = extent[axis] + settings.wall_thickness / 2 if side else -settings.wall_thickness / 2
    outward[axis] = 2 * side - 1
    return Window(rounded(centre), rounded(size), rounded(outward))


def fill_window(rng: np.random.Generator, settings: WindowSettings, site: Site, window: Window) -> None:
    """Add the pane and the bars of a fence, each with its probability; keep the space in front of the window free."""
    has_pane, has_fence = rng.random() < settings.window_glass, rng.random() < settings.window_fence
    upright = rng.random() < 0.5
    bars, bar_width = settings.window_bar_count.draw(rng), settings.window_bar_width.draw(rng)
    centre, size, outward = np.array(window.centre), np.array(window.size), np.array(window.outward)
    axis = int(np.abs(outward).argmax())
    depth = size[axis]
    if has_pane:
        pane = size.copy()
        pane[axis] = depth * GLASS_SHARE
        site.add(Item(Box("pane", rounded(centre + outward * depth / 4), rounded(pane)), surface="glass"))
    if has_fence:
        repeat = 1 - axis if upright else 2  # the direction along which bars follow each other
        bar = size.copy()
        bar[axis] = depth * BAR_SHARE
        bar[repeat] = min(bar_width, size[repeat] / (2 * bars))
        first = len(site.items)
        for index in range(bars):
            position = centre - outward * depth / 4
            position[repeat] += ((index + 1) / (bars + 1) - 0.5) * size[repeat]
            site.add(Item(Box("bar", rounded(position), rounded(bar)), shares_slot_of=first if index else None))
    low, high = centre - size / 2, centre + size / 2
    inwards = low if outward[axis] > 0 else high
    inwards[axis] -= outward[axis] * settings.window_free_depth
    site.reserve(low, high)
