"""One picture per scene: point clouds from two sides, depth of some views and camera positions, with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.pages import figures as plots
from megasynth_attr.dataset.reprojection import camera_centre
from megasynth_train.evaluate.run import SceneEvaluation, facts
from megasynth_train.evaluate.splat import draw_points, mean_up, two_viewpoints

TRUE_COLOUR, PREDICTED_COLOUR = plots.COLOURS[:2]
_CLOUD_PX = 440
_CLOUD_POINTS = 400_000  # more are not visible at that size
_MOST_VIEWS = 8
_INVISIBLE = 1e-4  # errors below this share of the distance stay dark: they are only rounding
_WIDTH = 13.6
_LEFT, _RIGHT = 0.95, 0.95  # row names, colour bars
_GAP, _NARROW = 0.12, 0.06


@plots.figure_style()
def save_picture(path: Path, scene: SceneEvaluation) -> None:
    """Write the picture of ``scene``; the file is not written atomically, its folder is."""
    columns = plots.evenly(len(scene.truth), _MOST_VIEWS)
    height, width = scene.truth[0].depth_z.shape
    inner = _WIDTH - _LEFT - _RIGHT
    tile = min((inner - (len(columns) - 1) * _NARROW) / len(columns), 2.2)
    tile_height = tile * height / width
    cloud = (inner - 2 * _GAP) / 3
    depth_block = 4 * tile_height + 3 * _NARROW
    path_block = 3.1
    total = 0.75 + 0.3 + 2 * cloud + _GAP + 0.75 + depth_block + 0.75 + path_block + 0.55
    figure = plots.new_figure(_WIDTH, total, dpi=110)
    plots.write(figure, _LEFT, 0.3, scene.name, fontsize=15, fontweight="bold")
    numbers = "   ".join(f"{name} {value}" for name, value in facts(scene.numbers).items())
    plots.write(figure, _LEFT, 0.55, numbers, fontsize=9.5, color=plots.MUTED)
    _draw_clouds(figure, scene, 1.05, cloud)
    top = 1.05 + 2 * cloud + _GAP + 0.75
    _draw_depth(figure, scene, columns, top, tile, tile_height)
    _draw_paths(figure, scene, top + depth_block + 0.75, path_block, inner)
    plots.save_png(figure, path)


def _bar(axes: Any, low: float, high: float, colours: str, label: str) -> None:
    bar = plots.colour_bar(axes, plots.scale(low, high, colours), label, upright=True)
    plots.few_ticks(bar.ax.yaxis, 4)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")  # no common factor above the bar


def _draw_clouds(figure: Any, scene: SceneEvaluation, top: float, side: float) -> None:
    """Draw truth, prediction, and the prediction coloured by its distance to the truth, from two viewpoints."""
    step = max(-(-len(scene.true_points) // _CLOUD_POINTS), 1)
    truth, predicted = scene.true_points[::step], scene.predicted_points[::step]
    colours = scene.colours[::step]
    smallest = _INVISIBLE * scene.numbers["sizes"]["mean_distance"]
    limit = max(float(np.percentile(scene.accuracy, 95)), smallest)
    errors = plots.false_colour(scene.accuracy[::step], 0, limit, colours="turbo")
    columns = (("truth", truth, colours), ("prediction, aligned", predicted, colours), ("error", predicted, errors))
    for i, (name, points, shown) in enumerate(columns):
        left = _LEFT + i * (side + _GAP)
        plots.write(figure, left, top - 0.08, name, fontsize=10)
        for j, view in enumerate(two_viewpoints(truth, scene.true_cameras)):
            pixels = draw_points(points, shown, view, _CLOUD_PX, plots.PAPER_RGB)
            plots.show_pixels(plots.place(figure, left, top + j * (side + _GAP), side, side), pixels)
    bar_left = _LEFT + 3 * side + 2 * _GAP + 0.12
    bar = plots.place(figure, bar_left, top, 0.12, 2 * side + _GAP)
    _bar(bar, 0, limit, "turbo", "distance to the nearest true point (scene units)")


def _draw_depth(
    figure: Any, scene: SceneEvaluation, columns: list[int], top: float, tile: float, tile_height: float
) -> None:
    """Draw image, true depth, predicted depth and relative error of some views, with one colour scale for all."""
    truth, depth = [scene.truth[i] for i in columns], [scene.predicted_depth[i] for i in columns]
    valid = np.concatenate([view.depth_z[view.valid] for view in truth])
    low, high = (float(v) for v in np.percentile(valid, (1, 99)))
    high = low + max(high - low, 1e-9 * max(high, 1e-9))
    errors = [
        np.abs(predicted - view.depth_z) / np.where(view.valid, view.depth_z, 1)
        for view, predicted in zip(truth, depth, strict=True)
    ]
    seen = np.concatenate([error[view.valid] for error, view in zip(errors, truth, strict=True)])
    worst = max(float(np.percentile(seen, 95)), _INVISIBLE)
    for name, row in (("image", 0), ("true\ndepth", 1), ("predicted\ndepth", 2), ("relative\nerror", 3)):
        middle = top + row * (tile_height + _NARROW) + tile_height / 2
        plots.write(figure, _LEFT - 0.12, middle, name, ha="right", va="center")
    for c, i in enumerate(columns):
        view, left = truth[c], _LEFT + c * (tile + _NARROW)
        plots.write(
            figure, left, top - 0.07, f"view {scene.view_ids[i]}" + (" (reference)" if i == 0 else ""), fontsize=8.5
        )
        rows = (
            view.rgb,
            plots.false_colour(view.depth_z, low, high, view.valid),
            plots.false_colour(depth[c], low, high, view.valid),
            plots.false_colour(errors[c], 0, worst, view.valid, "turbo"),
        )
        for r, pixels in enumerate(rows):
            plots.show_pixels(plots.place(figure, left, top + r * (tile_height + _NARROW), tile, tile_height), pixels)
    left = _LEFT + len(columns) * (tile + _NARROW) + _NARROW
    depth_bar = plots.place(figure, left, top + tile_height + _NARROW, 0.12, 2 * tile_height + _NARROW)
    _bar(depth_bar, low, high, "viridis_r", "scene units")
    error_bar = plots.place(figure, left, top + 3 * (tile_height + _NARROW), 0.12, tile_height)
    _bar(error_bar, 0, worst, "turbo", "|p − g| / g")


def _draw_paths(figure: Any, scene: SceneEvaluation, top: float, height: float, inner: float) -> None:
    """Draw camera positions and viewing directions, from above and from the side, with equal scale on both axes."""
    up = mean_up(scene.true_cameras)
    right = scene.true_cameras[0, 0, :3] - (scene.true_cameras[0, 0, :3] @ up) * up
    right = right / np.linalg.norm(right) if np.linalg.norm(right) > 1e-6 else np.cross(up, [0.3, 0.5, 0.8])
    ahead = np.cross(up, right)
    sides = (("cameras from above", right, ahead), ("cameras from the side", right, up))
    width = (inner - 0.9) / 2
    for i, (name, across, upwards) in enumerate(sides):
        left = _LEFT + i * (width + 0.9)
        plots.write(figure, left, top - 0.1, name, fontsize=10)
        axes = plots.place(figure, left, top, width, height)
        plane = np.stack([across, upwards], axis=1)  # 3×2
        some = (scene.true_points @ plane)[:: max(len(scene.true_points) // 1500, 1)]
        axes.scatter(some[:, 0], some[:, 1], s=1.2, color="#c3c8cf", linewidths=0, zorder=1)  # where the scene is
        reach = 0.1 * scene.numbers["sizes"]["mean_distance"]
        _draw_cameras(axes, scene.true_cameras, plane, reach, TRUE_COLOUR, "truth", 2.6)
        _draw_cameras(axes, scene.predicted_cameras, plane, reach, PREDICTED_COLOUR, "prediction, aligned", 1.1)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("scene units", labelpad=1)
        if i == 0:
            axes.legend(loc="best")


def _draw_cameras(
    axes: Any, cameras: np.ndarray, plane: np.ndarray, reach: float, colour: str, label: str, width: float
) -> None:
    """Draw the path, a stroke of length ``reach`` along each viewing direction, and a ring around the reference."""
    flat = camera_centre(cameras) @ plane
    tips = flat + reach * (cameras[:, 2, :3] @ plane)
    strokes = np.stack([flat, tips, np.full_like(flat, np.nan)], axis=1).reshape(-1, 2)
    axes.plot(flat[:, 0], flat[:, 1], "-o", color=colour, markersize=2 + width, linewidth=width, label=label, zorder=3)
    axes.plot(*strokes.T, color=colour, linewidth=width + 0.4, zorder=3)
    ring = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.5}
    axes.plot(*flat[0], "o", markersize=6 + 2 * width, zorder=4, **ring)
