"""A sheet of lit swatches, one per material, so that a person can judge a bank at a glance.

Every swatch is the flat tile under a lamp near its upper left corner, seen from straight above. Because the lamp is
near, its reflection shows how rough and how metallic the material is; the normal map shows in the shading.
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
from megasynth_attr.core.srgb import linear_from_srgb, srgb_from_linear
from megasynth_attr.textures.bank import open_bank
from megasynth_attr.textures.records import MaterialRecord
from megasynth_attr.textures.surface import COLOR_MAPS, Bytes, to_bytes

Floats = npt.NDArray[np.floating]

HELP = Help(
    usage="python -m megasynth_attr.textures.contact_sheet [bank=FOLDER] [out=FILE] [key=value ...]",
    explanation="Draws a sheet of lit swatches, one per material of a bank, so that a person can judge it at a glance.",
    examples=("python -m megasynth_attr.textures.contact_sheet bank=procedural out=docs/images/materials.png",),
)
_LAMP = (-0.7, 0.7, 1.1)  # x right, y up, z to the viewer; the swatch reaches from -1 to 1
_BACKGROUND = (30, 31, 34)


@dataclass(frozen=True)
class SheetOptions:
    """What is drawn, and how."""

    bank: str = setting("procedural", "procedural, or the folder of a disk bank")
    out: str = setting("docs/images/materials.png", "the PNG file to write")
    cache_dir: str = setting(".cache/textures", "where the procedural bank keeps its files")
    size_px: int = setting(256, "size of the maps that are shaded", minimum=1)
    columns: int = setting(12, "swatches in a row", minimum=1)
    width_px: int = setting(1600, "width of the sheet", minimum=1)
    tiles: float = setting(1.25, "tiles across a swatch; above 1, seams would show", minimum=0.1)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def render_swatch(maps: dict[str, Bytes], tiles: float) -> Bytes:
    """Return ``tiles`` × ``tiles`` tiles of a material, lit, as (M, M, 3) sRGB; M is ``tiles`` times the maps' size.

    Lambert's diffuse light, the GGX distribution of micro-facets for the lamp's reflection, and an even grey room.
    """
    size = maps["normal"].shape[0]
    repeated = np.arange(max(1, round(size * tiles))) % size
    shown = {name: pixels[np.ix_(repeated, repeated)] for name, pixels in maps.items()}
    axis = (np.arange(len(repeated)) + 0.5) / len(repeated) * 2 - 1
    x, y = np.meshgrid(axis, -axis)
    to_lamp = _unit(np.array(_LAMP) - np.stack([x, y, np.zeros_like(x)], axis=-1))
    half = _unit(to_lamp + np.array([0.0, 0.0, 1.0]))
    normal = _unit(shown["normal"] / 127.5 - 1.0)
    facing, glancing = ((normal * way).sum(axis=-1, keepdims=True).clip(0, 1) for way in (to_lamp, half))
    color = linear_from_srgb(shown["basecolor"] / 255.0)
    roughness, metallic = shown["roughness"][..., None] / 255.0, shown["metallic"][..., None] / 255.0
    alpha = roughness.clip(0.15, 1) ** 4
    lobe = alpha / (np.pi * (glancing**2 * (alpha - 1) + 1) ** 2)
    reflectance = 0.04 * (1 - metallic) + color * metallic
    radiance = color * (1 - metallic) * (0.3 + facing) + reflectance * (0.45 + lobe.clip(0, 4) * facing)
    return to_bytes(srgb_from_linear(radiance))


def _read_map(file: Path, is_color: bool) -> Bytes:
    """Return a decoded map: (N, N, 3) if it ``is_color``, else (N, N)."""
    advice = "make the material bank again"
    content = read_content(file, advice)
    if is_color:
        return np.asarray(decode_picture(content, str(file), advice).image.convert("RGB"))
    return to_bytes(decode_levels(content, str(file), advice))


def contact_sheet(
    records: tuple[MaterialRecord, ...], files: dict[str, dict[str, Path]], columns: int, width_px: int, tiles: float
) -> Image.Image:
    """Return the sheet: swatches grouped by category, labelled with the material's name (RGB image)."""
    ordered = sorted(records, key=lambda record: (record.category, record.name))
    cell = width_px // columns
    side, line = max(1, cell - 10), 18  # of a swatch, and the height of a line of text
    sheet = Image.new("RGB", (width_px, -(-len(ordered) // columns) * (side + 2 * line) + 10), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    small, bold = ImageFont.load_default(size=10), ImageFont.load_default(size=13)
    previous = ""
    for index, record in enumerate(tqdm(ordered, desc="swatches", unit="material", disable=None)):
        x, y = index % columns * cell, index // columns * (side + 2 * line) + 5
        if record.category != previous:
            draw.text((x + 6, y + 1), record.category, fill=(235, 196, 106), font=bold)
            draw.line((x + 5, y + line - 1, x + cell - 6, y + line - 1), fill=(120, 102, 62))
            previous = record.category
        maps = {name: _read_map(file, name in COLOR_MAPS) for name, file in files[record.name].items()}
        swatch = Image.fromarray(render_swatch(maps, tiles))
        sheet.paste(swatch.resize((side, side), Image.Resampling.LANCZOS), (x + 5, y + line))
        label = record.name.replace("_", " ")
        while draw.textlength(label, font=small) > cell - 4 and len(label) > 4:
            label = label[:-2].rstrip() + "…"
        draw.text((x + cell / 2, y + line + side + 1), label, fill=(205, 205, 205), font=small, anchor="ma")
    return sheet


def main(argv: list[str]) -> None:
    """Write the sheet; raises ConfigError for unknown keys and DatasetError for a bank that cannot be read."""
    options = parse(SheetOptions, argv, HELP)
    bank = open_bank(options.bank, cache_dir=Path(options.cache_dir), size_px=options.size_px)
    files = bank.materialise(record.name for record in bank.records)
    sheet = contact_sheet(bank.records, files, options.columns, options.width_px, options.tiles)
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # 256 colours without dithering: a fifth of the bytes, and the difference is not visible at this size.
    sheet.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"wrote {out} ({len(bank.records)} materials, {out.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
