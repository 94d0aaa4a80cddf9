"""The figures with axes, by matplotlib: trajectory in 3-D, depth with its colour bar, isolation heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.pages import figures as plots
from megasynth_attr.core.pages.clouds import Cloud
from megasynth_attr.dataset.reprojection import camera_centre
from megasynth_attr.dataset.space import frustum, is_closed
from megasynth_attr.report.facts import Facts

AXIS_COLOURS = ("#c8372d", "#3a8f3a", "#2f62c4")  # x, y, z
ELEVATION_DEG, AZIMUTH_DEG = 24.0, -58.0
FRUSTA = 24
FRUSTA_ENLARGED = 12
ZOOM_BELOW = 0.3  # a trajectory smaller than this share of the scene gets an enlarged panel of its own


@dataclass(frozen=True)
class Trajectory:
    """One scene's cameras: ``intrinsics`` 3×3, ``camera_from_world`` N×4×4 (OpenCV), image size in pixels."""

    intrinsics: np.ndarray
    camera_from_world: np.ndarray
    width_px: int
    height_px: int

    @property
    def centres(self) -> np.ndarray:
        """Return the N×3 camera centres in the world, scene units."""
        return camera_centre(self.camera_from_world)

    def frusta(self, depth: float, limit: int) -> dict[int, np.ndarray]:
        """Return frame index → 5×3 frustum (see ``space.frustum``) of at most ``limit`` evenly spread frames."""
        size = (self.width_px, self.height_px)
        chosen = plots.evenly(len(self.camera_from_world), limit)
        return {i: frustum(self.intrinsics, self.camera_from_world[i], *size, depth) for i in chosen}


@plots.figure_style()
def save_trajectory(path: Path, trajectory: Trajectory, cloud: Cloud) -> None:
    """Write the 3-D plot: the scene's points, every camera's path, up to 24 cameras as frusta, the world axes.

    Axes are equal. A trajectory that is tiny beside the scene is shown a second time, enlarged.
    """
    tips = world_axis_tips(cloud.points)
    everything = np.concatenate([cloud.points, trajectory.centres, tips])
    scene_size = np.ptp(everything, axis=0).max()
    path_size = np.ptp(trajectory.centres, axis=0).max()
    enlarged = 0 < path_size < ZOOM_BELOW * scene_size
    figure = plots.new_figure(plots.WIDTH, 4.3 if not enlarged else 8.0)
    axes = figure.add_subplot(2 if enlarged else 1, 1, 1, projection="3d", computed_zorder=False)
    _draw_space(axes, trajectory, cloud, everything, trajectory.frusta(0.07 * scene_size, FRUSTA))
    _draw_world_axes(axes, tips)
    panels = [axes]
    if enlarged:
        close = figure.add_subplot(2, 1, 2, projection="3d", computed_zorder=False)
        frusta = trajectory.frusta(0.25 * path_size, FRUSTA_ENLARGED)
        nothing = Cloud(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))
        _draw_space(close, trajectory, nothing, np.concatenate(list(frusta.values())), frusta)
        close.set_title("the cameras alone, enlarged", y=0.98)
        panels.append(close)
    _frame_bar(figure, len(trajectory.centres))
    for row, panel in enumerate(panels):
        share = 0.88 / len(panels)
        panel.set_position((-0.06, 0.12 + (len(panels) - 1 - row) * share, 1.0, share))
    plots.save_png(figure, path)


