"""A sheet of lit spheres, one per material, so that a person can judge a bank at a glance.

The shading is a small physically based renderer in NumPy: GGX speculars of two lights, a blurred studio environment
and Lambert diffuse, all driven by the material's own basecolor, normal, roughness and metallic maps.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.pictures import decode_levels, decode_picture, read_content
from megasynth_attr.textures.bank import open_bank
from megasynth_attr.textures.records import MaterialRecord
from megasynth_attr.textures.surface import MAPS, Bytes, linear_from_srgb, srgb_from_linear, to_bytes

Floats = npt.NDArray[np.floating]

HELP = Help(
    usage="python -m megasynth_attr.textures.contact_sheet [bank=FOLDER] [out=FILE] [key=value ...]",
    explanation="Draws a sheet of lit spheres, one per material of a bank, so that a person can judge it at a glance.",
    examples=("python -m megasynth_attr.textures.contact_sheet bank=procedural out=docs/images/materials.png",),
)
_LIGHTS = (  # direction to the light (x right, y up, z to the viewer), radiant colour
    (np.array([-0.55, 0.65, 0.6]), np.array([3.0, 2.85, 2.65])),
    (np.array([0.85, 0.1, 0.35]), np.array([0.7, 0.8, 0.95])),
)


@dataclass(frozen=True)
class SheetOptions:
    """What is drawn, and how."""

    bank: str = setting("procedural", "procedural, or the folder of a disk bank")
    out: str = setting("docs/images/materials.png", "the PNG file to write")
    cache_dir: str = setting(".cache/textures", "where the procedural bank keeps its files")
    size_px: int = setting(256, "size of the maps that are shaded", minimum=1)
    columns: int = setting(12, "spheres in a row", minimum=1)
    width_px: int = setting(1600, "width of the sheet", minimum=1)
    tiles: float = setting(1.25, "tiles across a sphere", minimum=0)


def _environment(direction: Floats, blur: Floats) -> Floats:
    """Return the studio's radiance (…, 3) from ``direction``; ``blur`` 0 … 1 widens every edge (a rough reflection)."""
    up = direction[..., 1]
    soft = 0.08 + 0.9 * blur
    sky = np.clip(0.5 + 0.5 * up / soft, 0, 1)[..., None]
    base = np.array([0.16, 0.14, 0.12]) * (1 - sky) + np.array([0.5, 0.55, 0.62]) * sky
    box = np.ones_like(up)  # a square softbox at the upper left
    for offset in (direction[..., 0] + 0.5, up - 0.55):
        box = box * np.clip(0.5 + (0.3 - np.abs(offset)) / soft, 0, 1)
    strip = np.clip(0.5 + (0.12 - np.abs(direction[..., 0] - 0.8)) / soft, 0, 1) * np.clip(0.5 + up / soft, 0, 1)
    strength = 1.0 / (1.0 + 3.0 * blur)
    return base + ((box * 2.4 + strip * 0.9) * strength * (direction[..., 2] > -0.6))[..., None]


def shade(color: Floats, normal: Floats, roughness: Floats, metallic: Floats) -> Floats:
    """Return linear radiance (…, 3) towards the viewer at +z.

    ``color`` (…, 3) is linear base colour, ``normal`` (…, 3) unit and in view space (x right, y up, z to the viewer),
    ``roughness`` and ``metallic`` (…) are in 0 … 1.
    """
    alpha = np.clip(roughness, 0.06, 1) ** 2
    n_v = np.clip(normal[..., 2], 0.05, 1)
    metal = metallic[..., None]
    f0 = 0.04 * (1 - metal) + color * metal
    diffuse = color * (1 - metal)
    radiance = np.zeros_like(color)
    for direction, light in _LIGHTS:
        to_light = direction / np.linalg.norm(direction)
        half = to_light + np.array([0.0, 0.0, 1.0])
        half = half / np.linalg.norm(half)
        n_l = np.clip(normal @ to_light, 0, 1)
        n_h = np.clip(normal @ half, 0, 1)
        v_h = float(half[2])
        a2 = alpha * alpha
        spread = a2 / (np.pi * (n_h * n_h * (a2 - 1) + 1) ** 2)  # GGX distribution
        k = alpha / 2
        visibility = 0.25 / ((n_l * (1 - k) + k) * (n_v * (1 - k) + k))  # Smith–Schlick, over 4 n·l n·v
        fresnel = f0 + (1 - f0) * (1 - v_h) ** 5
        radiance += (diffuse / np.pi + (spread * visibility)[..., None] * fresnel) * (n_l[..., None] * light)
    mirror = 2 * normal[..., 2:3] * normal - np.array([0.0, 0.0, 1.0])
    grazing = (1 - n_v[..., None]) ** 5 * (1 - roughness[..., None]) ** 2
    radiance += _environment(mirror, roughness**1.5) * (f0 + (1 - f0) * grazing)
    radiance += _environment(normal, np.ones_like(n_v)) * diffuse * 0.55
    return radiance


def _sample(image: Floats, u: Floats, v: Floats) -> Floats:
    """Return the periodic ``image`` (N, N, C) at u (right) and v (down) in tiles, bilinear."""
    n = image.shape[0]
    x, y = u * n - 0.5, v * n - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    top = image[y0 % n, x0 % n] * (1 - fx) + image[y0 % n, (x0 + 1) % n] * fx
    bottom = image[(y0 + 1) % n, x0 % n] * (1 - fx) + image[(y0 + 1) % n, (x0 + 1) % n] * fx
    return top * (1 - fy) + bottom * fy


