"""COLMAP's sparse-model files (https://colmap.github.io/format.html), as text and as little-endian binary.

All ids count from 1. Written without pycolmap, so that exporting needs no extra package.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

PINHOLE = 1  # COLMAP's model number; parameters fx, fy, cx, cy


@dataclass(frozen=True)
class Model:
    """N posed images of one camera, P coloured points, and M observations (image, point, pixel), ordered by image."""

    width_px: int
    height_px: int
    intrinsics: np.ndarray  # 3×3
    camera_from_world: np.ndarray  # N×4×4
    image_names: tuple[str, ...]
    points: np.ndarray  # P×3
    colours: np.ndarray  # P×3 uint8
    observation_image: np.ndarray  # M, index of the image
    observation_point: np.ndarray  # M, index of the point
    observation_pixel: np.ndarray  # M×2

    def camera_parameters(self) -> tuple[float, float, float, float]:
        k = self.intrinsics
        return float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])

    def poses(self) -> np.ndarray:
        """Return N×7: quaternion (w, x, y, z) with w ≥ 0 and translation."""
        quaternion = Rotation.from_matrix(self.camera_from_world[:, :3, :3]).as_quat(canonical=True)
        return np.concatenate([quaternion[:, [3, 0, 1, 2]], self.camera_from_world[:, :3, 3]], axis=1)

    def observations_of_image(self, image: int) -> np.ndarray:
        """Return the indices of the observations in an image, in the order of its POINTS2D list."""
        return np.flatnonzero(self.observation_image == image)

    def tracks(self) -> list[list[tuple[int, int]]]:
        """Return, per point, its (image id, index in that image's POINTS2D list)."""
        tracks: list[list[tuple[int, int]]] = [[] for _ in self.points]
        for image in range(len(self.image_names)):
            for position, observation in enumerate(self.observations_of_image(image)):
                tracks[int(self.observation_point[observation])].append((image + 1, position))
        return tracks


def text_files(model: Model) -> dict[str, bytes]:
    """Return cameras.txt, images.txt and points3D.txt; numbers with 17 digits, so that nothing is lost."""
    parameters = " ".join(_number(p) for p in model.camera_parameters())
    cameras = [
        "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]",
        f"1 PINHOLE {model.width_px} {model.height_px} {parameters}",
    ]
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME", "# POINTS2D[] as (X, Y, POINT3D_ID)"]
    for i, (name, pose) in enumerate(zip(model.image_names, model.poses(), strict=True)):
        images.append(f"{i + 1} {' '.join(_number(v) for v in pose)} 1 {name}")
        observations = model.observations_of_image(i)
        pixels, points = model.observation_pixel[observations], model.observation_point[observations]
        listed = (f"{_number(x)} {_number(y)} {point + 1}" for (x, y), point in zip(pixels, points, strict=True))
        images.append(" ".join(listed))
    points3d = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    for i, (point, colour, track) in enumerate(zip(model.points, model.colours, model.tracks(), strict=True)):
        position, shade = " ".join(_number(v) for v in point), " ".join(str(int(c)) for c in colour)
        points3d.append(f"{i + 1} {position} {shade} 0 " + " ".join(f"{image} {index}" for image, index in track))
    contents = {"cameras.txt": cameras, "images.txt": images, "points3D.txt": points3d}
    return {name: ("\n".join(lines) + "\n").encode() for name, lines in contents.items()}


def binary_files(model: Model) -> dict[str, bytes]:
    """Return cameras.bin, images.bin and points3D.bin."""
    cameras = struct.pack("<QiiQQ4d", 1, 1, PINHOLE, model.width_px, model.height_px, *model.camera_parameters())
    images = [struct.pack("<Q", len(model.image_names))]
    for i, (name, pose) in enumerate(zip(model.image_names, model.poses(), strict=True)):
        observations = model.observations_of_image(i)
        images.append(struct.pack("<i7di", i + 1, *pose, 1) + name.encode() + b"\0")
        images.append(struct.pack("<Q", len(observations)))
        listed = np.empty(len(observations), dtype=[("pixel", "<f8", 2), ("point", "<u8")])
        listed["pixel"] = model.observation_pixel[observations]
        listed["point"] = model.observation_point[observations] + 1
        images.append(listed.tobytes())
    points3d = [struct.pack("<Q", len(model.points))]
    for i, (point, colour, track) in enumerate(zip(model.points, model.colours, model.tracks(), strict=True)):
        points3d.append(struct.pack("<Q3d3Bd", i + 1, *point, *(int(c) for c in colour), 0.0))
        points3d.append(struct.pack("<Q", len(track)) + np.array(track, dtype="<i4").tobytes())
    return {"cameras.bin": cameras, "images.bin": b"".join(images), "points3D.bin": b"".join(points3d)}


def _number(value: float) -> str:
    return f"{float(value):.17g}"
