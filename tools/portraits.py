"""Six synthetic portraits for tests and demos of the plane layout, drawn with NumPy; nobody is depicted.

    python tools/portraits.py out=assets/pictures

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
from megasynth_attr.core.srgb import linear_from_srgb, srgb_from_linear
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.textures.procedural.noise import Array, Tile, fbm
from megasynth_attr.textures.surface import mix, rgb, smooth, to_bytes

HELP = Help(
    usage="python tools/portraits.py out=FOLDER [quality=90]",
    explanation="Paints the portraits that the spoof scenes show, as JPEG files.",
    examples=("python tools/portraits.py out=assets/pictures",),
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


def draw_portrait(who: Portrait) -> Image.Image:
    """Return the portrait, an RGB image of 360 × 480 px in sRGB."""
    width, height = WIDTH_PX * _SUPERSAMPLING, HEIGHT_PX * _SUPERSAMPLING
    x = np.broadcast_to(((np.arange(width) + 0.5) / width - 0.5)[None, :], (height, width)).astype(np.float32)
    y = np.broadcast_to(((np.arange(height) + 0.5) / width - 0.6)[:, None], (height, width)).astype(np.float32)
    picture = Image.fromarray(to_bytes(srgb_from_linear(_Painting(who, x, y).image)))
    draw = ImageDraw.Draw(picture)
    left, upper, side_px = int(width * 0.66), int(height * 0.865), int(width * 0.13)
    draw.rounded_rectangle((left, upper, left + side_px, upper + int(side_px * 0.82)), radius=12, fill=who.badge)
    ink = "#1d1d1f" if float(rgb(who.badge).mean()) > 0.6 else "#fbfaf6"
    font = ImageFont.load_default(size=side_px * 0.7)
    draw.text((left + side_px / 2, upper + side_px * 0.41), who.letter, fill=ink, font=font, anchor="mm")
    return picture.filter(ImageFilter.GaussianBlur(0.8)).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS)


def _linear(hue: str) -> Array:
    return linear_from_srgb(rgb(hue)).astype(np.float32)


def _grey(value: float) -> Array:
    return np.full(3, value, np.float32)


class _Painting:
    """A portrait without its badge in linear light (``image``), painted layer over layer.

    ``x`` and ``y`` are those of the pixels, in widths, from a point between the eyes.
    """

    image: Array

    def __init__(self, who: Portrait, x: Array, y: Array) -> None:
        self.who, self.x, self.y = who, x, y
        self.tile = Tile(f"portrait/{who.name}", 512)
        self.skin, self.hair = _linear(who.skin), _linear(who.hair)
        self.fw, self.fh = who.face
        self.background()
        self.shoulders()
        self.hair_behind()
        self.ears()
        self.face()
        self.eyes()
        self.mouth()
        self.fringe()
        if who.glasses:
            self.glasses()

    def noise(self, label: str, period: int | tuple[int, int], octaves: int) -> Array:
        rows, columns = (np.arange(length) * 512 // length for length in self.x.shape)
        return fbm(self.tile, label, period, octaves)[rows[:, None], columns[None, :]]

    def disc(self, cx: float, cy: float, rx: float, ry: float, x: Array | None = None, y: Array | None = None) -> Array:
        """Return the signed radius of an ellipse: below 1 inside."""
        x, y = self.x if x is None else x, self.y if y is None else y
        return np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)

    def spot(self, cx: float, cy: float, rx: float, ry: float) -> Array:
        return np.exp(-(((self.x - cx) / rx) ** 2 + ((self.y - cy) / ry) ** 2))

    def paint(self, hue: Array, mask: Array) -> None:
        self.image = mix(self.image, hue, np.clip(mask, 0, 1))

    def background(self) -> None:
        x, y = self.x, self.y
        glow = 0.72 + 0.4 * np.exp(-((x + 0.2) ** 2 + (y + 0.25) ** 2) * 3) + self.noise("wall", 3, 4) * 0.025
        top, bottom = map(_linear, self.who.background)
        self.image = mix(top, bottom, np.clip(y / 1.33 + 0.45, 0, 1)) * glow[..., None]

    def shoulders(self) -> None:
        """Paint shoulders and neck; the key light comes from the upper left."""
        x, y = self.x, self.y
        shoulder = smooth(0.0, 0.012, y - 0.43 + 0.14 * np.cos(np.clip(x * 3.1, -1.57, 1.57)) * (1 - np.abs(x)))
        folds = 0.75 - x * 0.7 + self.noise("cloth", 40, 2) * 0.04 + np.cos(x * 9) * 0.08
        self.paint(_linear(self.who.clothes) * folds[..., None], shoulder)
        neck = smooth(0.105, 0.095, np.abs(x) + np.maximum(y - 0.36, 0) * 0.6) * smooth(0.1, 0.14, y)
        self.paint(self.skin * (0.5 - x * 1.2 + smooth(0.3, 0.38, y) * 0.25)[..., None], neck * smooth(0.42, 0.40, y))

    def hair_behind(self) -> None:
        """Paint the hair behind the head."""
        x, y = self.x, self.y
        self.wave = self.noise("curl", 26, 2) * np.float32(self.who.curl) + np.sin(y * 26 + 1) * np.float32(0.006)
        self.strands = self.noise("strands", (90, 5), 2)
        shine = np.exp(-(((y + 0.24 - 0.5 * np.abs(x + 0.04)) / 0.04) ** 2)) * 0.9
        hair_light = 0.7 + self.strands * 0.16 - x * 0.8 + shine * (0.7 + 0.3 * self.strands)
        self.hair_hue = self.hair * np.clip(hair_light, 0.15, 3)[..., None] + shine[..., None] * np.float32(0.012)
        volume, length = self.who.hair_volume, self.who.hair_length
        self.cap = self.disc(0.0, -0.05, self.fw + volume, self.fh + volume, x + self.wave, y + self.wave)
        curtain = smooth(0.0, -0.015, np.abs(x + self.wave) - (self.fw + volume) * 0.98)
        curtain = curtain * smooth(length, length - 0.03, y)
        self.behind = np.maximum(smooth(1.0, 0.975, self.cap) * (y < max(length, 0.0)), curtain * (y > -0.05))
        self.paint(self.hair_hue * 0.75, self.behind)

    def ears(self) -> None:
        for side in (-1.0, 1.0):
            ear = smooth(1.05, 0.95, self.disc(side * self.fw * 0.99, 0.015, 0.03, 0.055))
            self.paint(self.skin * np.float32(0.62 - 0.2 * side), ear)

    def face(self) -> None:
        """Paint the face as an ellipsoid with Lambert shading."""
        x, y = self.x, self.y
        jaw = 1 + np.maximum(y - 0.02, 0) * 0.65  # narrower towards the chin
        radius = self.disc(0.0, 0.0, self.fw, self.fh, x * jaw)
        nz = np.sqrt(np.clip(1 - radius**2 * 0.92, 0, 1))
        nx, ny = x * jaw / self.fw * 0.9, y / self.fh * 0.9
        nose_ridge = np.exp(-((x / 0.028) ** 2)) * smooth(-0.09, 0.06, y) * smooth(0.085, 0.06, y)
        sockets = self.spot(-0.085, -0.045, 0.06, 0.035) + self.spot(0.085, -0.045, 0.06, 0.035)
        cheeks = self.spot(-0.115, 0.07, 0.05, 0.04) + self.spot(0.115, 0.07, 0.05, 0.04)
        light = np.clip(-0.5 * nx - 0.45 * ny + 0.74 * nz, 0, 1) * 0.95 + 0.16
        light = light + nose_ridge * (-x * 9 + 0.06) - sockets * 0.14
        light = light - self.spot(0.012, 0.088, 0.035, 0.012) * 0.22  # under the nose
        light = light - self.spot(0.0, 0.175, 0.07, 0.012) * 0.12  # under the lips
        face = self.skin * (light + self.noise("pores", 90, 2) * 0.012)[..., None]
        face = face * (1 + cheeks[..., None] * np.array([0.1, -0.08, -0.08], np.float32))
        if self.who.beard:
            zone = smooth(0.02, 0.05, np.abs(y - 0.135) + np.abs(x) * 0.2 - 0.004)
            zone = smooth(0.06, 0.14, y + np.abs(x) * 0.35) * zone
            stubble = np.clip(zone * self.who.beard * (0.9 + self.noise("beard", 110, 2) * 0.25), 0, 1)
            face = mix(face, self.hair * (0.6 + light * 0.5)[..., None], stubble)
        self.mask = smooth(1.0, 0.985, radius)
        self.paint(face, self.mask)

    def eyes(self) -> None:
        """Paint eyes, brows and nostrils."""
        x, y = self.x, self.y
        for side in (-1.0, 1.0):
            cx = side * 0.085
            lid = self.disc(cx, -0.035, 0.043, 0.021, y=y + np.abs(x - cx) ** 2 * 3)
            eye = smooth(1.04, 0.94, lid)
            white = np.array([0.72, 0.7, 0.68], np.float32)
            self.paint(white * (0.75 + 0.25 * smooth(-0.05, -0.03, y))[..., None], eye)
            iris = self.disc(cx + 0.004, -0.036, 0.019, 0.019)
            hue = _linear(self.who.eyes) * (0.55 + 0.7 * smooth(0.3, 0.9, iris))[..., None]
            self.paint(hue, eye * smooth(1.05, 0.92, iris))
            self.paint(_grey(0.008), eye * smooth(0.48, 0.42, iris))
            self.paint(_grey(0.95), smooth(0.0052, 0.0035, np.hypot(x - cx + 0.004, y + 0.043)))  # a glint
            lashes = smooth(0.14, 0.05, np.abs(lid - 1.0)) * smooth(-0.028, -0.04, y)
            self.paint(self.hair * 0.25, lashes * 0.85)
            arc = y + 0.088 + (x - cx) ** 2 * 5 + side * (x - cx) * 0.05
            brow = smooth(self.who.brow, self.who.brow * 0.4, np.abs(arc)) * smooth(0.056, 0.044, np.abs(x - cx))
            self.paint(self.hair * 0.55, brow * (0.85 + self.strands * 0.1))
            nostril = smooth(1.2, 0.7, self.disc(side * 0.017, 0.075, 0.009, 0.006))
            self.paint(self.skin * 0.12, nostril * 0.8)

    def mouth(self) -> None:
        x, y = self.x, self.y
        lips = _linear(self.who.lips)
        line = y - 0.138 + np.float32(self.who.smile) * (x / 0.07) ** 2 - np.float32(self.who.smile) * 0.4
        mouth = smooth(1.05, 0.9, self.disc(0.0, 0.0, 0.068, 0.021 - 0.006, y=line))
        self.paint(lips * (0.75 - x * 1.2 + smooth(0.0, 0.012, line) * 0.3)[..., None], mouth)
        self.paint(lips * 0.15, smooth(0.0035, 0.0015, np.abs(line)) * smooth(0.072, 0.06, np.abs(x)))

    def fringe(self) -> None:
        """Paint the fringe with its parting."""
        x, y = self.x, self.y
        across = x - self.who.parting
        hairline = -self.fh * 0.62 - 0.07 * np.cos(across * 7) + 0.9 * np.abs(across) ** 1.5
        front = smooth(0.008, -0.008, y + self.wave * 0.5 - hairline) * smooth(1.0, 0.975, self.cap)
        side_hair = (
            smooth(-0.012, 0.004, np.abs(x + self.wave * 0.5) - self.fw * 0.9)
            * self.behind
            * (y < self.who.hair_length)
        )
        self.paint(self.hair_hue, np.maximum(front, side_hair))
        part = smooth(0.005, 0.002, np.abs(across - (y + 0.25) * 0.15)) * smooth(-self.fh - 0.09, -self.fh, y)
        self.paint(self.skin * 0.55, part * front * 0.8)

    def glasses(self) -> None:
        x, y = self.x, self.y
        for side in (-1.0, 1.0):
            self.paint(_grey(0.02), smooth(0.11, 0.05, np.abs(self.disc(side * 0.087, -0.033, 0.064, 0.05) - 1)))
        bridge = smooth(0.005, 0.003, np.abs(y + 0.04)) * smooth(0.027, 0.022, np.abs(x))
        arms = smooth(0.005, 0.003, np.abs(y + 0.045)) * smooth(0.145, 0.15, np.abs(x)) * self.mask
        self.paint(_grey(0.02), np.maximum(bridge, arms))


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