def render_sphere(maps: dict[str, Bytes], size_px: int, tiles: float, background: Floats) -> Bytes:
    """Return a picture (size_px, size_px, 3) of a sphere of the material over a linear ``background`` (3,).

    The texture is laid on by the angle from the viewer, so that it shows undistorted in the middle. 2 × 2 samples.
    """
    n = 2 * size_px
    axis = (np.arange(n) + 0.5) / n * 2 - 1
    x, y = np.meshgrid(axis * 1.02, -axis * 1.02)
    r = np.hypot(x, y)
    z = np.sqrt(np.clip(1 - r * r, 0, 1))
    stretch = np.where(r > 1e-6, np.arcsin(np.clip(r, 0, 1)) / np.maximum(r, 1e-6), 1.0) / (np.pi / 2) * 0.5 * tiles
    u, v = 0.5 + x * stretch, 0.5 - y * stretch
    color = _sample(linear_from_srgb(maps["basecolor"] / 255.0), u, v)
    bend = _sample(maps["normal"] / 127.5 - 1.0, u, v)
    rough = _sample(maps["roughness"][..., None] / 255.0, u, v)[..., 0]
    metal = _sample(maps["metallic"][..., None] / 255.0, u, v)[..., 0]
    geometric = np.stack([x, y, z], axis=-1)
    tangent = np.stack([z, np.zeros_like(z), -x], axis=-1)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-6)
    bitangent = np.cross(geometric, tangent)
    normal = tangent * bend[..., :1] + bitangent * bend[..., 1:2] + geometric * bend[..., 2:]
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    image = shade(color, normal, rough, metal)
    image = np.where((r < 1)[..., None], image, background)
    image = image.reshape(size_px, 2, size_px, 2, 3).mean(axis=(1, 3))
    image = np.where(image < 0.7, image, 0.7 + 0.3 * np.tanh((image - 0.7) / 0.3))  # shoulder for the highlights
    return (np.clip(srgb_from_linear(image), 0, 1) * 255 + 0.5).astype(np.uint8)


def render_flat(maps: dict[str, Bytes], repeats: int = 2) -> Bytes:
    """Return the material lit as a flat square of ``repeats``² tiles, (N·repeats, N·repeats, 3), to look for seams."""
    tiled = {name: np.tile(image, (repeats, repeats) + (1,) * (image.ndim - 2)) for name, image in maps.items()}
    normal = tiled["normal"] / 127.5 - 1.0
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    image = shade(
        linear_from_srgb(tiled["basecolor"] / 255.0), normal, tiled["roughness"] / 255.0, tiled["metallic"] / 255.0
    )
    return (np.clip(srgb_from_linear(np.clip(image, 0, 1)), 0, 1) * 255 + 0.5).astype(np.uint8)


def read_maps(files: dict[str, Path]) -> dict[str, Bytes]:
    """Return the decoded maps of one material: basecolor and normal (N, N, 3), the others (N, N)."""
    return {name: _read_map(files[name], is_colour=name in ("basecolor", "normal")) for name in MAPS}


def _read_map(file: Path, is_colour: bool) -> Bytes:
    advice = "make the material bank again"
    content = read_content(file, advice)
    if is_colour:
        return np.asarray(decode_picture(content, str(file), advice).image.convert("RGB"))
    return to_bytes(decode_levels(content, str(file), advice))


def contact_sheet(
    records: tuple[MaterialRecord, ...],
    files: dict[str, dict[str, Path]],
    *,
    columns: int = 12,
    width_px: int = 1600,
    tiles: float = 1.25,
) -> Image.Image:
    """Return the sheet: spheres grouped by category, labelled with the material's name (RGB image)."""
    ordered = sorted(records, key=lambda record: (record.category, record.name))
    cell = width_px // columns
    sphere, head = cell - 10, 18
    row_height = head + sphere + 18
    rows = -(-len(ordered) // columns)
    background = (30, 31, 34)
    sheet = Image.new("RGB", (width_px, rows * row_height + 10), background)
    draw = ImageDraw.Draw(sheet)
    small, bold = ImageFont.load_default(size=10), ImageFont.load_default(size=13)
    linear_background = np.asarray(linear_from_srgb(np.array(background) / 255.0))
    previous = ""
    for index, record in enumerate(tqdm(ordered, desc="spheres", unit="material", disable=None)):
        x, y = index % columns * cell, index // columns * row_height + 5
        if record.category != previous:
            draw.text((x + 6, y + 1), record.category, fill=(235, 196, 106), font=bold)
            draw.line((x + 5, y + head - 1, x + cell - 6, y + head - 1), fill=(120, 102, 62))
            previous = record.category
        picture = render_sphere(read_maps(files[record.name]), sphere, tiles, linear_background)
        sheet.paste(Image.fromarray(picture), (x + 5, y + head))
        label = record.name.replace("_", " ")
        while draw.textlength(label, font=small) > cell - 4 and len(label) > 4:
            label = label[:-2].rstrip() + "…"
        left = x + (cell - draw.textlength(label, font=small)) / 2
        draw.text((left, y + head + sphere + 1), label, fill=(205, 205, 205), font=small)
    return sheet


def main(argv: list[str]) -> None:
    """Write the sheet; raises ConfigError for unknown keys and DatasetError for a bank that cannot be read."""
    options = parse(SheetOptions, argv, HELP)
    bank = open_bank(options.bank, cache_dir=Path(options.cache_dir), size_px=options.size_px)
    files = bank.materialise(record.name for record in bank.records)
    sheet = contact_sheet(bank.records, files, columns=options.columns, width_px=options.width_px, tiles=options.tiles)
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # 256 colours without dithering: a fifth of the bytes, and the difference is not visible at this size.
    sheet.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"wrote {out} ({len(bank.records)} materials, {out.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
