"""The room of MegaSynth: a shell with furniture-like boxes of every class inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from megasynth_attr.core.fields import range_setting, span
from megasynth_attr.core.ranges import Range, Uniform
from megasynth_attr.scene.layout import (
    BoxSettings,
    KeepoutOf,
    Layout,
    Site,
    Spot,
    anywhere,
    either,
    length,
    probability,
)
from megasynth_attr.scene.layouts.counts import Counts
from megasynth_attr.scene.layouts.shell import (
    SIDES,
    WindowSettings,
    add_shell,
    draw_window,
    fill_window,
    shell_bounds,
)

LARGE, SMALL = Uniform(2, 5), Uniform(4, 8)  # boxes where the preset does not say
NOTHING = Uniform(0.0, 0.0)


def _count(low: int, high: int, help: str) -> Any:
    return range_setting(Uniform(low, high), help, minimum=0, maximum=200)


@dataclass(frozen=True)
class RoomSettings(BoxSettings, WindowSettings):
    """The room and what stands, hangs and leans in it."""

    room_size_xy: Range[float] = length(17, 30, "room: inner length and width")
    room_size_z: Range[float] = length(10, 15, "room: inner height")
    room_overlap: float = probability(0.0, "room: tolerated intersection of solid boxes, share of the smaller volume")
    small_on_large: float = probability(0.5, "room: probability that a small box stands on a large one")
    small_top_size_z: Range[float] = length(2, 4, "small: height on a large box")
    roof_count: Range[int] = _count(2, 4, "room: boxes that hang from the ceiling")
    roof_size_xy: Range[float] = length(2, 5, "roof: length and width")
    roof_thin: float = probability(0.5, "roof: probability of a thin one")
    roof_thin_z: Range[float] = length(0.5, 3, "roof: height of a thin one")
    roof_thick_z: Range[float] = length(2, 4, "roof: height otherwise")
    wall_count: Range[int] = _count(3, 6, "room: boxes that touch a wall")
    wall_thin: float = probability(0.5, "wall: probability of a thin one")
    wall_thin_depth: Range[float] = length(0.5, 2, "wall: depth of a thin one")
    wall_thick_depth: Range[float] = length(1, 6, "wall: depth otherwise")
    wall_size_along: Range[float] = length(2, 5, "wall: length along the wall")
    wall_size_z: Range[float] = length(2, 5, "wall: height")
    frame_probability: float = probability(0.8, "room: probability of wireframes")
    frame_count: Range[int] = _count(1, 3, "frame: boxes, if any")
    frame_size: Range[float] = length(3, 6, "frame: each side")
    slab_probability: float = probability(0.7, "room: probability of slabs")
    slab_count: Range[int] = _count(1, 2, "slab: number, if any")
    slab_size: Range[float] = length(2, 5, "slab: both long sides")
    slab_thin: float = probability(0.5, "slab: probability of a thin one")
    slab_thin_size: Range[float] = length(0.01, 0.2, "slab: thickness of a thin one")
    slab_thick_size: Range[float] = length(0.5, 1, "slab: thickness otherwise")
    slab_glass: float = probability(0.8, "slab: probability that a thin one is glass")
    wall_stick_count: Range[int] = _count(5, 16, "room: sticks on the walls")
    wall_stick_section: Range[float] = length(0.1, 0.8, "wall stick: both sides of its section")
    stick_length: Range[float] = span(0.25, 0.5, "stick: length, share of the room along it", minimum=0.001, maximum=1)
    stick_probability: float = probability(0.5, "room: probability of sticks in space")
    stick_count: Range[int] = _count(2, 6, "stick in space: number, if any")
    stick_section: Range[float] = length(0.1, 0.6, "stick in space: both sides of its section")


def sample(rng: np.random.Generator, settings: RoomSettings, counts: Counts, keepout_of: KeepoutOf) -> Layout:
    """Return a room. Classes are drawn in a fixed order, so a class's settings cannot change those before it."""
    extent = np.array([*settings.room_size_xy.draw(rng, 2), settings.room_size_z.draw(rng)])
    site = Site(extent, settings.room_overlap, keepout_of(*shell_bounds(extent, settings.wall_thickness)))
    window = draw_window(rng, settings, extent)
    add_shell(site, settings.wall_thickness, window)
    if window is not None:
        fill_window(rng, settings, site, window)
    _large(rng, settings, site, counts.large.draw(rng))
    _small(rng, settings, site, counts.small.draw(rng))
    _roof(rng, settings, site)
    _wall(rng, settings, site)
    _frames(rng, settings, site)
    _slabs(rng, settings, site)
    _wall_sticks(rng, settings, site)
    _sticks(rng, settings, site)
    return site.finish("room", window)


def _large(rng: np.random.Generator, settings: RoomSettings, site: Site, count: int) -> None:
    for _ in range(count):
        sizes = _sizes(rng, settings.large_size_xy, settings.large_size_z, settings.box_trials)
        site.place("large", _at_height(rng, sizes, site, 0.0), solid=True, primitives="large")


def _small(rng: np.random.Generator, settings: RoomSettings, site: Site, count: int) -> None:
    """Place small boxes on the floor, or centred on a large box that carries none yet."""
    free = [item.box for item in site.items if item.box.kind == "large"]
    for _ in range(count):
        wants_base, which = rng.random() < settings.small_on_large, rng.random()
        if not (wants_base and free):
            sizes = _sizes(rng, settings.small_size_xy, settings.small_size_z, settings.box_trials)
            site.place("small", _at_height(rng, sizes, site, 0.0), solid=True, primitives="small")
            continue
        base = free.pop(int(which * len(free)))
        sizes = _sizes(rng, settings.small_size_xy, settings.small_top_size_z, settings.box_trials)
        sizes[:, :2] = np.minimum(sizes[:, :2], base.size[:2])
        centres = np.broadcast_to(np.array(base.centre), sizes.shape).copy()
        centres[:, 2] += (base.size[2] + sizes[:, 2]) / 2
        site.place("small", (centres, sizes), solid=True, primitives="small")


