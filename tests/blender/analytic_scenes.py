"""Small scenes whose pictures are known without rendering, and the float64 ray oracles that know them. No Blender."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from megasynth_attr.scene.frame import camera_from_world, intrinsics
from megasynth_attr.scene.primitives import KINDS
from megasynth_attr.scene.spec import (
    Assets,
    Box,
    Camera,
    Geometry,
    Lighting,
    PictureRef,
    Primitive,
    Scene,
    SlotMaterial,
    Sun,
    Texture,
    Window,
)  # fmt: skip

NO_LIGHT = Lighting((0.0, 0.0, 0.0), 0.0, (), (), (), None)
AMBIENT = Lighting((1.0, 1.0, 1.0), 1.0, (), (), (), None)
LANDSCAPE, PORTRAIT = (140, 98), (98, 140)


def floats(values) -> tuple[float, ...]:
    """Return a tuple of Python floats: 0 and 0.0 are different texts in a scene file, and so different hashes."""
    return tuple(float(v) for v in values)


def solid(kind: str, box: int = 0, surface: str = "material", slot: int = 0) -> Primitive:
    """Return an undisplaced, unrotated primitive that fills its box."""
    flat: tuple[tuple[float, ...], ...] = ((),) * KINDS[kind].faces
    return Primitive(kind, box, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0), flat, False, surface, slot)


def geometry(boxes: list[tuple], primitives: list[Primitive], *, tessellation: int = 8, window: Window | None = None):
    """Return a Geometry whose layout units are scene units; ``boxes`` are (centre, size)."""
    return Geometry(
        layout="objects", extent=(2.0, 2.0, 2.0), boxes=tuple(Box("large", floats(c), floats(s)) for c, s in boxes),
        primitives=tuple(primitives), window=window, tessellation=tessellation, scale=1.0, centre=(0.0, 0.0, 0.0),
        dropped_boxes=0, attempts=1,
    )  # fmt: skip


def look_at(position: tuple, target: tuple, up: tuple = (0, 0, 1), roll_deg: float = 0.0) -> tuple[tuple, tuple]:
    """Return (position, world_from_camera xyzw) of an OpenCV camera whose picture has ``up`` upwards."""
    forward = np.asarray(target, float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward], axis=-1)
    turned = Rotation.from_matrix(axes) * Rotation.from_euler("z", roll_deg, degrees=True)
    return floats(position), floats(turned.as_quat())


def camera(*poses: tuple[tuple, tuple], fov_x_deg: float = 50.0) -> Camera:
    return Camera("test", float(fov_x_deg), tuple(p for p, _ in poses), tuple(q for _, q in poses))


def texture(*slots: SlotMaterial, picture: PictureRef | None = None, bump_distance: float = 0.0) -> Texture:
    return Texture(slots or (SlotMaterial("grey", None, None),), {}, None, bump_distance, picture)


def scene(
    shape: Geometry, view: Camera, look: Texture | None = None, light: Lighting = AMBIENT, seed: int = 7
) -> Scene:
    factors = {"geometry": shape, "texture": look or texture(), "camera": view, "lighting": light}
    return Scene("test", 0, 0, 0, seed, factors)


def sun(to_light: tuple, irradiance: float = 1.0, frame: str = "world", angle_deg: float = 0.5) -> Sun:
    direction = np.asarray(to_light, float) / np.linalg.norm(to_light)
    return Sun(floats(direction), irradiance, (1.0, 1.0, 1.0), angle_deg, frame)


def flat_map(folder: Path, name: str, value: float | tuple) -> str:
    """Return the path of a 4×4 PNG of one value in 0 … 255."""
    shape = (4, 4) if np.isscalar(value) else (4, 4, 3)
    path = folder / f"{name}.png"
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)
    return str(path)


def write_assets(folder: Path) -> Assets:
    """Return materials of one value per map: grey (rough), mirror, normal maps leaning right and up, a relief."""
    grey, level, black, white = (
        flat_map(folder, "grey", (128, 128, 128)), flat_map(folder, "level", (128, 128, 255)),
        flat_map(folder, "black", 0), flat_map(folder, "white", 255),
    )  # fmt: skip
    lean = np.round((np.array([0.5, 0.0, 0.75**0.5]) + 1) * 127.5)  # 30° towards +u
    right = flat_map(folder, "right", tuple(lean))
    up = flat_map(folder, "up", tuple(lean[[1, 0, 2]]))
    ramp = folder / "ramp.png"  # rises to the right
    Image.fromarray(np.tile(np.linspace(0, 255, 256).astype(np.uint8), (16, 1))).save(ramp)
    copper = flat_map(folder, "copper", (200, 120, 60))
    red = flat_map(folder, "red", (200, 20, 20))
    rough = {"basecolor": grey, "normal": level, "roughness": white, "metallic": black, "height": black}
    materials = {
        "grey": rough,
        "red": rough | {"basecolor": red},
        "leans right": rough | {"normal": right},
        "leans up": rough | {"normal": up},
        "ramp": rough | {"height": str(ramp)},
        "mirror": rough | {"basecolor": copper, "roughness": black, "metallic": white},
        "rough metal": rough | {"basecolor": copper, "metallic": white},
    }
    return Assets(materials, {}, {})


def picture_ref(path: Path) -> PictureRef:
    return PictureRef(path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def pixel_rays(view: Camera, frame: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (origin 3, directions H×W×3 with unit planar depth) in the world, float64."""
    inverse = np.linalg.inv(intrinsics(view.fov_x_deg, width, height))
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    in_camera = np.stack([u, v, np.ones_like(u)], axis=-1) @ inverse.T
    return np.asarray(view.positions[frame]), in_camera @ camera_from_world(view)[frame, :3, :3]


def hit_box(origin: np.ndarray, rays: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (planar depth H×W with 0 for a miss, outward normal H×W×3) of a box; the slab method."""
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.minimum((low - origin) / rays, (high - origin) / rays)
        far = np.maximum((low - origin) / rays, (high - origin) / rays)
    axis = near.argmax(axis=-1)
    depth = near.max(axis=-1)
    is_hit = (depth < far.min(axis=-1)) & (depth > 0)
    normal = -np.sign(np.take_along_axis(rays, axis[..., None], -1)) * np.eye(3)[axis]
    return np.where(is_hit, depth, 0), np.where(is_hit[..., None], normal, 0)


def hit_sphere(
    origin: np.ndarray, rays: np.ndarray, centre: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (planar depth, outward normal) of a sphere, 0 for a miss."""
    offset = origin - centre
    a, b, c = (rays * rays).sum(-1), rays @ offset, offset @ offset - radius**2
    root = b * b - a * c
    depth = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, 0)
    normal = np.where((root > 0)[..., None], (origin + depth[..., None] * rays - centre) / radius, 0)
    return depth, normal


def away_from_edges(depth: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return where a pixel and its eight neighbours see the same smooth surface."""
    hit, same = depth > 0, np.ones(depth.shape, bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            same &= np.roll(hit, (dy, dx), (0, 1)) & ((np.roll(normal, (dy, dx), (0, 1)) * normal).sum(-1) > 0.8)
    same[[0, -1]] = same[:, [0, -1]] = False
    return same & hit


def linear_from_srgb(display: np.ndarray) -> np.ndarray:
    """Return linear values of display values in [0, 1] (IEC 61966-2-1, the other way round)."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
