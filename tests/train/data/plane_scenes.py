"""Scenes of one slanted plane, in the paper's layout: every depth is a formula, every colour tells its pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from megasynth_attr.dataset.images import write_exr

NORMAL = np.array([0.25, -0.3, 1.0]) / np.linalg.norm([0.25, -0.3, 1.0])
OFFSET = 3.0  # the plane: NORMAL · x = OFFSET
LOW, RANGE = 20.0, 200.0  # red = LOW + RANGE u / width, green likewise with v; u, v at pixel centres


def camera(seed: int) -> np.ndarray:
    """Return camera_from_world of a camera near the origin looking along z, give or take 15 degrees."""
    generator = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(generator.uniform(-0.15, 0.15, 3)).as_matrix()
    pose[:3, 3] = generator.uniform(-0.4, 0.4, 3)
    return pose


def depth_of(pixels: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray) -> np.ndarray:
    """Return the plane's z at pixel coordinates [..., 2]."""
    homogeneous = np.concatenate([pixels, np.ones((*pixels.shape[:-1], 1))], axis=-1)
    rays = homogeneous @ np.linalg.inv(intrinsics).T  # z = 1
    normal = camera_from_world[:3, :3] @ NORMAL
    offset = OFFSET + normal @ camera_from_world[:3, 3]
    return offset / (rays @ normal)


def centres(height: int, width: int) -> np.ndarray:
    """Return H×W×2: the coordinates (u, v) of all pixel centres."""
    return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)


def colours(height: int, width: int) -> np.ndarray:
    """Return H×W×3 float: the colours of a frame before rounding."""
    coded = LOW + RANGE * centres(height, width) / (width, height)
    return np.concatenate([coded, np.full((height, width, 1), 128.0)], axis=-1)


def write_scene(
    folder: Path, size_hw: tuple[int, int], intrinsics: np.ndarray, views: int, seed: int = 0, alpha: bool = False
) -> Path:
    """Write a scene of ``views`` frames and return its folder."""
    height, width = size_hw
    (folder / "renderings").mkdir(parents=True)
    frames = []
    for i in range(views):
        pose = camera(1000 * seed + i)
        image = colours(height, width).round().astype(np.uint8)
        if alpha:
            image = np.concatenate([image, np.full((height, width, 1), 255, np.uint8)], axis=-1)
        name = f"renderings/{i:08d}_rgba.png"
        Image.fromarray(image).save(folder / name)
        depth = depth_of(centres(height, width), intrinsics, pose).astype(np.float32)
        assert depth.min() > 0
        write_exr(folder / f"renderings/{i:08d}_depth.exr", {"R": depth})
        entry = {"fx": intrinsics[0, 0], "fy": intrinsics[1, 1], "cx": intrinsics[0, 2], "cy": intrinsics[1, 2]}
        frames.append({"file_path": name, "w2c": pose.tolist(), "w": width, "h": height, **entry})
    (folder / "opencv_cameras.json").write_text(json.dumps({"frames": frames}))
    return folder


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """Return 3×3 intrinsics."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
