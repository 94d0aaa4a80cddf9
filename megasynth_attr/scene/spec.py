"""The scene file: everything random resolved, one frozen value per factor, hashed per factor.

Frames and units: *layout units* are those of the boxes; *scene units* follow from them by
``x_scene = (x_layout - centre) * scale`` so that the scene's bounding box touches ±1 on its longest axis.
World: right-handed, z up. Cameras: OpenCV (x right, y down, z forward). Quaternions: scalar last (x, y, z, w).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from megasynth_attr.core.codec import canonical_json, content_hash, from_plain, younger
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import StoredFile, decode_json, read_regular
from megasynth_attr.scene.factor import registered

FORMAT = "megasynth-attr scene 1"
Vec3 = tuple[float, float, float]
Quat = tuple[float, float, float, float]


@dataclass(frozen=True)
class Box:
    """An axis-aligned box of the layout, layout units. ``kind`` is its class (large, small, roof, wall, ...)."""

    kind: str
    centre: Vec3
    size: Vec3


@dataclass(frozen=True)
class Primitive:
    """One closed mesh. Instance id = its index in ``Geometry.primitives`` + 1.

    ``half_axes``, ``rotation_xyzw`` and ``translation`` pose the shape before its box's primitives are centred and
    stretched together to fill the box. ``heights`` holds per face 25 control heights (row-major 5×5, layout units)
    or an empty tuple where the face is flat. A "scan" is the mesh of ``Geometry.scan``; its rotation takes the axes of
    that file to those of the layout.
    """

    kind: str  # a key of scene.primitives.KINDS, or "scan"
    box: int  # index into Geometry.boxes
    half_axes: Vec3
    rotation_xyzw: Quat
    translation: Vec3
    heights: tuple[tuple[float, ...], ...]
    wireframe: bool
    surface: str  # "material" | "glass" | "picture" | "own": the materials of a scan's file
    slot: int  # index into Texture.slots (modulo its length)


@dataclass(frozen=True)
class Window:
    """A hole in a wall, layout units; ``outward`` is the wall's unit normal pointing out of the room."""

    centre: Vec3
    size: Vec3
    outward: Vec3


@dataclass(frozen=True)
class ScanRef:
    """A mesh file, found by its path below the folder of scans, checked by hash."""

    name: str
    sha256: str  # of the file, and of its materials and textures if these are shown
    split: str  # "train" or "test" where the folder is divided, else ""


@dataclass(frozen=True)
class Geometry:
    """Layout, primitives and height fields."""

    layout: str
    extent: Vec3  # layout units; the layout fills [0, extent_x] × [0, extent_y] × [0, extent_z]
    boxes: tuple[Box, ...]
    primitives: tuple[Primitive, ...]
    window: Window | None
    tessellation: int  # grid cells along one side of a cuboid's face; a full turn has 4 times as many
    scale: float  # scene units per layout unit
    centre: Vec3  # layout units; the point that becomes the world origin
    dropped_boxes: int  # boxes given up after the stated number of trials
    attempts: int  # layouts drawn until one left room for the cameras
    strut_width: float = 0.1  # layout units; section of the struts of wireframe primitives
    scan: ScanRef | None = younger(None)


@dataclass(frozen=True)
class SlotMaterial:
    """What one slot shows; ``metallic`` and ``roughness`` replace the maps where they are not None."""

    material: str
    metallic: float | None
    roughness: float | None


