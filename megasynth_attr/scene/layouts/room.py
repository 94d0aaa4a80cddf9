"""The room of MegaSynth: a shell with furniture-like boxes of every class inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from megasynth_attr.scene.layout import KeepoutOf, Layout, Site, Spot, anywhere, between, count_in, either
from megasynth_attr.scene.layouts.shell import SIDES, add_shell, draw_window, fill_window, shell_bounds

if TYPE_CHECKING:
    from megasynth_attr.scene.factors.geometry import GeometrySettings
    from megasynth_attr.scene.layouts.counts import Counts


def sample(rng: np.random.Generator, settings: GeometrySettings, counts: Counts, keepout_of: KeepoutOf) -> Layout:
    """Return a room. Classes are drawn in a fixed order, so a class's settings cannot change those before it."""
    extent = np.array([*between(rng, settings.room_size_xy, 2), between(rng, settings.room_size_z)])
    site = Site(extent, settings.room_overlap, keepout_of(*shell_bounds(extent, settings.wall_thickness)))
    window = draw_window(rng, settings, extent)
    add_shell(site, settings.wall_thickness, window)
    if window is not None:
        fill_window(rng, settings, site, window)
    _large(rng, settings, site, count_in(rng, counts.large))
    _small(rng, settings, site, count_in(rng, counts.small))
    _roof(rng, settings, site)
    _wall(rng, settings, site)
    _frames(rng, settings, site)
    _slabs(rng, settings, site)
    _wall_sticks(rng, settings, site)
    _sticks(rng, settings, site)
    return site.finish("room", window)


def _large(rng: np.random.Generator, settings: GeometrySettings, site: Site, count: int) -> None:
    for _ in range(count):
        sizes = _sizes(rng, settings.large_size_xy, settings.large_size_z, settings.box_trials)
        site.place("large", _at_height(rng, sizes, site, 0.0), solid=True, primitives="large")


def _small(rng: np.random.Generator, settings: GeometrySettings, site: Site, count: int) -> None:
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
        site.place("small", Spot(centres, sizes), solid=True, primitives="small")


def _roof(rng: np.random.Generator, settings: GeometrySettings, site: Site) -> None:
    for _ in range(count_in(rng, settings.roof_count)):
        sizes = _sizes(rng, settings.roof_size_xy, (0, 0), settings.box_trials)
        sizes[:, 2] = either(rng, settings.roof_thin, settings.roof_thin_z, settings.roof_thick_z, settings.box_trials)
        site.place("roof", _at_height(rng, sizes, site, 1.0), solid=True, primitives="roof")


def _wall(rng: np.random.Generator, settings: GeometrySettings, site: Site) -> None:
    for _ in range(count_in(rng, settings.wall_count)):
        trials = settings.box_trials
        depth = either(rng, settings.wall_thin, settings.wall_thin_depth, settings.wall_thick_depth, trials)
        along, height = between(rng, settings.wall_size_along, trials), between(rng, settings.wall_size_z, trials)
        site.place("wall", _at_walls(rng, depth, along, height, site), solid=True, primitives="wall")


def _frames(rng: np.random.Generator, settings: GeometrySettings, site: Site) -> None:
    """Place wireframes; they are open and may cross solid boxes."""
    exist, count = rng.random() < settings.frame_probability, count_in(rng, settings.frame_count)
    for _ in range(count if exist else 0):
        sizes = _sizes(rng, settings.frame_size, settings.frame_size, settings.box_trials)
        spot = Spot(anywhere(rng, sizes, site.extent), sizes)
        site.place("frame", spot, solid=False, primitives="frame")


def _slabs(rng: np.random.Generator, settings: GeometrySettings, site: Site) -> None:
    exist, count = rng.random() < settings.slab_probability, count_in(rng, settings.slab_count)
    for _ in range(count if exist else 0):
        is_thin, glass = rng.random() < settings.slab_thin, rng.random() < settings.slab_glass
        sizes = _sizes(rng, settings.slab_size, settings.slab_size, settings.box_trials)
        thickness = between(rng, settings.slab_thin_size if is_thin else settings.slab_thick_size, settings.box_trials)
        sizes[np.arange(settings.box_trials), rng.integers(3, size=settings.box_trials)] = thickness
        surface = "glass" if is_thin and glass else "material"
        spot = Spot(anywhere(rng, sizes, site.extent), sizes)
        site.place("slab", spot, solid=True, primitives=None, surface=surface)


def _wall_sticks(rng: np.random.Generator, settings: GeometrySettings, site: Site) -> None:
    for _ in range(count_in(rng, settings.wall_stick_count)):
        trials = settings.box_trials
        depth, width = between(rng, settings.wall_stick_section, (2, trials))
        share, upright = between(rng, settings.stick_length, trials), rng.random(trials) < 0.5
        spot = _at_walls(rng, depth, width, width, site, lengthwise=(share, upright))
        site.place("stick", spot, solid=True, primitives=None)


def _sticks(rng: np.random.Generator, settings: GeometrySettings, site: Site) -> None:
    exist, count = rng.random() < settings.stick_probability, count_in(rng, settings.stick_count)
    for _ in range(count if exist else 0):
        trials = settings.box_trials
        sizes = between(rng, settings.stick_section, (trials, 3))
        axis = rng.integers(3, size=trials)
        sizes[np.arange(trials), axis] = between(rng, settings.stick_length, trials) * site.extent[axis]
        site.place("stick", Spot(anywhere(rng, sizes, site.extent), sizes), solid=True, primitives=None)


def _sizes(rng: np.random.Generator, xy: tuple[float, float], z: tuple[float, float], trials: int) -> np.ndarray:
    return np.column_stack([between(rng, xy, (trials, 2)), between(rng, z, trials)])


def _at_height(rng: np.random.Generator, sizes: np.ndarray, site: Site, level: float) -> Spot:
    """Return candidates that stand on the floor (``level`` 0) or hang from the ceiling (1)."""
    centres = anywhere(rng, sizes, site.extent)
    centres[:, 2] = sizes[:, 2] / 2 if level == 0 else site.extent[2] - sizes[:, 2] / 2
    return Spot(centres, sizes)


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
    return Spot(centres, sizes)