def _roof(rng: np.random.Generator, settings: RoomSettings, site: Site) -> None:
    for _ in range(settings.roof_count.draw(rng)):
        sizes = _sizes(rng, settings.roof_size_xy, NOTHING, settings.box_trials)
        sizes[:, 2] = either(rng, settings.roof_thin, settings.roof_thin_z, settings.roof_thick_z, settings.box_trials)
        site.place("roof", _at_height(rng, sizes, site, 1.0), solid=True, primitives="roof")


def _wall(rng: np.random.Generator, settings: RoomSettings, site: Site) -> None:
    for _ in range(settings.wall_count.draw(rng)):
        trials = settings.box_trials
        depth = either(rng, settings.wall_thin, settings.wall_thin_depth, settings.wall_thick_depth, trials)
        along, height = settings.wall_size_along.draw(rng, trials), settings.wall_size_z.draw(rng, trials)
        site.place("wall", _at_walls(rng, depth, along, height, site), solid=True, primitives="wall")


def _frames(rng: np.random.Generator, settings: RoomSettings, site: Site) -> None:
    """Place wireframes; they are open and may cross solid boxes."""
    exist, count = rng.random() < settings.frame_probability, settings.frame_count.draw(rng)
    for _ in range(count if exist else 0):
        sizes = _sizes(rng, settings.frame_size, settings.frame_size, settings.box_trials)
        spot = anywhere(rng, sizes, site.extent), sizes
        site.place("frame", spot, solid=False, primitives="frame")


def _slabs(rng: np.random.Generator, settings: RoomSettings, site: Site) -> None:
    exist, count = rng.random() < settings.slab_probability, settings.slab_count.draw(rng)
    for _ in range(count if exist else 0):
        is_thin, glass = rng.random() < settings.slab_thin, rng.random() < settings.slab_glass
        sizes = _sizes(rng, settings.slab_size, settings.slab_size, settings.box_trials)
        thickness = (settings.slab_thin_size if is_thin else settings.slab_thick_size).draw(rng, settings.box_trials)
        sizes[np.arange(settings.box_trials), rng.integers(3, size=settings.box_trials)] = thickness
        surface = "glass" if is_thin and glass else "material"
        spot = anywhere(rng, sizes, site.extent), sizes
        site.place("slab", spot, solid=True, primitives=None, surface=surface)


def _wall_sticks(rng: np.random.Generator, settings: RoomSettings, site: Site) -> None:
    for _ in range(settings.wall_stick_count.draw(rng)):
        trials = settings.box_trials
        depth, width = settings.wall_stick_section.draw(rng, (2, trials))
        share, upright = settings.stick_length.draw(rng, trials), rng.random(trials) < 0.5
        spot = _at_walls(rng, depth, width, width, site, lengthwise=(share, upright))
        site.place("stick", spot, solid=True, primitives=None)


def _sticks(rng: np.random.Generator, settings: RoomSettings, site: Site) -> None:
    exist, count = rng.random() < settings.stick_probability, settings.stick_count.draw(rng)
    for _ in range(count if exist else 0):
        trials = settings.box_trials
        sizes = settings.stick_section.draw(rng, (trials, 3))
        axis = rng.integers(3, size=trials)
        sizes[np.arange(trials), axis] = settings.stick_length.draw(rng, trials) * site.extent[axis]
        site.place("stick", (anywhere(rng, sizes, site.extent), sizes), solid=True, primitives=None)


def _sizes(rng: np.random.Generator, xy: Range[float], z: Range[float], trials: int) -> np.ndarray:
    return np.column_stack([xy.draw(rng, (trials, 2)), z.draw(rng, trials)])


def _at_height(rng: np.random.Generator, sizes: np.ndarray, site: Site, level: float) -> Spot:
    """Return candidates that stand on the floor (``level`` 0) or hang from the ceiling (1)."""
    centres = anywhere(rng, sizes, site.extent)
    centres[:, 2] = sizes[:, 2] / 2 if level == 0 else site.extent[2] - sizes[:, 2] / 2
    return centres, sizes


def _at_walls(
    rng: np.random.Generator,
    depth: np.ndarray,
    along: np.ndarray,
    height: np.ndarray,
    site: Site,
    lengthwise: tuple[np.ndarray, np.ndarray] | None = None,
) -> Spot:
    """Return candidates flush on one of the four walls; ``depth`` is measured from the wall.

    ``lengthwise`` (share, upright): one in-plane size is this share of the wall's height (upright) or length.
    """
    trials = len(depth)
    wall = np.array(SIDES)[rng.integers(len(SIDES), size=trials)]
    axis, at_extent, rows = wall[:, 0], wall[:, 1] == 1, np.arange(trials)
    sizes = np.empty((trials, 3))
    sizes[rows, axis], sizes[rows, 1 - axis], sizes[:, 2] = depth, along, height
    if lengthwise is not None:
        share, upright = lengthwise
        direction = np.where(upright, 2, 1 - axis)
        sizes[rows, direction] = share * site.extent[direction]
    centres = anywhere(rng, sizes, site.extent)
    centres[rows, axis] = np.where(at_extent, site.extent[axis] - depth / 2, depth / 2)
    return centres, sizes
