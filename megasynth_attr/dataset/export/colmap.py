"""COLMAP sparse models, text and binary, with a point cloud from depth.

::

    <out>/<attribute>_<kk>/<tttsss>/images/0000.png
    <out>/<attribute>_<kk>/<tttsss>/sparse/0/{cameras,images,points3D}.{txt,bin}

One PINHOLE camera; poses are camera-from-world, quaternion (w, x, y, z), as COLMAP defines them; COLMAP also puts the
centre of the first pixel at (0.5, 0.5). Points lie on a regular subset of pixels of all views; a point's track holds
every view that sees it (its depth there agrees within 0.5 %), at its exact projection. Points seen only once are left
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasynth_attr.dataset.export import colmap_model
from megasynth_attr.dataset.export.colmap_model import Model
from megasynth_attr.dataset.export.target import Target, place_file
from megasynth_attr.dataset.reader import Dataset, SceneData
from megasynth_attr.dataset.reprojection import TOLERANCE, DepthView, Surface, project

POINTS_PER_SCENE = 5000  # aimed at; what silhouettes and single views drop is not replaced


@dataclass(frozen=True)
class _Candidates:
    points: np.ndarray  # P×3 world
    colours: np.ndarray  # P×3 uint8


def export_scene(dataset: Dataset, scene: SceneData, target: Target, link: bool, model: str) -> None:
    """Write one scene, ``model`` "both", "text" or "binary"; nothing is done if it exists."""
    with target.new_folder(f"{dataset.name}/{scene.name}") as folder:
        if folder is None:
            return
        (folder / "images").mkdir()
        sparse = folder / "sparse" / "0"
        sparse.mkdir(parents=True)
        for view in scene.views:
            place_file(view.file("rgb"), folder / "images" / f"{view.index:04d}.png", link)
        content = build_model(scene)
        if model in ("both", "text"):
            _write_all(sparse, colmap_model.text_files(content))
        if model in ("both", "binary"):
            _write_all(sparse, colmap_model.binary_files(content))


def build_model(scene: SceneData) -> Model:
    """Return cameras, poses and a consistent point cloud with tracks."""
    candidates = _candidates(scene)
    image_index, point_index, pixels = [], [], []
    for view in scene.views:
        surface = Surface(DepthView(view.depth_z, view.intrinsics, view.camera_from_world))
        at, predicted = project(candidates.points, view.intrinsics, view.camera_from_world)
        found, smooth, _, _ = surface.sample(at)
        seen = np.flatnonzero(smooth & (np.abs(predicted - found) <= TOLERANCE * predicted))
        image_index.append(np.full(len(seen), view.index))
        point_index.append(seen)
        pixels.append(at[seen])
    images, points, where = np.concatenate(image_index), np.concatenate(point_index), np.concatenate(pixels)
    kept = np.bincount(points, minlength=len(candidates.points)) >= 2
    renumbered = np.cumsum(kept) - 1
    observed = kept[points]
    height, width = scene.cameras["height_px"], scene.cameras["width_px"]
    return Model(
        width_px=width,
        height_px=height,
        intrinsics=scene.intrinsics,
        camera_from_world=scene.camera_from_world,
        image_names=tuple(f"{view.index:04d}.png" for view in scene.views),
        points=candidates.points[kept],
        colours=candidates.colours[kept],
        observation_image=images[observed],
        observation_point=renumbered[points[observed]],
        observation_pixel=where[observed],
    )


def _candidates(scene: SceneData) -> _Candidates:
    """Return points on a regular grid of pixels, smooth surfaces only, about ``POINTS_PER_SCENE`` over all views."""
    views = scene.views
    pixels = views[0].width_px * views[0].height_px * len(views)
    step = max(1, int(np.sqrt(pixels / POINTS_PER_SCENE)))
    points, colours = [], []
    for view in views:
        surface = Surface(DepthView(view.depth_z, view.intrinsics, view.camera_from_world))
        grid = (slice(step // 2, None, step), slice(step // 2, None, step))
        usable = surface.smooth[grid]
        points.append(surface.points[grid][usable])
        colours.append(view.rgb[grid][usable])
    return _Candidates(np.concatenate(points), np.concatenate(colours))


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