@dataclass(frozen=True)
class PictureRef:
    """A picture shown on primitives whose surface is "picture"; found by name, checked by hash."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Texture:
    """A fixed-length table of slots, so that texture does not change when the number of primitives does."""

    slots: tuple[SlotMaterial, ...]
    identities: dict[str, str]  # material name → content hash (from the bank)
    tiles_per_unit: float | None  # texture repeats per scene unit; None: one tile per face
    bump_distance: float  # scene units of relief for height 0 → 1 in the height map; 0: off
    picture: PictureRef | None


@dataclass(frozen=True)
class Camera:
    """Intrinsics and trajectory; position and orientation of the camera in the world, scene units."""

    family: str
    fov_x_deg: float
    positions: tuple[Vec3, ...]
    world_from_camera_xyzw: tuple[Quat, ...]


@dataclass(frozen=True)
class Sun:
    """A distant light. ``frame`` "window": the direction is given in the window's frame (x outward, z up), so that it
    does not change when the window does; without a window such a sun is dark."""

    to_light: Vec3  # unit vector from the scene towards the light
    irradiance_w_m2: float
    rgb: Vec3
    angle_deg: float
    frame: str  # "world" | "window"


@dataclass(frozen=True)
class AreaLight:
    """A square one-sided emitter, scene units; invisible to the camera."""

    position: Vec3
    direction: Vec3  # unit vector along which it shines
    edge: float
    power_w: float
    rgb: Vec3


@dataclass(frozen=True)
class Bulb:
    """A small spherical emitter, scene units; invisible to the camera."""

    position: Vec3
    radius: float
    power_w: float
    rgb: Vec3


@dataclass(frozen=True)
class Hdri:
    """An equirectangular environment, rotated about z; found by name, checked by hash."""

    name: str
    sha256: str
    rotation_deg: float
    strength: float


@dataclass(frozen=True)
class Lighting:
    """All lights. No light is visible to the camera, so lighting cannot change depth."""

    ambient_rgb: Vec3
    ambient_strength: float
    suns: tuple[Sun, ...]
    areas: tuple[AreaLight, ...]
    bulbs: tuple[Bulb, ...]
    hdri: Hdri | None


@dataclass(frozen=True)
class Scene:
    """One scene: where it belongs, and one frozen value per factor."""

    attribute: str
    dataset_index: int
    scene_index: int
    root_seed: int
    noise_seed: int  # Cycles' seed of frame i is noise_seed + i
    factors: dict[str, Any]  # factor name → its frozen data; a factor that is off is absent

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of every factor's data, and of the noise seed under "noise"."""
        return {name: content_hash(data) for name, data in self.factors.items()} | {
            "noise": content_hash(self.noise_seed)
        }

    @property
    def name(self) -> str:
        return f"{self.attribute}_{self.dataset_index:02d}/{self.scene_index:06d}"


def diff(scene_a: Scene, scene_b: Scene) -> set[str]:
    """Return the names of the factors (and "noise") in which two scenes differ; empty if they are equal."""
    a, b = scene_a.hashes(), scene_b.hashes()
    return {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}


def scene_to_json(scene: Scene) -> str:
    """Return the scene file's text: canonical JSON with format, hashes and factors, one line and a newline."""
    return canonical_json(vars(scene) | {"format": FORMAT, "hashes": scene.hashes()}) + "\n"


def scene_from_json(text: str, where: str = "scene.json", *, keep_unknown: bool = False) -> Scene:
    """Return the Scene stored in ``text``; raises DatasetError if it is damaged, foreign or its hashes do not match.

    A factor that no module or loaded plugin defines is an error too, unless ``keep_unknown`` keeps it as plain data,
    which is enough for everything but rendering.
    """
    record = decode_json(text, where)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        raise DatasetError(f"{where}: expected format {FORMAT!r}, found {found!r}")
    scene = from_plain(Scene, {key: value for key, value in record.items() if key not in ("format", "hashes")}, where)
    kinds = {name: factor.data for name, factor in registered().items()}
    if (unknown := sorted(set(scene.factors) - set(kinds))) and not keep_unknown:
        raise DatasetError(f"{where}: unknown factor {unknown[0]!r}; load the plugin that defines it (plugins=[...])")
    factors = {n: from_plain(kinds.get(n, Any), d, f"{where}: factors.{n}") for n, d in scene.factors.items()}
    scene = replace(scene, factors=factors)
    if scene.hashes() != record.get("hashes"):
        raise DatasetError(f"{where}: the hashes do not match the content; the file was changed after it was written")
    return scene


def read_scene(path: StoredFile, *, keep_unknown: bool = False) -> Scene:
    """Return the Scene of a scene.json file (see ``scene_from_json``); DatasetError if it is missing or unreadable."""
    try:
        text = read_regular(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None
    return scene_from_json(text, str(path), keep_unknown=keep_unknown)


@dataclass(frozen=True)
class Assets:
    """The files a scene refers to by name: ``materials[name][map]``, ``pictures[name]``, ``hdris[name]`` and
    ``scans[name]`` are paths.

    They are kept apart from the scene, so that a scene file never contains a path.
    """

    materials: dict[str, dict[str, str]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    hdris: dict[str, str] = field(default_factory=dict)
    scans: dict[str, str] = field(default_factory=dict)
