"""What a body wears: clothes of bank materials, a little wider than the skin and folded, and its painted texture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.pictures import read_picture
from megasynth_attr.textures.records import Bank
from megasynth_attr.textures.surface import rgb
from megasynth_train.bodies.shape import Body

SKIN, SHIRT, TROUSERS, SHOES, HAIR, EYES, PUPILS = range(7)  # regions
_MATERIALS = {SHIRT: ("fabric",), TROUSERS: ("fabric", "leather"), SHOES: ("leather",)}
_SKINS = ("#f0d2bf", "#e0b193", "#c98f6b", "#a66e4a", "#7d4f33", "#57351f")
_HAIRS = ("#15100d", "#33241a", "#5a3d28", "#8a6642", "#9b9691")
_GAP_M = {SHIRT: 0.014, TROUSERS: 0.010, SHOES: 0.008, HAIR: 0.016}  # between skin and cloth
_FOLD = 0.4  # of the gap: folds are never deeper than that
_REPEATS = 6  # of a material across the texture
_PUPIL_M = 0.007


@dataclass(frozen=True)
class Outfit:
    """What was drawn for one body: the region of each face, how far vertices move outwards, a tile per region."""

    regions: np.ndarray  # F
    offset: np.ndarray  # V, metres
    tiles: Mapping[int, np.ndarray]  # region → n×n×3 uint8, periodic
    materials: Mapping[int, str]  # region → name in the bank


def check_bank(bank: Bank, shown: str) -> None:
    """Raise ConfigError if the bank called ``shown`` has no material of a class that some garment needs."""
    for categories in _MATERIALS.values():
        if not _named(bank, categories):
            raise ConfigError(f"bank={shown} has no material of the class {' or '.join(categories)} for the clothes")


def draw_outfit(rng: np.random.Generator, body: Body, bank: Bank, texture_px: int) -> Outfit:
    """Return clothes for ``body``, drawn from ``rng``; the bank's materials are made or read."""
    regions = _regions(body, long_sleeves=bool(rng.random() < 0.5))
    names = {region: str(rng.choice(_named(bank, wanted))) for region, wanted in _MATERIALS.items()}
    files = bank.materialise(names.values())
    side = max(texture_px // _REPEATS, 8)
    tiles = {region: _tile(files[name]["basecolor"], side) for region, name in names.items()}
    plain = {SKIN: str(rng.choice(_SKINS)), HAIR: str(rng.choice(_HAIRS)), EYES: "#e8e4df", PUPILS: "#1c1512"}
    tiles |= {region: _mottled(rng, colour, side) for region, colour in plain.items()}
    return Outfit(regions, _offset(rng, body, regions), tiles, names)


def dressed(body: Body, offset: np.ndarray) -> np.ndarray:
    """Return the vertices (V×3) moved outwards along their normals by ``offset`` (V, metres)."""
    corners = body.vertices[body.faces]
    normals = np.zeros_like(body.vertices)
    of_faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # long where the face is large
    np.add.at(normals, body.faces, of_faces[:, None])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return np.asarray(body.vertices + offset[:, None] * normals)


def paint(body: Body, outfit: Outfit, size_px: int) -> np.ndarray:
    """Return the texture, size×size×3 uint8 sRGB: each region's tile repeated, beyond the faces too."""
    picture = Image.new("L", (size_px, size_px), 255)
    draw = ImageDraw.Draw(picture)
    pixels = (body.uv * [1, -1] + [0, 1]) * size_px
    for corners, region in zip(pixels[body.face_uv].reshape(-1, 6).tolist(), outfit.regions.tolist(), strict=True):
        draw.polygon(corners, fill=region, outline=region)
    region_of = np.asarray(picture)
    nearest = distance_transform_edt(region_of == 255, return_distances=False, return_indices=True)
    region_of = region_of[tuple(nearest)]
    texture = np.zeros((size_px, size_px, 3), np.uint8)
    for region, tile in outfit.tiles.items():
        repeats = -(-size_px // len(tile))
        everywhere = np.tile(tile, (repeats, repeats, 1))[:size_px, :size_px]
        texture[region_of == region] = everywhere[region_of == region]
    return texture


def _regions(body: Body, long_sleeves: bool) -> np.ndarray:
    """Return the region of each face, told by its bone and, on the head, by its place."""
    found = np.full(len(body.faces), SKIN)
    sleeves = ("upperarm", "lowerarm") if long_sleeves else ("upperarm",)
    found[body.face_of(("spine", "clavicle", "shoulder", "breast", *sleeves))] = SHIRT
    found[body.face_of(("root", "pelvis", "upperleg", "lowerleg", "spine05"))] = TROUSERS
    found[body.face_of(("foot", "toe"))] = SHOES
    centres = body.rest[body.faces].mean(axis=1).reshape(-1, 2, 3).mean(axis=1).repeat(2, axis=0)  # of quads: even hems
    behind, above = centres[:, 1] - body.eye[1], centres[:, 2] - body.eye[2]
    found[body.face_of(("head",)) & (above > 0.065 - 0.6 * behind) & (above > -0.06)] = HAIR
    eyes = body.face_of(("eye",))
    found[eyes] = EYES
    for side in (eyes & (centres[:, 0] > 0), eyes & (centres[:, 0] < 0)):
        if side.any():
            front = centres[side][centres[side][:, 1].argmin()]
            found[side & (np.linalg.norm(centres - front, axis=1) < _PUPIL_M)] = PUPILS
    return found


def _offset(rng: np.random.Generator, body: Body, regions: np.ndarray) -> np.ndarray:
    """Return how far each vertex moves outwards: the largest gap of its faces, changed by smooth folds of cloth."""
    gap = np.zeros(len(body.rest))
    for region, width in _GAP_M.items():
        np.maximum.at(gap, body.faces[regions == region].ravel(), width)
    waves = rng.normal(size=(5, 3)) * 30.0  # radians per metre: folds of 10 to 40 cm
    phases = rng.uniform(0, 2 * np.pi, 5)
    folds = np.sin(body.rest @ waves.T + phases).mean(axis=1)
    return np.asarray(gap * (1 + _FOLD * folds))


def _named(bank: Bank, categories: tuple[str, ...]) -> list[str]:
    return [record.name for record in bank.records if record.category in categories]


def _tile(file: Path, side: int) -> np.ndarray:
    image = read_picture(file, "build the bank again").image.convert("RGB")
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def _mottled(rng: np.random.Generator, colour: str, side: int) -> np.ndarray:
    """Return a periodic tile (side×side×3 uint8) of one colour with slightly darker and lighter spots."""
    noise = gaussian_filter(rng.normal(size=(side, side)), side / 24, mode="wrap")
    bright = 1 + 0.08 * noise / max(float(np.abs(noise).max()), 1e-12)
    return np.asarray(np.clip(rgb(colour) * bright[..., None] * 255, 0, 255).astype(np.uint8))
