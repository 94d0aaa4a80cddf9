"""The ray-cast dataset in the layouts of other programs, written here in their exact form."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from megasynth_attr.dataset.images import write_png
from megasynth_attr.dataset.reader import SceneData, open_dataset


def scenes_of(ours: Path) -> tuple[SceneData, ...]:
    """Return the scenes of the ray-cast dataset."""
    return open_dataset(ours).scenes


def on_white(view) -> Image.Image:
    """Return a view's picture without transparency."""
    image = Image.new("RGB", (view.width_px, view.height_px), "white")
    image.paste(view.picture, mask=view.picture.getchannel("A"))
    return image


def write_clearpose(root: Path, ours: Path, intrinsics_key: str = "intrinsic_matrix") -> Path:
    """Write the scenes as set1/scene1, set1/scene2, …: every view is a hundredth frame, and the next one as well."""
    for number, scene in enumerate(scenes_of(ours), 1):
        folder = root / "set1" / f"scene{number}"
        folder.mkdir(parents=True)
        frames = {}
        for view in scene.views:
            for frame in (f"{100 * view.index:06d}", f"{100 * view.index + 1:06d}"):
                on_white(view).save(folder / f"{frame}-color.png")
                write_png(folder / f"{frame}-depth_true.png", np.rint(view.depth_z * 1000).astype(np.uint16))
                write_png(folder / f"{frame}-depth.png", np.full(view.depth_z.shape, 77, np.uint16))  # of the sensor
                frames[frame] = {
                    "cls_indexes": np.array([[1], [2]]),
                    intrinsics_key: view.intrinsics,
                    "rotation_translation_matrix": np.linalg.inv(view.camera_from_world)[:3],
                    "factor_depth": 1000,
                }
        with warnings.catch_warnings():
            savemat(folder / "metadata.mat", frames)
    return root
