"""Six synthetic portraits for tests and demos of the plane layout, drawn with NumPy; nobody is depicted.

    python -m megasynth_attr.textures.procedural.portraits out=assets/pictures

The faces are shaded ellipsoids with hair, eyes, nose and mouth. They are asymmetric on purpose (a hair parting on one
side, a badge with a letter), so that a mirrored or turned picture is seen at once. CC0-1.0.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from megasynth_attr.core.codec import from_plain
from megasynth_attr.core.command.layers import read_yaml
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import REQUIRED, setting
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.textures.procedural.noise import Array, Tile, fbm
from megasynth_attr.textures.surface import linear_from_srgb, mix, rgb, smooth, srgb_from_linear, to_bytes

HELP = Help(
    usage="python -m megasynth_attr.textures.procedural.portraits out=FOLDER [quality=90]",
    explanation="Paints the portraits that the spoof scenes show, as JPEG files.",
    examples=("python -m megasynth_attr.textures.procedural.portraits out=assets/pictures",),
)
WIDTH_PX, HEIGHT_PX = 360, 480
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Portrait:
    """What differs between the faces; lengths are in units of the picture's width."""

    name: str
    letter: str  # on the badge
    skin: str
    hair: str
    eyes: str
    lips: str
    clothes: str
    background: tuple[str, str]  # top and bottom
    badge: str
    face: tuple[float, float]  # half width and half height
    hair_length: float  # how far below the eyes the hair hangs
    hair_volume: float
    curl: float
    parting: float  # x of the parting
    brow: float
    beard: float
    glasses: bool
    smile: float


def read_portraits(path: Path) -> list[Portrait]:
    """Return the portraits that a YAML file describes by name; ConfigError or DatasetError where it does not."""
    return [from_plain(Portrait, {"name": name, **look}, f"{path}: {name}") for name, look in read_yaml(path).items()]


def _disc(x: Array, y: Array, cx: float, cy: float, rx: float, ry: float) -> Array:
    """Return the signed radius of an ellipse: below 1 inside."""
    return np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)


