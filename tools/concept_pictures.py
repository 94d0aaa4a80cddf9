"""Makes docs/images/{isolation,conventions,subspaces}.png, the pictures of the pages about concepts.

    python tools/concept_pictures.py docs/images

Hashes are those of scenes that are drawn here, spectra those of clusters of experiments/planted.py; nothing is
rendered or trained.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.pages.figures import CHANCE, COLOURS, DASHED, GRID, INK, MUTED, figure_style, save_png, sheet
from megasynth_attr.farm.library import open_library
from megasynth_attr.scene.config import resolve
from megasynth_attr.scene.sample import sample_scene
from megasynth_train.subspace.spectrum import FrameBank, null_spectrum, spectrum

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
ATTRIBUTES = ("texture", "geometry", "camera", "lighting")
SCENES = 6


@figure_style()
def isolation(path: Path) -> None:
    """Draw the hash of every factor in six scenes of each attribute; equal hashes have equal colours."""
    page = sheet(2, 2, 0.95, width=7.2, left=0.75, gap_x=0.85, bottom=0.15)
    for axes, attribute in zip(page.axes.ravel(), ATTRIBUTES, strict=True):
        (config,) = resolve([f"preset={attribute}", "frames=8"]).members
        with tempfile.TemporaryDirectory() as cache:
            records = open_library(config, Path(cache)).records
        hashes = [sample_scene(config, 0, index, records).hashes() for index in range(SCENES)]
        axes.set_title(f"dataset {attribute}_00, scenes 0 to {SCENES - 1}", loc="left")
        axes.grid(False)
        for row, factor in enumerate(ATTRIBUTES):
            seen: list[str] = []
            for column, scene in enumerate(hashes):
                value = scene[factor]
                seen += [value] if value not in seen else []
                colour = COLOURS[seen.index(value) % len(COLOURS)] if factor == attribute else GRID
                axes.add_patch(_cell(column, row, colour))
                ink = "white" if factor == attribute else INK
                axes.text(column + 0.5, row + 0.5, value[:4], ha="center", va="center", fontsize=7, color=ink)
        axes.set(xlim=(0, SCENES), ylim=(len(ATTRIBUTES), 0), xticks=[])
        axes.set_yticks(np.arange(len(ATTRIBUTES)) + 0.5, ATTRIBUTES)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    save_png(page.figure, path)


def _cell(column: int, row: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column + 0.04, row + 0.06), 0.92, 0.88, facecolor=colour, linewidth=0)


@figure_style()
def conventions(path: Path) -> None:
    """Draw the pixel grid with its centres, and the camera seen from above with a planar depth."""
    page = sheet(1, 2, 2.2, width=7.2, left=0.5, gap_x=0.8)
    pixels, above = page.axes[0]
    width, height = 6, 4
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels.plot(u, v, ".", color=MUTED, markersize=5)
    pixels.plot(width / 2, height / 2, "x", color=COLOURS[1], markersize=8, markeredgewidth=2)
    pixels.annotate("cx = W/2, cy = H/2", (width / 2, height / 2), (0.3, 1.98), color=COLOURS[1])
    pixels.annotate("(0.5, 0.5)", (0.5, 0.5), (0.62, 0.98), color=INK)
    pixels.set(xlim=(0, width), ylim=(height, 0), xticks=range(width + 1), yticks=range(height + 1), aspect="equal")
    pixels.set(xlabel="u, to the right", ylabel="v, downwards")
    pixels.set_title("pixels", loc="left")

    half_fov, depth = np.radians(28), 3.0
    for side in (-1, 1):
        above.plot([0, side * 4 * np.tan(half_fov)], [0, 4], color=MUTED, linewidth=0.8)
    point = np.array([1.1, depth])
    above.plot([-1.95, 1.7], [depth, depth], color=COLOURS[0], linestyle=DASHED)
    above.plot(*point, "o", color=COLOURS[1])
    above.plot([0, point[0]], [0, point[1]], color=COLOURS[1], linewidth=0.8)
    above.plot([-1.95, -1.95], [0, depth], color=COLOURS[0])
    above.text(-2.05, depth / 2, "depth z", color=COLOURS[0], ha="right", va="center")
    above.text(1.85, point[1], "surface", color=COLOURS[1], va="center")
    for (x, z), name in (((0.9, 0), "x"), ((0, 3.9), "z")):
        above.annotate("", (x, z), (0, 0), arrowprops={"arrowstyle": "->", "color": INK})
        above.text(x + 0.08, z, name, va="center")
    above.text(0.08, -0.45, "y into the page", color=MUTED)
    above.set(xlim=(-3.2, 2.9), ylim=(-0.6, 4.2), aspect="equal")
    above.set_axis_off()
    above.set_title("camera from above", loc="left")
    save_png(page.figure, path)


@figure_style()
def subspaces(path: Path) -> None:
    """Draw the spectra of two clusters of six adapters, with a common subspace of two dimensions and without."""
    sys.path.insert(0, str(EXPERIMENTS))
    from planted import Condition, layer_cluster

    page = sheet(1, 2, 1.7, width=7.2, gap_x=0.6)
    for axes, share, title in zip(page.axes[0], (0.2, 0.0), ("a common subspace", "nothing in common"), strict=True):
        cores, _ = layer_cluster(Condition(title, share), np.random.default_rng(1))
        values, null = spectrum(cores[0]), null_spectrum(cores[0], FrameBank(20, 0), 0.95)
        index = np.arange(1, len(values) + 1)
        above = values > null.upper[0]
        axes.plot(index, null.upper, color=CHANCE, linestyle=DASHED, label="chance")
        axes.bar(index, values, color=np.where(above, COLOURS[1], COLOURS[0]), label="mean of six adapters")
        axes.set_title(f"{title}: {above.sum()} above chance", loc="left")
        axes.set(xlabel="singular value of one layer", ylim=(0, 0.5), xlim=(0, len(values) + 1))
    page.axes[0, 1].legend(loc="upper right")
    save_png(page.figure, path)


def main(folder: str = "docs/images") -> None:
    for draw in (isolation, conventions, subspaces):
        draw(Path(folder) / f"{draw.__name__}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
