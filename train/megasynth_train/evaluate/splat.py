"""Draw a point cloud as a picture with NumPy alone: perspective, nearest points in front."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FILL = 0.9  # share of the picture that the cloud fills, without its outermost points


@dataclass(frozen=True)
class Viewpoint:
    """A pinhole camera in the world (OpenCV axes).

    ``focal`` in widths of the picture: 1 sees ±0.5 of the depth. ``middle``: x/z and y/z in the picture's middle.
    """

    camera_from_world: np.ndarray  # 4×4
    focal: float = 1.0
    middle: tuple[float, float] = (0.0, 0.0)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, 2) positions in the picture, 0 to 1, and (N,) depths."""
        seen = points @ self.camera_from_world[:3, :3].T + self.camera_from_world[:3, 3]
        depth = seen[:, 2]
        rays = seen[:, :2] / np.where(depth > 0, depth, np.nan)[:, None]
        return 0.5 + self.focal * (rays - self.middle), depth


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return camera_from_world (4×4, OpenCV) of a camera at ``eye`` that looks at ``target``, ``up`` upwards."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-9 * np.linalg.norm(up):
        right = np.cross(forward, np.roll(up, 1) + np.array([1e-3, 2e-3, 3e-3]))  # along ``up``: any right will do
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ eye
    return pose


def mean_up(cameras: np.ndarray) -> np.ndarray:
    """Return the mean up direction of cameras (camera_from_world, S×4×4), a unit vector; the first's if it vanishes."""
    up = -cameras[:, 1, :3].mean(axis=0)
    if np.linalg.norm(up) < 1e-6:  # the cameras' up directions cancel
        up = -cameras[0, 1, :3]
    return np.asarray(up / np.linalg.norm(up))


def two_viewpoints(points: np.ndarray, cameras: np.ndarray) -> tuple[Viewpoint, Viewpoint]:
    """Return the two viewpoints of the pictures: near the reference camera, and from the side and higher up.

    ``points`` (N, 3) and ``cameras`` (camera_from_world, S×4×4) are the true ones.
    """
    up = mean_up(cameras)
    centre = np.median(points, axis=0)
    eye = -cameras[0, :3, :3].T @ cameras[0, :3, 3]
    away = eye - centre
    if np.linalg.norm(away) < 1e-6 * np.abs(points).max():
        away = -cameras[0, 2, :3]
    return (_viewpoint(points, centre, away, up, -12.0, 8.0), _viewpoint(points, centre, away, up, 48.0, 28.0))


def _viewpoint(
    points: np.ndarray, centre: np.ndarray, away: np.ndarray, up: np.ndarray, turn_deg: float, rise_deg: float
) -> Viewpoint:
    """Return the view of ``centre`` from direction ``away``, rotated about ``up`` and raised; the points fill it."""
    height = away @ up
    flat = away - height * up
    distance, along = np.linalg.norm(away), np.linalg.norm(flat)
    turn = np.radians(turn_deg)
    if along < 1e-6 * distance:
        flat = np.cross(up, [0.3, 0.5, 0.8])
    flat = flat / np.linalg.norm(flat)
    turned = np.cos(turn) * flat + np.sin(turn) * np.cross(up, flat)
    elevation = np.clip(np.arctan2(height, along) + np.radians(rise_deg), -1.4, 1.4)
    some = points[:: max(len(points) // 20_000, 1)]
    radius = np.percentile(np.linalg.norm(some - centre, axis=1), 98)
    distance = max(1.15 * distance, 2.5 * radius)  # far enough that the front does not hide the rest
    eye = centre + distance * (np.cos(elevation) * turned + np.sin(elevation) * up)
    pose = look_at(eye, centre, up)
    positions, depth = Viewpoint(pose).project(some)
    rays = positions[depth > 0] - 0.5
    low, high = np.percentile(rays, (0.3, 99.7), axis=0)
    middle = (low + high) / 2
    return Viewpoint(pose, _FILL / max(float((high - low).max()), 1e-9), (float(middle[0]), float(middle[1])))


def draw_points(
    points: np.ndarray, colours: np.ndarray, view: Viewpoint, size_px: int, background: int | tuple[int, int, int] = 255
) -> np.ndarray:
    """Return a picture (size_px², 3, uint8) of points (N, 3) with colours (N, 3) uint8; near ones cover far ones.

    A point is a square one to five pixels wide, the wider the fewer points there are.
    """
    positions, depth = view.project(points)
    with np.errstate(invalid="ignore"):
        near = (depth > 0) & (np.abs(positions - 0.5) < 0.6).all(axis=1)
    pixels = np.floor(positions[near] * size_px).astype(np.int64)
    order = np.argsort(-depth[near], kind="stable")  # far ones first: of several in one pixel the last is kept
    pixels, shown = pixels[order], colours[near][order]
    width = int(np.clip(np.ceil(2 * size_px / np.sqrt(max(len(pixels), 1))), 1, 5))
    image = np.full((size_px, size_px, 3), background, dtype=np.uint8)
    # all squares at once, so that no far point's square covers a near one's
    offsets = np.stack(np.meshgrid(np.arange(width), np.arange(width), indexing="ij"), axis=-1).reshape(-1, 2)
    squares = (pixels[:, None, :] + offsets - width // 2).reshape(-1, 2)
    inside = ((squares >= 0) & (squares < size_px)).all(axis=1)
    image[squares[inside, 1], squares[inside, 0]] = np.repeat(shown, len(offsets), axis=0)[inside]
    return image