def draw_portrait(who: Portrait) -> Image.Image:
    """Return the portrait, an RGB image of 360 × 480 px in sRGB."""
    width, height = WIDTH_PX * _SUPERSAMPLING, HEIGHT_PX * _SUPERSAMPLING
    x = np.broadcast_to(((np.arange(width) + 0.5) / width - 0.5)[None, :], (height, width)).astype(np.float32)
    y = np.broadcast_to(((np.arange(height) + 0.5) / width - 0.6)[:, None], (height, width)).astype(np.float32)
    tile = Tile(f"portrait/{who.name}", 512)

    def noise(label: str, period: int | tuple[int, int], octaves: int) -> Array:
        grid = fbm(tile, label, period, octaves)
        rows, columns = (np.arange(height) * 512 // height), (np.arange(width) * 512 // width)
        return grid[rows[:, None], columns[None, :]]

    def paint(color: Array, hue: Array, mask: Array) -> Array:
        return mix(color, hue, np.clip(mask, 0, 1))

    linear = {key: linear_from_srgb(rgb(getattr(who, key))).astype(np.float32) for key in
              ("skin", "hair", "eyes", "lips", "clothes")}  # fmt: skip
    fw, fh = who.face
    top, bottom = (linear_from_srgb(rgb(hue)).astype(np.float32) for hue in who.background)
    glow = np.exp(-((x + 0.2) ** 2 + (y + 0.25) ** 2) * 3)
    image = (
        mix(top, bottom, np.clip(y / 1.33 + 0.45, 0, 1)) * (0.72 + 0.4 * glow + noise("wall", 3, 4) * 0.025)[..., None]
    )

    # Shoulders and neck; the key light comes from the upper left.
    shoulder = smooth(0.0, 0.012, y - 0.43 + 0.14 * np.cos(np.clip(x * 3.1, -1.57, 1.57)) * (1 - np.abs(x)))
    cloth = linear["clothes"] * (0.75 - x * 0.7 + noise("cloth", 40, 2) * 0.04 + np.cos(x * 9) * 0.08)[..., None]
    image = paint(image, cloth, shoulder)
    neck = (
        smooth(0.105, 0.095, np.abs(x) + np.maximum(y - 0.36, 0) * 0.6) * smooth(0.1, 0.14, y) * smooth(0.42, 0.40, y)
    )
    image = paint(image, linear["skin"] * (0.5 - x * 1.2 + smooth(0.3, 0.38, y) * 0.25)[..., None], neck)

    # Hair behind the head.
    wave = noise("curl", 26, 2) * np.float32(who.curl) + np.sin(y * 26 + 1) * np.float32(0.006)
    strands = noise("strands", (90, 5), 2)
    shine = np.exp(-(((y + 0.24 - 0.5 * np.abs(x + 0.04)) / 0.04) ** 2)) * 0.9
    hair_light = 0.7 + strands * 0.16 - x * 0.8 + shine * (0.7 + 0.3 * strands)
    hair_hue = linear["hair"] * np.clip(hair_light, 0.15, 3)[..., None] + shine[..., None] * np.float32(0.012)
    volume = who.hair_volume
    cap = _disc(x + wave, y + wave, 0.0, -0.05, fw + volume, fh + volume)
    curtain = smooth(0.0, -0.015, np.abs(x + wave) - (fw + volume) * 0.98) * smooth(
        who.hair_length, who.hair_length - 0.03, y
    )
    behind = np.maximum(smooth(1.0, 0.975, cap) * (y < max(who.hair_length, 0.0)), curtain * (y > -0.05))
    image = paint(image, hair_hue * 0.75, behind)

    # Ears, then the face as an ellipsoid with Lambert shading.
    for side in (-1.0, 1.0):
        image = paint(image, linear["skin"] * np.float32(0.62 - 0.2 * side),
                      smooth(1.05, 0.95, _disc(x, y, side * fw * 0.99, 0.015, 0.03, 0.055)))  # fmt: skip
    jaw = 1 + np.maximum(y - 0.02, 0) * 0.65  # narrower towards the chin
    radius = _disc(x * jaw, y, 0.0, 0.0, fw, fh)
    nz = np.sqrt(np.clip(1 - radius**2 * 0.92, 0, 1))
    nx, ny = x * jaw / fw * 0.9, y / fh * 0.9
    nose_ridge = np.exp(-((x / 0.028) ** 2)) * smooth(-0.09, 0.06, y) * smooth(0.085, 0.06, y)
    socket = sum(np.exp(-(((x - s * 0.085) / 0.06) ** 2 + ((y + 0.045) / 0.035) ** 2)) for s in (-1, 1))
    light = np.clip(-0.5 * nx - 0.45 * ny + 0.74 * nz, 0, 1) * 0.95 + 0.16
    light = light + nose_ridge * (-x * 9 + 0.06) - socket * 0.14
    light = light - np.exp(-(((x - 0.012) / 0.035) ** 2 + ((y - 0.088) / 0.012) ** 2)) * 0.22  # under the nose
    light = light - np.exp(-((x / 0.07) ** 2 + ((y - 0.175) / 0.012) ** 2)) * 0.12  # under the lips
    flush = sum(np.exp(-(((x - s * 0.115) / 0.05) ** 2 + ((y - 0.07) / 0.04) ** 2)) for s in (-1, 1))
    skin = linear["skin"] * (light + noise("pores", 90, 2) * 0.012)[..., None]
    skin = skin * (1 + flush[..., None] * np.array([0.1, -0.08, -0.08], np.float32))
    if who.beard:
        zone = smooth(0.06, 0.14, y + np.abs(x) * 0.35) * smooth(
            0.02, 0.05, np.abs(y - 0.135) + np.abs(x) * 0.2 - 0.004
        )
        stubble = np.clip(zone * who.beard * (0.9 + noise("beard", 110, 2) * 0.25), 0, 1)
        skin = paint(skin, linear["hair"] * (0.6 + light * 0.5)[..., None], stubble)
    mask = smooth(1.0, 0.985, radius)
    image = paint(image, skin, mask)

    # Eyes, brows, nostrils, mouth.
    for side in (-1.0, 1.0):
        cx = side * 0.085
        lid = _disc(x, y + np.abs(x - cx) ** 2 * 3, cx, -0.035, 0.043, 0.021)
        eye = smooth(1.04, 0.94, lid)
        image = paint(
            image, np.array([0.72, 0.7, 0.68], np.float32) * (0.75 + 0.25 * smooth(-0.05, -0.03, y))[..., None], eye
        )
        iris = _disc(x, y, cx + 0.004, -0.036, 0.019, 0.019)
        image = paint(
            image, linear["eyes"] * (0.55 + 0.7 * smooth(0.3, 0.9, iris))[..., None], eye * smooth(1.05, 0.92, iris)
        )
        image = paint(image, np.full(3, 0.008, np.float32), eye * smooth(0.48, 0.42, iris))
        glint = smooth(0.0052, 0.0035, np.hypot(x - cx + 0.004, y + 0.043))
        image = paint(image, np.full(3, 0.95, np.float32), glint)
        lash = smooth(0.14, 0.05, np.abs(lid - 1.0)) * smooth(-0.028, -0.04, y)
        image = paint(image, linear["hair"] * 0.25, lash * 0.85)
        arc = y + 0.088 + (x - cx) ** 2 * 5 + side * (x - cx) * 0.05
        brow = smooth(who.brow, who.brow * 0.4, np.abs(arc)) * smooth(0.056, 0.044, np.abs(x - cx))
        image = paint(image, linear["hair"] * 0.55, brow * (0.85 + strands * 0.1))
        nostril = smooth(1.2, 0.7, _disc(x, y, side * 0.017, 0.075, 0.009, 0.006))
        image = paint(image, linear["skin"] * 0.12, nostril * 0.8)
    line = y - 0.138 + np.float32(who.smile) * (x / 0.07) ** 2 - np.float32(who.smile) * 0.4
    lips = smooth(1.05, 0.9, _disc(x, line, 0.0, 0.0, 0.068, 0.021 - 0.006))
    image = paint(image, linear["lips"] * (0.75 - x * 1.2 + smooth(0.0, 0.012, line) * 0.3)[..., None], lips)
    image = paint(image, linear["lips"] * 0.15, smooth(0.0035, 0.0015, np.abs(line)) * smooth(0.072, 0.06, np.abs(x)))

    # Fringe with the parting, glasses.
    hairline = -fh * 0.62 - 0.07 * np.cos((x - who.parting) * 7) + 0.9 * np.abs(x - who.parting) ** 1.5
    front = smooth(0.008, -0.008, y + wave * 0.5 - hairline) * smooth(1.0, 0.975, cap)
    side_hair = smooth(-0.012, 0.004, np.abs(x + wave * 0.5) - fw * 0.9) * behind * (y < who.hair_length)
    image = paint(image, hair_hue, np.maximum(front, side_hair))
    part = smooth(0.005, 0.002, np.abs(x - who.parting - (y + 0.25) * 0.15)) * smooth(-fh - 0.09, -fh + 0.0, y) * front
    image = paint(image, linear["skin"] * 0.55, part * 0.8)
    if who.glasses:
        for side in (-1.0, 1.0):
            rim = np.abs(_disc(x, y, side * 0.087, -0.033, 0.064, 0.05) - 1)
            image = paint(image, np.full(3, 0.02, np.float32), smooth(0.11, 0.05, rim))
        bridge = smooth(0.005, 0.003, np.abs(y + 0.04)) * smooth(0.027, 0.022, np.abs(x))
        arms = smooth(0.005, 0.003, np.abs(y + 0.045)) * smooth(0.145, 0.15, np.abs(x)) * mask
        image = paint(image, np.full(3, 0.02, np.float32), np.maximum(bridge, arms))

    picture = Image.fromarray(to_bytes(srgb_from_linear(np.clip(image, 0, 1))))
    draw = ImageDraw.Draw(picture)
    left, upper, side_px = int(width * 0.66), int(height * 0.865), int(width * 0.13)
    draw.rounded_rectangle((left, upper, left + side_px, upper + int(side_px * 0.82)), radius=12, fill=who.badge)
    ink = "#1d1d1f" if float(rgb(who.badge).mean()) > 0.6 else "#fbfaf6"
    font = ImageFont.load_default(size=side_px * 0.7)
    draw.text((left + side_px / 2, upper + side_px * 0.41), who.letter, fill=ink, font=font, anchor="mm")
    picture = picture.filter(ImageFilter.GaussianBlur(0.8))
    return picture.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class PortraitOptions:
    """Where the portraits go."""

    out: str = setting(REQUIRED, "folder to write to, e.g. assets/pictures")
    quality: int = setting(90, "of the JPEG files", minimum=1, maximum=95)


def main(argv: list[str]) -> None:
    """Write the portraits as JPEG files; raises ConfigError for wrong arguments."""
    options = parse(PortraitOptions, argv, HELP)
    for who in read_portraits(resource_dir("assets") / "pictures" / "portraits.yaml"):
        buffer = io.BytesIO()
        draw_portrait(who).save(buffer, format="JPEG", quality=options.quality, subsampling=0)
        path = Path(options.out) / f"{who.name}.jpg"
        replace_atomically(path, buffer.getvalue())
        print(f"wrote {path} ({len(buffer.getvalue()) / 1000:.0f} kB)")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