def _draw_space(
    axes: Any, trajectory: Trajectory, cloud: Cloud, bounds: np.ndarray, frusta: Mapping[int, np.ndarray]
) -> None:
    """Draw points, path and frusta with equal axes; cameras behind the points' centre are drawn first."""
    from mpl_toolkits.mplot3d.art3d import (  # type: ignore[import-untyped]
        Line3DCollection,
        Poly3DCollection,
    )

    elevation, azimuth = np.radians([ELEVATION_DEG, AZIMUTH_DEG])
    towards_viewer = np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    middle = cloud.points.mean(axis=0) if len(cloud.points) else bounds.mean(axis=0)
    if len(cloud.points):
        order = np.argsort(cloud.points @ towards_viewer)  # far points first
        axes.scatter(*cloud.points[order].T, c=cloud.colours[order] / 255.0, s=1.1, linewidths=0, zorder=2)
    centres, count = trajectory.centres, len(trajectory.centres)
    path = np.concatenate([centres, centres[:1]]) if is_closed(centres) else centres
    for a, b in pairwise(path):
        front = (a - middle) @ towards_viewer > 0
        axes.plot(*np.stack([a, b]).T, color="#8a919c", linewidth=0.7, zorder=3.0 if front else 1.0)
    for index, corners in frusta.items():
        colour = frame_colour(index, count)
        front = (corners[0] - middle) @ towards_viewer > 0
        level = 3.1 if front else 1.1
        edges = [(corners[0], c) for c in corners[1:]] + list(
            zip(corners[1:], np.roll(corners[1:], -1, 0), strict=True)
        )
        axes.add_collection3d(Line3DCollection(edges, colors=[colour], linewidths=0.9, zorder=level))
        axes.add_collection3d(Poly3DCollection([corners[1:]], facecolors=[(*colour[:3], 0.22)], zorder=level))
    _equal_axes(axes, bounds)


def _equal_axes(axes: Any, bounds: np.ndarray) -> None:
    """Show all of ``bounds`` with one scale for x, y and z, on paper, with few ticks."""
    low, high = bounds.min(axis=0), bounds.max(axis=0)
    reach = max(float((high - low).max()), 1e-9)
    half = np.maximum(high - low, 0.35 * reach) / 2 * 1.04
    middle = (low + high) / 2
    setters = (axes.set_xlim, axes.set_ylim, axes.set_zlim)
    for setter, m, h in zip(setters, middle, half, strict=True):
        setter(m - h, m + h)
    axes.set_box_aspect(half, zoom=_zoom(half))
    axes.view_init(elev=ELEVATION_DEG, azim=AZIMUTH_DEG)
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis), ("z", axes.zaxis)):
        axis.set_pane_color((0.925, 0.933, 0.945, 1.0))
        axis._axinfo["grid"].update(color="#d5d9df", linewidth=0.5)
        axis.line.set_color(plots.EDGE)
        plots.few_ticks(axis, 4)
        axis.set_tick_params(labelsize=8, pad=0)
        axis.set_label_text(name)
        axis.labelpad = -1


def _zoom(half: np.ndarray) -> float:
    """Return the zoom at which a box of these half sizes fills its panel and leaves room for the tick labels."""
    x, y, z = half / np.linalg.norm(half)  # matplotlib draws every box with the same diagonal
    elevation, azimuth = np.radians([ELEVATION_DEG, AZIMUTH_DEG])
    across = x * abs(np.sin(azimuth)) + y * abs(np.cos(azimuth))
    upwards = z * np.cos(elevation) + (x * abs(np.cos(azimuth)) + y * abs(np.sin(azimuth))) * np.sin(elevation)
    return float(min(0.84 / upwards, 0.98 / across))


def world_axis_tips(points: np.ndarray) -> np.ndarray:
    """Return 3×3: where the arrows of the world's x, y and z axes end, a little outside the scene's points."""
    reach = points.max(axis=0, initial=0.0) * 1.15
    return np.diag(np.maximum(reach, 0.4 * max(float(np.abs(points).max(initial=0.0)), 1e-6)))


def _draw_world_axes(axes: Any, tips: np.ndarray) -> None:
    """Draw the world's x, y and z arrows at the origin, on top of the points, with their names."""
    for name, colour, tip in zip("xyz", AXIS_COLOURS, tips, strict=True):
        axes.plot(*np.stack([np.zeros(3), tip]).T, color=colour, linewidth=1.4, zorder=4)
        axes.text(*(tip * 1.08), name, color=colour, fontweight="bold", ha="center", va="center", zorder=5)


