"""COLMAP sparse models, text and binary, with a point cloud from depth.

::

    <out>/<attribute>_<kk>/<tttsss>/images/0000.png
    <out>/<attribute>_<kk>/<tttsss>/sparse/0/{cameras,images,points3D}.{txt,bin}

One PINHOLE camera; poses are camera-from-world, quaternion (w, x, y, z), as COLMAP defines them; COLMAP also puts the
centre of the first pixel at (0.5, 0.5). Points lie on a regular subset of pixels of all views; a point's track holds
every view that sees it (its depth there agrees within 0.5 %), at its exact projection. Points seen only once are left
out. The files (https://colmap.github.io/format.html) are written without pycolmap, so that exporting needs no further
package.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from megasynth_attr.dataset.export.target import place_file
from megasynth_attr.dataset.reader import SceneData, View
from megasynth_attr.dataset.reprojection import TOLERANCE, Surface, project, regular_grid

POINTS_PER_SCENE = 5000  # about; points lost at silhouettes or seen only once are not replaced
PINHOLE = 1  # COLMAP's number of this camera model; its parameters are fx, fy, cx, cy


@dataclass(frozen=True)
class Image:
    """A posed image, and the n points of the cloud that it sees."""

    name: str
    pose: np.ndarray  # 7: quaternion (w, x, y, z) with w ≥ 0, translation
    pixels: np.ndarray  # n×2
    points: np.ndarray  # n, ids


@dataclass(frozen=True)
class Model:
    """A sparse model of one camera. Images and points have their place in the list, counted from 1, as their id."""

    size: tuple[int, int]  # width, height in pixels
    pinhole: tuple[float, ...]  # fx, fy, cx, cy
    images: list[Image]
    points: np.ndarray  # P×3 world
    colours: np.ndarray  # P×3 uint8

    def tracks(self) -> list[list[tuple[int, int]]]:
        """Return, per point, the images that see it: (image id, index in that image's list of points)."""
        tracks: list[list[tuple[int, int]]] = [[] for _ in self.points]
        for image_id, image in enumerate(self.images, 1):
            for position, point_id in enumerate(image.points.tolist()):
                tracks[point_id - 1].append((image_id, position))
        return tracks


def write_scene(folder: Path, scene: SceneData, link: bool, model: str) -> None:
    """Write one scene as ``folder``, ``model`` "both", "text" or "binary"."""
    sparse = folder / "sparse" / "0"
    for new in (folder / "images", sparse):
        new.mkdir(parents=True)
    for view in scene.views:
        place_file(view.file("rgb"), folder / "images" / f"{view.index:04d}.png", link)
    content = build_model(scene.views)
    files = text_files(content) if model in ("both", "text") else {}
    files |= binary_files(content) if model in ("both", "binary") else {}
    for name, data in files.items():
        (sparse / name).write_bytes(data)


def build_model(views: tuple[View, ...]) -> Model:
    """Return cameras, poses and a consistent point cloud with tracks."""
    points, colours = _candidates(views)
    seen, pixels = [], []
    for view in views:
        surface = Surface(view.depth_z, view.intrinsics, view.camera_from_world)
        at, predicted = project(points, view.intrinsics, view.camera_from_world)
        found, smooth, _, _ = surface.sample(at)
        seen.append(np.flatnonzero(smooth & (np.abs(predicted - found) <= TOLERANCE * predicted)))
        pixels.append(at[seen[-1]])
    kept = np.bincount(np.concatenate(seen), minlength=len(points)) >= 2
    ids = np.cumsum(kept)
    images = []
    for view, indices, at in zip(views, seen, pixels, strict=True):
        quaternion = Rotation.from_matrix(view.camera_from_world[:3, :3]).as_quat(canonical=True)
        pose = np.concatenate([quaternion[[3, 0, 1, 2]], view.camera_from_world[:3, 3]])
        listed = kept[indices]
        images.append(Image(f"{view.index:04d}.png", pose, at[listed], ids[indices[listed]]))
    return Model((views[0].width_px, views[0].height_px), views[0].pinhole, images, points[kept], colours[kept])


def _candidates(views: tuple[View, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return world points P×3 and their colours P×3 uint8, about ``POINTS_PER_SCENE`` in all.

    They lie on a regular grid of each view's pixels, on smooth surfaces only.
    """
    pixels = views[0].width_px * views[0].height_px * len(views)
    grid = regular_grid(pixels / POINTS_PER_SCENE)
    points, colours = [], []
    for view in views:
        surface = Surface(view.depth_z, view.intrinsics, view.camera_from_world)
        usable = surface.smooth[grid]
        points.append(surface.points[grid][usable])
        colours.append(view.rgb[grid][usable])
    return np.concatenate(points), np.concatenate(colours)


def text_files(model: Model) -> dict[str, bytes]:
    """Return cameras.txt, images.txt and points3D.txt; numbers with 17 digits, so that nothing is lost."""
    width, height = model.size
    cameras = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]", f"1 PINHOLE {width} {height} {_numbers(model.pinhole)}"]
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME", "# POINTS2D[] as (X, Y, POINT3D_ID)"]
    for i, image in enumerate(model.images, 1):
        images.append(f"{i} {_numbers(image.pose)} 1 {image.name}")
        listed = zip(image.pixels, image.points, strict=True)
        images.append(" ".join(f"{_numbers(pixel)} {point}" for pixel, point in listed))
    points = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    for i, (point, colour, track) in enumerate(zip(model.points, model.colours, model.tracks(), strict=True), 1):
        seen = " ".join(f"{image} {position}" for image, position in track)
        points.append(f"{i} {_numbers(point)} {_numbers(colour)} 0 {seen}")
    contents = {"cameras.txt": cameras, "images.txt": images, "points3D.txt": points}
    return {name: ("\n".join(lines) + "\n").encode() for name, lines in contents.items()}


def binary_files(model: Model) -> dict[str, bytes]:
    """Return cameras.bin, images.bin and points3D.bin, little-endian."""
    cameras = struct.pack("<QiiQQ4d", 1, 1, PINHOLE, *model.size, *model.pinhole)
    images = [struct.pack("<Q", len(model.images))]
    for i, image in enumerate(model.images, 1):
        listed = np.empty(len(image.points), dtype=[("pixel", "<f8", 2), ("point", "<u8")])
        listed["pixel"], listed["point"] = image.pixels, image.points
        images.append(struct.pack("<i7di", i, *image.pose, 1) + image.name.encode() + b"\0")
        images.append(struct.pack("<Q", len(listed)) + listed.tobytes())
    points = [struct.pack("<Q", len(model.points))]
    for i, (point, colour, track) in enumerate(zip(model.points, model.colours, model.tracks(), strict=True), 1):
        points.append(struct.pack("<Q3d3Bd", i, *point, *colour.tolist(), 0.0))
        points.append(struct.pack("<Q", len(track)) + np.array(track, dtype="<i4").tobytes())
    return {"cameras.bin": cameras, "images.bin": b"".join(images), "points3D.bin": b"".join(points)}


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{float(value):.17g}" for value in values)
