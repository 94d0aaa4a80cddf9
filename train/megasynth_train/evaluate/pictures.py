"""One picture per scene: point clouds from two sides, depth of every view and camera positions, beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from megasynth_train.evaluate.run import SceneEvaluation
from megasynth_train.evaluate.splat import draw_points, two_viewpoints

INK, FAINT = "#23272e", "#8a919b"
TRUE_COLOUR, PREDICTED_COLOUR = "#1f6fb4", "#d6541c"
_DPI = 110
_CLOUD_PX = 440
_CLOUD_POINTS = 400_000  # more do not show at that size
_MOST_VIEWS = 8
_INVISIBLE = 1e-4  # errors below this share of the distance stay dark: rounding is no pattern to look at
_WIDTH_INCHES = 13.6
_LEFT, _RIGHT = 0.95, 0.95  # inches: row names, colour bars
_GAP = 0.12


def save_picture(path: Path, scene: SceneEvaluation) -> None:
    """Write the picture of ``scene``; the file is not written atomically, its folder is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = _shown_views(len(scene.truth))
    height, width = scene.truth[0].depth_z.shape
    inner = _WIDTH_INCHES - _LEFT - _RIGHT
    tile = min((inner - (len(columns) - 1) * 0.06) / len(columns), 2.2)
    tile_height = tile * height / width
    cloud = (inner - 2 * _GAP) / 3
    depth_block = 4 * tile_height + 3 * 0.06
    path_block = 3.1
    total = 0.75 + 0.3 + 2 * cloud + _GAP + 0.75 + depth_block + 0.75 + path_block + 0.55
    figure = Figure(figsize=(_WIDTH_INCHES, total), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    page = _Page(figure, _WIDTH_INCHES, total)
    points, cameras = scene.numbers["points"], scene.numbers["cameras"]
    page.text(_LEFT, 0.3, scene.name, size=15, weight="bold")
    page.text(_LEFT, 0.55, _headline(points, scene.numbers["depth"]["scale"], cameras), size=9.5, colour=FAINT)
    _draw_clouds(page, scene, 1.05, cloud)
    top = 1.05 + 2 * cloud + _GAP + 0.75
    _draw_depth(page, scene, columns, top, tile, tile_height)
    _draw_paths(page, scene, top + depth_block + 0.75, path_block, inner)
    figure.savefig(path, metadata={"Software": None})


class _Page:
    """Placing things on a figure in inches from its upper left corner."""

    def __init__(self, figure: Any, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def image(self, left: float, top: float, width: float, height: float, pixels: np.ndarray) -> None:
        axes = self.axes(left, top, width, height)
        axes.imshow(pixels, interpolation="antialiased", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#d5d9df")

    def text(
        self,
        left: float,
        top: float,
        words: str,
        *,
        size: float,
        colour: str = INK,
        weight: str = "normal",
        **more: Any,
    ) -> None:
        self.figure.text(
            left / self.width, 1 - top / self.height, words, fontsize=size, color=colour, fontweight=weight, **more
        )

    def bar(self, left: float, top: float, height: float, colours: str, low: float, high: float, label: str) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.ticker import MaxNLocator

        bar = self.figure.colorbar(
            ScalarMappable(Normalize(low, high), colours), cax=self.axes(left, top, 0.12, height)
        )
        bar.ax.yaxis.set_major_locator(MaxNLocator(4))
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")  # no common factor above the bar
        bar.ax.tick_params(labelsize=7.5, colors=INK, length=2, pad=2)
        bar.set_label(label, fontsize=8, color=INK, labelpad=3)
        bar.outline.set_visible(False)


def _headline(points: dict[str, Any], depth: dict[str, Any], cameras: dict[str, Any]) -> str:
    auc = "–" if cameras["auc_30"] is None else f"{cameras['auc_30']:.1f} %"
    return (
        f"Acc {points['accuracy_mean']:.4g}   Comp {points['completeness_mean']:.4g}   NC {points['nc_mean']:.3f}   "
        f"AbsRel {depth['abs_rel']:.3f}   δ<1.25 {depth['delta_1']:.3f} (scale aligned)   AUC@30 {auc}"
    )


def _draw_clouds(page: _Page, scene: SceneEvaluation, top: float, side: float) -> None:
    """Truth, prediction, and the prediction coloured by its distance to the truth, from two viewpoints."""
    step = max(-(-len(scene.true_points) // _CLOUD_POINTS), 1)
    truth, predicted = scene.true_points[::step], scene.predicted_points[::step]
    colours = scene.colours[::step]
    smallest = _INVISIBLE * scene.numbers["sizes"]["mean_distance"]
    limit = max(float(np.percentile(scene.accuracy, 95)), smallest)
    errors = (255 * _false_colour(scene.accuracy[::step] / limit, "turbo")).astype(np.uint8)
    columns = (("truth", truth, colours), ("prediction, aligned", predicted, colours), ("error", predicted, errors))
    for i, (name, points, shown) in enumerate(columns):
        left = _LEFT + i * (side + _GAP)
        page.text(left, top - 0.08, name, size=10)
        for j, view in enumerate(two_viewpoints(truth, scene.true_cameras)):
            page.image(left, top + j * (side + _GAP), side, side, draw_points(points, shown, view, _CLOUD_PX))
    bar_left = _LEFT + 3 * side + 2 * _GAP + 0.12
    page.bar(bar_left, top, 2 * side + _GAP, "turbo", 0, limit, "distance to the nearest true point (scene units)")


def _draw_depth(
    page: _Page, scene: SceneEvaluation, columns: list[int], top: float, tile: float, tile_height: float
) -> None:
    """Image, true depth, predicted depth and relative error of some views; one colour scale for all views."""
    valid = np.concatenate([scene.truth[i].depth_z[scene.truth[i].valid] for i in columns])
    low, high = (float(v) for v in np.percentile(valid, (1, 99)))
    spread = max(high - low, 1e-9 * max(high, 1e-9))
    errors = []
    for i in columns:
        view = scene.truth[i]
        safe = np.where(view.valid, view.depth_z, 1)
        errors.append(np.abs(scene.predicted_depth[i] - view.depth_z) / safe)
    seen = np.concatenate([e[scene.truth[i].valid] for e, i in zip(errors, columns, strict=True)])
    worst = max(float(np.percentile(seen, 95)), _INVISIBLE)
    for name, row in (("image", 0), ("true\ndepth", 1), ("predicted\ndepth", 2), ("relative\nerror", 3)):
        middle = top + row * (tile_height + 0.06) + tile_height / 2
        page.text(_LEFT - 0.12, middle, name, size=9, ha="right", va="center")
    for c, (i, error) in enumerate(zip(columns, errors, strict=True)):
        view, left = scene.truth[i], _LEFT + c * (tile + 0.06)
        page.text(left, top - 0.07, f"view {scene.view_ids[i]}" + (" (reference)" if i == 0 else ""), size=8.5)
        rows = (
            view.rgb / 255,
            _masked(_false_colour((view.depth_z - low) / spread, "viridis_r"), view.valid),
            _masked(_false_colour((scene.predicted_depth[i] - low) / spread, "viridis_r"), view.valid),
            _masked(_false_colour(error / worst, "turbo"), view.valid),
        )
        for r, pixels in enumerate(rows):
            page.image(left, top + r * (tile_height + 0.06), tile, tile_height, pixels)
    left = _LEFT + len(columns) * (tile + 0.06) + 0.06
    page.bar(left, top + tile_height + 0.06, 2 * tile_height + 0.06, "viridis_r", low, low + spread, "scene units")
    page.bar(left, top + 3 * (tile_height + 0.06), tile_height, "turbo", 0, worst, "|p − g| / g")


def _draw_paths(page: _Page, scene: SceneEvaluation, top: float, height: float, inner: float) -> None:
    """Camera positions and directions of view, from above and from the side, to one scale in both directions."""
    up = -scene.true_cameras[:, 1, :3].mean(axis=0)
    if np.linalg.norm(up) < 1e-6:
        up = -scene.true_cameras[0, 1, :3]
    up /= np.linalg.norm(up)
    right = scene.true_cameras[0, 0, :3] - (scene.true_cameras[0, 0, :3] @ up) * up
    right = right / np.linalg.norm(right) if np.linalg.norm(right) > 1e-6 else np.cross(up, [0.3, 0.5, 0.8])
    ahead = np.cross(up, right)
    sides = (("cameras from above", right, ahead), ("cameras from the side", right, up))
    width = (inner - 0.9) / 2
    for i, (name, across, upwards) in enumerate(sides):
        left = _LEFT + i * (width + 0.9)
        page.text(left, top - 0.1, name, size=10)
        axes = page.axes(left, top, width, height)
        plane = np.stack([across, upwards], axis=1)  # 3×2
        _draw_cloud_shadow(axes, scene.true_points @ plane)
        reach = 0.1 * scene.numbers["sizes"]["mean_distance"]
        _draw_cameras(axes, scene.true_cameras, plane, reach, TRUE_COLOUR, "truth", 2.6)
        _draw_cameras(axes, scene.predicted_cameras, plane, reach, PREDICTED_COLOUR, "prediction, aligned", 1.1)
        axes.set_aspect("equal", adjustable="datalim")
        axes.tick_params(labelsize=8, colors=INK, length=2)
        axes.grid(color="#e4e7eb", linewidth=0.5)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_color("#d5d9df")
        axes.set_xlabel("scene units", fontsize=8, color=INK, labelpad=1)
        if i == 0:
            axes.legend(fontsize=8, loc="best", framealpha=0.85, edgecolor="none")


def _draw_cloud_shadow(axes: Any, flat: np.ndarray) -> None:
    """Show where the scene is: a faint scatter of a few of its points."""
    some = flat[:: max(len(flat) // 1500, 1)]
    axes.scatter(some[:, 0], some[:, 1], s=1.2, color="#c3c8cf", linewidths=0, zorder=1)


def _draw_cameras(
    axes: Any, cameras: np.ndarray, plane: np.ndarray, reach: float, colour: str, label: str, width: float
) -> None:
    """Draw the path, a stroke of length ``reach`` along each direction of view, and a ring around the reference."""
    centres = -np.einsum("nji,nj->ni", cameras[:, :3, :3], cameras[:, :3, 3])
    flat = centres @ plane
    tips = flat + reach * (cameras[:, 2, :3] @ plane)
    strokes = np.stack([flat, tips, np.full_like(flat, np.nan)], axis=1).reshape(-1, 2)
    axes.plot(flat[:, 0], flat[:, 1], "-o", color=colour, markersize=2 + width, linewidth=width, label=label, zorder=3)
    axes.plot(*strokes.T, color=colour, linewidth=width + 0.4, zorder=3)
    ring = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.5}
    axes.plot(*flat[0], "o", markersize=6 + 2 * width, zorder=4, **ring)


def _shown_views(count: int) -> list[int]:
    shown = min(count, _MOST_VIEWS)
    return [i * count // shown for i in range(shown)]


def _false_colour(values: np.ndarray, name: str) -> np.ndarray:
    """Return RGB 0 to 1 of values 0 to 1, by matplotlib's map ``name``."""
    from matplotlib import colormaps

    return np.asarray(colormaps[name](np.clip(values, 0, 1)))[..., :3]


def _masked(rgb: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.where(valid[..., None], rgb, 0.94)
