"""WAI, the format that MapAnything trains on.

::

    <out>/<attribute>_<kk>/<tttsss>/scene_meta.json
    <out>/<attribute>_<kk>/<tttsss>/images/0000.png     8-bit RGB; its loader would take alpha for a fourth colour
    <out>/<attribute>_<kk>/<tttsss>/depth/0000.exr      float32, 0 = no surface; channel Y, as OpenCV reads Z as zeros
    <out>/<attribute>_<kk>/<tttsss>/covisibility/v0/pairwise_covisibility--<N>x<N>.npy
    <out>/metadata/<split>/<attribute>_<kk>_scene_list_<split>.npy

Conventions of its loaders: ``transform_matrix`` is world-from-camera with OpenCV axes; the centre of the first pixel is
(0, 0), so cx and cy are half a pixel less than in the dataset; depth is planar z. ``ROOT`` of a loader is the folder of
a dataset, ``dataset_metadata_dir`` is ``<out>/metadata``. The covisibility file is read as raw float32 after a header
of 128 bytes, its shape taken from its name. ``examples/mapanything_loader.py`` reads all of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megasynth_attr.core.files import json_bytes, write_durably
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.export.derived import covisibility
from megasynth_attr.dataset.export.target import Target
from megasynth_attr.dataset.images import write_exr, write_png
from megasynth_attr.dataset.reader import Dataset, SceneData

WAI_VERSION = "0.1"
METADATA = "metadata"
COVISIBILITY = "covisibility/v0"
SPLITS = ("train", "val")


def write_scene(folder: Path, scene: SceneData, dataset: Dataset) -> None:
    """Write one scene as ``folder``."""
    for name in ("images", "depth", COVISIBILITY):
        (folder / name).mkdir(parents=True)
    frames = []
    for view in scene.views:
        name = f"{view.index:04d}"
        image, depth = f"images/{name}.png", f"depth/{name}.exr"
        write_png(folder / image, view.rgb)
        write_exr(folder / depth, {"Y": view.depth_z})
        frames.append(
            {
                "frame_name": name,
                "file_path": image,
                "image": image,
                "depth": depth,
                "transform_matrix": np.linalg.inv(view.camera_from_world).tolist(),
            }
        )
    view = scene.views[0]
    fx, fy, cx, cy = view.pinhole
    shares = covisibility(scene.views)
    shares_file = f"{COVISIBILITY}/pairwise_covisibility--{len(shares)}x{len(shares)}.npy"
    np.save(folder / shares_file, shares)
    record = {
        "scene_name": scene.name,
        "dataset_name": dataset.name,
        "version": WAI_VERSION,
        "shared_intrinsics": True,
        "camera_model": "PINHOLE",
        "camera_convention": "opencv",
        "scale_type": "colmap",  # its word for a scale that is not metric: the bounding box touches ±1
        "h": view.height_px,
        "w": view.width_px,
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx - 0.5,
        "cy": cy - 0.5,
        "frames": frames,
        "frame_modalities": {
            "image": {"frame_key": "image", "format": "image"},
            "depth": {"frame_key": "depth", "format": "depth"},
        },
        "scene_modalities": {"pairwise_covisibility": {"scene_key": shares_file, "format": "mmap"}},
    }
    write_durably(folder / "scene_meta.json", json_bytes(record))


def write_lists(target: Target, dataset: Dataset, val_scenes: int) -> None:
    """List the exported scenes of a dataset, its last ``val_scenes`` in the split val and the others in train."""
    names = sorted(path.name for path in (target.out / dataset.name).iterdir() if paths.is_scene_name(path.name))
    first = max(0, len(names) - val_scenes)
    for split, listed in zip(SPLITS, (names[:first], names[first:]), strict=True):
        with target.new_piece(f"{METADATA}/{split}/{dataset.name}_scene_list_{split}.npy") as file:
            np.save(file, np.array(listed, dtype=np.str_))
