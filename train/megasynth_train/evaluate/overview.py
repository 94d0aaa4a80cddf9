"""One picture of a prediction: input, depth and confidence by view, and the points with the cameras from two sides.

Every row and every axis has its own strip for text, so that nothing overlaps whatever the number and shape of views.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from megasynth_attr.core.pages import figures as plots
from megasynth_train.evaluate.prediction import PredictedScene

COLUMNS = 6  # most views shown, evenly chosen
POINTS = 40_000  # most points drawn, evenly chosen
WIDTH_INCHES, TILE_INCHES = 10.0, 2.4  # of the figure, and of a tile at most
LEFT, RIGHT, GAP, LINE, BAR = 0.15, 0.75, 0.06, 0.24, 0.12  # margins, gap, height of a text line, colour bar (inches)
PANEL_INCHES, PANEL_GAP = 4.3, 0.6  # height of the point cloud panels, and the gap between them
SMALL = 7.5
CHARACTER_INCHES = 0.62 * SMALL / 72  # about the mean width of a letter
# share of points outside the panels, and of values outside the colour scale, on each side
OUTLIERS_PERCENT = 1.0
CAMERA_SHARE = 0.07  # length of a drawn camera relative to the size of the scene
# rows: right, down and forward of the viewer, in world axes (the first camera's x right, y down, z forward)
ABOVE = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
OBLIQUE = Rotation.from_euler("yx", (35, 25), degrees=True).as_matrix()  # rotated to the right and up around the scene


@plots.figure_style()
def save_overview(path: Path, scene: PredictedScene, rgb: np.ndarray, keep: np.ndarray, names: Sequence[str]) -> None:
    """Write the PNG. ``rgb`` uint8 [S, H, W, 3], ``keep`` bool [S, H, W]: the points drawn, ``names`` of views."""
    chosen = plots.evenly(len(names), COLUMNS)
    height, width = rgb.shape[1:3]
    inner = WIDTH_INCHES - LEFT - RIGHT - GAP * (len(chosen) - 1)
    tile = min(TILE_INCHES, inner / len(chosen))
    canvas = _Canvas(3 * (tile * height / width) + 5 * LINE + 2 * GAP + PANEL_INCHES + LINE + 0.55)
    shown = f"{len(chosen)} of {len(names)} views" if len(chosen) < len(names) else f"{len(names)} views"
    canvas.heading("input, " + ("1 view" if len(names) == 1 else shown))
    canvas.labels([f"{i + 1}  {names[i]}" for i in chosen], tile)
    canvas.tiles([rgb[i] for i in chosen], tile)
    canvas.heading("depth z (1: about the mean distance of the points from the first camera)")
    canvas.tiles([scene.depth_z[i] for i in chosen], tile, _scale(scene.depth_z[chosen], "viridis_r"))
    canvas.heading("confidence")
    canvas.tiles([scene.confidence[i] for i in chosen], tile, _scale(scene.confidence[chosen], "magma"))
    canvas.heading(f"the {int(keep.sum()):,} most confident points and the cameras, in the first camera's axes")
    _draw_panels(canvas, scene, rgb, keep)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        plots.save_png(canvas.figure, path)


class _Canvas:
    """A figure filled from top to bottom."""

    def __init__(self, height_inches: float) -> None:
        self.top = 0.08  # inches used so far
        self.figure: Any = plots.new_figure(WIDTH_INCHES, height_inches, dpi=150)

    def heading(self, text: str) -> None:
        plots.write(self.figure, LEFT, self.top + LINE * 0.75, text, fontweight="bold")
        self.top += LINE

    def labels(self, texts: Sequence[str], tile: float) -> None:
        """Write one text above each tile, shortened in the middle to its width."""
        room = max(4, int(tile / CHARACTER_INCHES))
        for column, text in enumerate(texts):
            left = LEFT + column * (tile + GAP)
            plots.write(
                self.figure, left, self.top + LINE * 0.75, _shortened(text, room), fontsize=SMALL, color=plots.MUTED
            )
        self.top += LINE

    def tiles(self, pictures: Sequence[np.ndarray], tile: float, colours: Any = None) -> None:
        """Draw a row of pictures, with a colour bar if they are numbers."""
        row = tile * pictures[0].shape[0] / pictures[0].shape[1]
        for column, picture in enumerate(pictures):
            axes = plots.place(self.figure, LEFT + column * (tile + GAP), self.top, tile, row)
            plots.show_pixels(
                axes, picture, **({} if colours is None else {"norm": colours.norm, "cmap": colours.cmap})
            )
        if colours is not None:
            bar = plots.place(self.figure, LEFT + len(pictures) * (tile + GAP), self.top, BAR, row)
            plots.colour_bar(bar, colours, upright=True)
            plots.few_ticks(bar.yaxis, max(2, int(row / 0.35)))
        self.top += row + GAP


def _draw_panels(canvas: _Canvas, scene: PredictedScene, rgb: np.ndarray, keep: np.ndarray) -> None:
    """Draw the points and cameras from two sides; only the cameras if no point is left."""
    points, colours = scene.points_world[keep], rgb[keep] / 255.0
    some = plots.evenly(len(points), POINTS)
    corners = _frusta(scene, _size(points, scene))
    width = (WIDTH_INCHES - LEFT - RIGHT - PANEL_GAP) / 2
    looks = ((OBLIQUE, "from behind, the right and above"), (ABOVE, "from above"))
    for column, (rotation, title) in enumerate(looks):
        axes = plots.place(
            canvas.figure, LEFT + column * (width + PANEL_GAP), canvas.top + LINE, width, PANEL_INCHES - LINE
        )
        axes.set_title(title, color=plots.MUTED, pad=4)
        cameras, seen = corners @ rotation.T, points[some] @ rotation.T
        order = np.argsort(-seen[:, 2])  # far ones first
        axes.scatter(*seen[order, :2].T, c=colours[some][order], s=1.6, linewidths=0, zorder=1)
        _draw_cameras(axes, cameras)
        _frame(axes, (points @ rotation.T)[:, :2], cameras[..., :2].reshape(-1, 2))
        axes.tick_params(labelsize=SMALL, length=2, pad=2)
        axes.grid(False)
        axes.spines[:].set_visible(True)
        if rotation is OBLIQUE:
            axes.set_xticks([])
            axes.set_yticks([])
        else:
            axes.set_xlabel("x (right)", fontsize=SMALL, labelpad=1)
            axes.set_ylabel("z (forward)", fontsize=SMALL, labelpad=1)
            axes.xaxis.set_major_formatter(lambda value, _: f"{round(value, 9) + 0.0:g}")
            # down on the page is backward
            axes.yaxis.set_major_formatter(lambda value, _: f"{0.0 - round(value, 9):g}")
            plots.few_ticks(axes.xaxis, 6)
            plots.few_ticks(axes.yaxis, 6)
    _draw_view_bar(canvas, len(corners), LEFT + 2 * width + PANEL_GAP + GAP)


def _draw_cameras(axes: Any, corners: np.ndarray) -> None:
    """Draw cameras given as [S, 5, 3] (centre and image corners, in the viewer's axes), dark to light by number."""
    from matplotlib.collections import LineCollection

    colours = _view_colours(len(corners))
    for index, (centre, *image) in enumerate(corners[..., :2]):
        lines = [(centre, corner) for corner in image] + [(image[i], image[(i + 1) % 4]) for i in range(4)]
        colour = colours(index)
        axes.add_collection(
            LineCollection(lines, colors=[plots.PAPER], linewidths=2.2, zorder=2)
        )  # visible on any background
        axes.add_collection(LineCollection(lines, colors=[colour], linewidths=1.1, zorder=3))


def _view_colours(count: int) -> Any:
    """Return the colour map of view numbers 0 to ``count`` - 1: plasma without its palest end, invisible on white."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["plasma"](np.linspace(0, 0.85, count)))


def _draw_view_bar(canvas: _Canvas, count: int, left: float) -> None:
    """Draw the colours of the views beside the panels."""
    bar = plots.place(canvas.figure, left, canvas.top + LINE, BAR, PANEL_INCHES - LINE)
    plots.colour_bar(bar, plots.scale(0.5, count + 0.5, _view_colours(count)), upright=True)
    bar.invert_yaxis()
    plots.few_ticks(bar.yaxis, 12, integer=True, min_n_ticks=1)
    bar.set_title("view", fontsize=SMALL, color=plots.MUTED, pad=4)


def _frame(axes: Any, points: np.ndarray, cameras: np.ndarray) -> None:
    """Choose limits that hold all cameras and nearly all points [N, 2], with one scale for both directions, y down."""
    low, high = cameras.min(axis=0), cameras.max(axis=0)
    if len(points):
        low = np.minimum(low, np.percentile(points, OUTLIERS_PERCENT, axis=0))
        high = np.maximum(high, np.percentile(points, 100 - OUTLIERS_PERCENT, axis=0))
    middle, half = (low + high) / 2, (high - low) / 2 * 1.1
    box = axes.get_window_extent()
    aspect = box.width / box.height
    half_height = max(half[1], half[0] / aspect, 1e-6)
    axes.set_xlim(middle[0] - half_height * aspect, middle[0] + half_height * aspect)
    axes.set_ylim(middle[1] + half_height, middle[1] - half_height)


def _frusta(scene: PredictedScene, length: float) -> np.ndarray:
    """Return centre and image corners of all cameras in the world, [S, 5, 3], ``length`` from apex to farthest corner.

    A fixed diagonal instead of a fixed depth keeps cameras with extreme fields of view inside the picture.
    """
    height, width = scene.depth_z.shape[1:]
    pixels = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
    rays = pixels @ np.linalg.inv(scene.intrinsics.astype(float)).transpose(0, 2, 1)  # [S, 4, 3]
    rays *= length / np.linalg.norm(rays, axis=-1, keepdims=True)
    local = np.concatenate([np.zeros((len(rays), 1, 3)), rays], axis=1)
    rotation, translation = scene.camera_from_world[:, :3, :3].astype(float), scene.camera_from_world[:, None, :3, 3]
    return (local - translation) @ rotation


def _size(points: np.ndarray, scene: PredictedScene) -> float:
    """Return the length a camera is drawn with, in proportion to the bulk of points and camera centres."""
    centres = _frusta(scene, 0.0)[:, 0]
    extent = np.ptp(centres, axis=0).max()
    if len(points):
        extent = max(extent, np.ptp(np.percentile(points, [5, 95], axis=0), axis=0).max())
    return CAMERA_SHARE * (float(extent) or 1.0)


def _scale(values: np.ndarray, colours: str) -> Any:
    """Return a colour scale over the bulk of the finite values."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [OUTLIERS_PERCENT, 100 - OUTLIERS_PERCENT]) if finite.size else (0.0, 1.0)
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # one value: show it in the middle of the scale
        low, high = low - 0.5 * max(abs(low), 1e-6), high + 0.5 * max(abs(high), 1e-6)
    return plots.scale(float(low), float(high), colours)


def _shortened(text: str, room: int) -> str:
    """Return ``text``, with its middle replaced by an ellipsis if it is longer than ``room`` letters."""
    text = text.encode(errors="replace").decode()  # undecodable bytes of a file name
    if len(text) <= room:
        return text
    tail = (room - 1) // 2
    return text[: room - 1 - tail] + "…" + text[len(text) - tail :]