def frame_colour(index: int, count: int) -> tuple[float, float, float, float]:
    """Return the RGBA colour of frame ``index`` of ``count``: dark blue at the start, orange at the end."""
    from matplotlib import colormaps

    colour = colormaps["plasma"](0.85 * index / max(count - 1, 1))
    return colour[0], colour[1], colour[2], colour[3]


def _frame_bar(figure: Any, count: int) -> None:
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([frame_colour(i, 256) for i in range(256)])
    bar = plots.colour_bar(
        plots.bar_axes(figure, 0.28 * plots.WIDTH, 0.44 * plots.WIDTH, 0.42), plots.scale(0, max(count - 1, 1), colours)
    )
    bar.set_ticks([0, count - 1] if count > 1 else [0])
    bar.set_label("frame", labelpad=-8)


@plots.figure_style()
def save_depth(path: Path, depth_z: np.ndarray) -> None:
    """Write planar depth in false colour, with a colour bar in scene units; the background is paper."""
    valid = depth_z > 0
    low, high = (float(depth_z[valid].min()), float(depth_z[valid].max())) if valid.any() else (0.0, 1.0)
    height, width = depth_z.shape
    inches = 2.8
    picture_inches = inches * height / width
    figure = plots.new_figure(inches, picture_inches + 0.62)
    plots.show_pixels(plots.place(figure, 0, 0, inches, picture_inches), plots.false_colour(depth_z, low, high, valid))
    bar = plots.bar_axes(figure, 0.08 * inches, 0.84 * inches, 0.42, 0.1)
    plots.colour_bar(bar, plots.scale(low, high, "viridis_r"), "planar depth z (scene units)")
    plots.few_ticks(bar.xaxis, 5)
    plots.save_png(figure, path)


@plots.figure_style()
def save_isolation(path: Path, measured: Sequence[Facts], factors: Sequence[str]) -> None:
    """Write the heat map: rows = datasets whose isolation was measured, columns = factors, colours from 0 to 1.

    A number is the spread relative to the reference: – where the reference does not vary, 0 where the factor is off;
    above 1 it gets the colour of 1. The cells of factors that are meant to vary are outlined; rows are ordered so that
    these form the diagonal.
    """
    from matplotlib.patches import Rectangle

    rows = sorted(measured, key=lambda facts: ([list(factors).index(f) for f in facts.varying], facts.name))
    relatives = [(facts.isolation or {})["relative"] for facts in rows]
    values = np.array([[relative.get(f, 0.0) for f in factors] for relative in relatives], np.float64)  # None: NaN
    label_inches = 0.30 + 0.075 * max(len(facts.name) for facts in rows)
    cell_w, cell_h = 0.76, 0.46 if len(rows) <= 12 else 0.30
    grid_w, grid_h = cell_w * len(factors), cell_h * len(rows)
    figure = plots.new_figure(label_inches + grid_w + 0.2, 0.42 + grid_h + 0.72)
    axes = plots.place(figure, label_inches, 0.42, grid_w, grid_h)
    axes.grid(False)
    axes.pcolormesh(values, cmap="Blues", vmin=0, vmax=1, edgecolors=plots.GRID, linewidth=0.8)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        dark = np.isfinite(value) and value > 0.55
        text = f"{value:.2f}" if np.isfinite(value) else "–"
        axes.text(
            column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9.5, color="white" if dark else plots.INK
        )
        if factors[column] in rows[row].varying:
            box = Rectangle((column + 0.035, row + 0.06), 0.93, 0.88, fill=False, edgecolor="#d9770a", linewidth=1.8)
            axes.add_patch(box)
    axes.set_xlim(0, len(factors))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks(np.arange(len(factors)) + 0.5, factors)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [facts.name for facts in rows])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    bar = plots.bar_axes(figure, label_inches, grid_w, 0.44)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    plots.colour_bar(bar, plots.scale(0, 1, "Blues"), "spread between scenes ÷ spread of the reference", ticks=ticks)
    plots.save_png(figure, path)
