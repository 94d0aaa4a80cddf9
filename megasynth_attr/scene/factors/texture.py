"""The texture factor: which materials the slots show, how they are tiled, and reflectance overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import scope, setting, span, variants
from megasynth_attr.core.ranges import Range
from megasynth_attr.core.streams import Scope
from megasynth_attr.scene.factor import Draw, Factor, Records
from megasynth_attr.scene.spec import PictureRef, SlotMaterial, Texture


@dataclass(frozen=True)
class TextureSettings:
    """Materials of all slots."""

    scope: str = scope()
    variants: int = variants()
    bank: str = setting(
        "procedural", "'procedural' (ships with the package) or the path of a bank folder", path="folder"
    )
    bank_size_px: int = setting(512, "size at which procedural materials are made", minimum=16, maximum=4096)
    categories: tuple[str, ...] = setting((), "use only these categories; empty: all")
    pool_size: int = setting(0, "number of materials drawn per dataset to choose from; 0: the whole bank", minimum=0)
    slot_count: int = setting(
        128, "length of the slot table; primitive i shows slot i modulo this", minimum=1, maximum=4096
    )
    tiles_per_unit: Range[float] = span(
        0.0, 0.0, "texture repeats per scene unit, once per draw; 0: one tile per face", minimum=0, maximum=100
    )
    bump_distance: float = setting(0.0, "relief of the height maps in scene units; 0: off", minimum=0, maximum=0.2)
    override_scene_p: float = setting(0.5, "probability that reflectance is overridden at all", minimum=0, maximum=1)
    override_slot_p: float = setting(0.4, "if so, the share of slots it applies to", minimum=0, maximum=1)
    override_specular_p: float = setting(0.2, "probability that an override is specular", minimum=0, maximum=1)
    specular_metallic: Range[float] = span(0.6, 1.0, "metallic of a specular override", minimum=0, maximum=1)
    specular_roughness: Range[float] = span(0.0, 0.05, "roughness of a specular override", minimum=0, maximum=1)
    glossy_metallic: Range[float] = span(0.0, 1.0, "metallic of any other override", minimum=0, maximum=1)
    glossy_roughness: Range[float] = span(0.0, 0.2, "roughness of any other override", minimum=0, maximum=1)
    pictures: str = setting(
        "", "folder of pictures for geometry.layout=plane; empty: the shipped test pictures", path="folder"
    )
    scan_materials: str = setting(
        "own",
        "scan: own: what the mesh file brings; bank: the material of the first slot",
        options=["own", "bank"],
        added=True,
    )

    def validate(self, name: str, factors: Mapping[str, Any]) -> None:
        """Raise ConfigError if textures vary that no scene shows."""
        is_scan = factors["geometry"].layout == "scan"
        if is_scan and self.scan_materials == "own" and (self.scope == Scope.SCENE or self.variants > 1):
            raise ConfigError(
                f"{name}.scope={self.scope}, {name}.variants={self.variants}: meshes that show their own materials "
                f"have no texture to vary; set {name}.scan_materials=bank, or {name}.scope=dataset {name}.variants=1"
            )


def material_pool(settings: TextureSettings, draw: Draw) -> list[Any]:
    """Return the records a dataset chooses from; ConfigError if none is left."""
    records = [
        r for r in draw.records.materials.values() if not settings.categories or r.category in settings.categories
    ]
    if not records:
        known = sorted({r.category for r in draw.records.materials.values()})
        raise ConfigError(
            f"texture.categories=[{','.join(settings.categories)}]: the bank {settings.bank} has no such material; "
            f"it has {', '.join(known) or 'no material at all'}"
        )
    if settings.pool_size > len(records):
        raise ConfigError(f"texture.pool_size={settings.pool_size}: only {len(records)} materials are available")
    if settings.pool_size == 0:
        return records
    order = draw.dataset_rng.permutation(len(records))
    return [records[i] for i in sorted(order[: settings.pool_size].tolist())]


def sample(rng: np.random.Generator, settings: TextureSettings, draw: Draw) -> Texture:
    """Return a Texture; one row of draws per slot, so that no slot's material depends on the number of slots."""
    tiles = settings.tiles_per_unit.draw(rng)
    is_overridden, picture_draw = rng.random() < settings.override_scene_p, rng.random()
    rows = rng.random((settings.slot_count, 5))
    pool = material_pool(settings, draw)
    slots, used = [], {}
    for choice, applies, specular, metallic_draw, roughness_draw in rows:
        record = pool[int(choice * len(pool))]
        used[record.name] = record.identity
        metallic = roughness = None
        if is_overridden and applies < settings.override_slot_p:
            is_specular = specular < settings.override_specular_p
            of_metallic = settings.specular_metallic if is_specular else settings.glossy_metallic
            of_roughness = settings.specular_roughness if is_specular else settings.glossy_roughness
            metallic, roughness = rounded(of_metallic.at(metallic_draw)), rounded(of_roughness.at(roughness_draw))
        slots.append(SlotMaterial(record.name, metallic, roughness))
    return Texture(
        slots=tuple(slots),
        identities=dict(sorted(used.items())),
        tiles_per_unit=rounded(tiles) or None,
        bump_distance=rounded(settings.bump_distance),
        picture=_picture(picture_draw, draw),
    )


def _picture(unit_draw: float, draw: Draw) -> PictureRef | None:
    pictures = list(draw.records.pictures.values())
    if draw.configs["geometry"].layout != "plane":
        return None
    if not pictures:
        raise ConfigError("geometry.layout=plane shows a picture, but none is available; set texture.pictures=<folder>")
    record = pictures[int(unit_draw * len(pictures))]
    return PictureRef(record.name, record.sha256)


def describe(texture: Texture, records: Records) -> np.ndarray:
    """Return (slots + 1)×5: linear RGB, roughness and metallic of every slot as shown; last row: the picture's hash."""
    rows = []
    for slot in texture.slots:
        record = records.materials[slot.material]
        roughness = record.mean_roughness if slot.roughness is None else slot.roughness
        metallic = record.mean_metallic if slot.metallic is None else slot.metallic
        rows.append([*record.mean_linear_rgb, roughness, metallic])
    picture = [0.0] * 5
    if texture.picture is not None:  # pictures have no statistics; a hash gives two different ones a distance
        picture = [int(texture.picture.sha256[4 * i : 4 * i + 4], 16) / 0xFFFF for i in range(5)]
    return np.array([*rows, picture])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean absolute difference of the slots' statistics plus that of the picture (all in [0, 1])."""
    return float(np.abs(a[:-1] - b[:-1]).mean() + np.abs(a[-1] - b[-1]).mean())


FACTOR = Factor(
    name="texture",
    order=20,
    settings=TextureSettings,
    data=Texture,
    sample=sample,
    describe=describe,
    distance=distance,
    changes_depth=False,
    optional=False,
)
