"""A NumPy ray caster for a plane, spheres and a box: exact depth at pixel centres, independent of the package.

It stands in for Blender where a test needs many small frames whose every value is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class World:
    """A ground square at z = ``floor``, spheres (centre, radius) and one axis-aligned box (low, high corner)."""

    floor: float = -0.6
    half_floor: float = 1.4
    spheres: tuple[tuple[tuple[float, float, float], float], ...] = (
        ((0.15, -0.1, -0.25), 0.35),
        ((-0.45, 0.4, -0.4), 0.22),
    )
    box: tuple[tuple[float, float, float], tuple[float, float, float]] = ((0.3, 0.35, -0.6), (0.8, 0.75, -0.1))


@dataclass(frozen=True)
class Hits:
    """Nearest hit per ray: ``distance`` (inf = none), unit ``normal`` and object ``ids`` (0 = none)."""

    distance: np.ndarray
    normal: np.ndarray
    ids: np.ndarray


def cast(world: World, origin: np.ndarray, directions: np.ndarray) -> Hits:
    """Return the nearest hits of N rays ``origin + t * directions`` (t is the returned distance)."""
    count = len(directions)
    hits = Hits(np.full(count, np.inf), np.zeros((count, 3)), np.zeros(count, np.uint16))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (world.floor - origin[2]) / directions[:, 2]
        at = origin + t[:, None] * directions
        _keep(hits, t, np.broadcast_to([0.0, 0, 1], (count, 3)), 1, (np.abs(at[:, :2]) <= world.half_floor).all(1))
        for number, (centre, radius) in enumerate(world.spheres):
            offset = origin - np.asarray(centre)
            a, b, c = (directions**2).sum(1), directions @ offset, offset @ offset - radius**2
            t = (-b - np.sqrt(b * b - a * c)) / a
            _keep(hits, t, (origin + t[:, None] * directions - np.asarray(centre)) / radius, 2 + number, b * b >= a * c)
        low, high = ((np.asarray(corner) - origin) / directions for corner in world.box)
        enter, leave = np.minimum(low, high), np.maximum(low, high)
        t, axis = enter.max(1), enter.argmax(1)
        normal = np.zeros((count, 3))
        normal[np.arange(count), axis] = -np.sign(directions[np.arange(count), axis])
        _keep(hits, t, normal, 2 + len(world.spheres), t <= leave.min(1))
    return hits


def _keep(hits: Hits, t: np.ndarray, normal: np.ndarray, number: int, where: np.ndarray) -> None:
    nearer = where & (t > 1e-9) & (t < hits.distance)
    hits.distance[nearer], hits.normal[nearer], hits.ids[nearer] = t[nearer], normal[nearer], number


def render(
    world: World,
    focal_px: float,
    width: int,
    height: int,
    world_from_camera: np.ndarray,
    albedo_seed: int = 0,
    light: tuple[float, float, float] = (0.3, -0.4, 0.85),
) -> dict[str, np.ndarray]:
    """Return rgba, depth_z, normal, instance and position of one OpenCV pinhole view (H×W arrays)."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    camera_rays = np.stack(
        [(columns + 0.5 - width / 2) / focal_px, (rows + 0.5 - height / 2) / focal_px, np.ones(columns.shape)], -1
    ).reshape(-1, 3)
    origin = world_from_camera[:3, 3]
    rays = camera_rays @ world_from_camera[:3, :3].T
    hits = cast(world, origin, rays)
    hit = np.isfinite(hits.distance)
    depth = np.where(hit, hits.distance, 0)  # the rays have z = 1 in camera space, so t is planar depth
    position = np.where(hit[:, None], origin + depth[:, None] * rays, 0)
    normal = np.where((np.einsum("nc,nc->n", hits.normal, rays) > 0)[:, None], -hits.normal, hits.normal)
    shade = 0.25 + 0.7 * np.clip(normal @ (np.asarray(light) / np.linalg.norm(light)), 0, 1)
    colours = np.random.default_rng(albedo_seed).uniform(0.3, 1, (16, 3))
    pattern = 0.85 + 0.15 * np.sin(position @ np.array([40.0, 31, 23]))
    rgb = np.clip(colours[hits.ids % 16] * (shade * pattern)[:, None] * 255, 0, 255) * hit[:, None]
    shape = (height, width)
    return {
        "rgba": np.concatenate([rgb, hit[:, None] * 255.0], 1).round().astype(np.uint8).reshape(*shape, 4),
        "depth_z": depth.astype(np.float32).reshape(shape),
        "normal": (normal * hit[:, None]).astype(np.float32).reshape(*shape, 3),
        "instance": hits.ids.reshape(shape),
        "position": position.astype(np.float32).reshape(*shape, 3),
    }


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the 4×4 world-from-camera pose (OpenCV axes) at ``position`` looking at ``target``, z up."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


def orbit(count: int, distance: float = 2.6, elevation: float = 0.5, wobble: float = 0.25) -> list[np.ndarray]:
    """Return ``count`` world-from-camera poses around the origin, at varying height."""
    poses = []
    for azimuth in np.arange(count) * 2 * np.pi / count:
        height = elevation + wobble * np.sin(3 * azimuth)
        direction = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        poses.append(look_at(distance * direction, np.array([0.0, 0, -0.3])))
    return poses
