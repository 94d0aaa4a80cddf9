"""Views as 8-bit pictures on one light background, called paper: thumbnails, false colours, contact sheets, strips.

Everything here is NumPy and Pillow; H×W×3 uint8 arrays, sRGB, row 0 at the top.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from megasynth_attr.core.pages.figures import INK_RGB, PAPER_RGB

GOLDEN_RATIO = (1 + 5**0.5) / 2


@dataclass(frozen=True)
class ContactSheet:
    """Where the cells of a contact sheet are; all numbers in pixels."""

    columns: int
    rows: int
    cell_width: int
    cell_height: int
    gap: int
    label_height: int

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height) of the whole sheet, a gap around it included."""
        width = self.columns * (self.cell_width + self.gap) + self.gap
        return width, self.rows * (self.cell_height + self.label_height + self.gap) + self.gap

    def origin(self, index: int) -> tuple[int, int]:
        """Return (x, y) of the top left pixel of cell ``index``; cells run row by row. Its label is below it."""
        row, column = divmod(index, self.columns)
        pitch_y = self.cell_height + self.label_height + self.gap
        return self.gap + column * (self.cell_width + self.gap), self.gap + row * pitch_y


def plan_sheet(count: int, aspect: float, columns: int, cell_width: int = 200) -> ContactSheet:
    """Return the sheet for ``count`` cells of ``aspect`` = width / height; fewer cells than columns narrow it."""
    columns = max(1, min(columns, count))
    gap = max(4, cell_width // 16)
    cell_height = max(1, round(cell_width / aspect))
    return ContactSheet(
        columns, max(1, math.ceil(count / columns)), cell_width, cell_height, gap, round(cell_width * 0.13)
    )


def on_paper(rgba: np.ndarray) -> np.ndarray:
    """Return an H×W×4 (straight alpha) or H×W×3 uint8 picture as H×W×3 uint8, blended over the paper in sRGB."""
    if rgba.shape[-1] == 3:
        return rgba
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.round(rgba[..., :3] * alpha + np.asarray(PAPER_RGB, dtype=np.float32) * (1 - alpha)).astype(np.uint8)


def resized(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return ``rgb`` at another size, Lanczos-filtered; unchanged if it has that size."""
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def contact_sheet(pictures: Sequence[np.ndarray], labels: Sequence[str], sheet: ContactSheet) -> np.ndarray:
    """Return the pictures in their cells, each with its label centred below it, on paper."""
    width, height = sheet.size
    canvas = Image.new("RGB", (width, height), PAPER_RGB)
    draw = ImageDraw.Draw(canvas)
    font = label_font(max(1, round(sheet.label_height * 0.62)))
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = sheet.origin(index)
        canvas.paste(Image.fromarray(resized(picture, sheet.cell_width, sheet.cell_height)), (x, y))
        centre = (x + sheet.cell_width / 2, y + sheet.cell_height + sheet.label_height * 0.55)
        draw.text(centre, label, fill=INK_RGB, font=font, anchor="mm")
    return np.asarray(canvas)


def strip(pictures: Sequence[np.ndarray], width: int, height: int) -> np.ndarray:
    """Return the pictures side by side without gaps, each at width × height."""
    return np.concatenate([resized(p, width, height) for p in pictures], axis=1)


def normal_colour(normal: np.ndarray) -> np.ndarray:
    """Return world normals as colours, (n + 1) / 2 per axis; paper where the normal is 0."""
    colours = np.round((np.clip(normal, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.where(np.any(normal != 0, axis=-1, keepdims=True), colours, np.array(PAPER_RGB, dtype=np.uint8))


def instance_colour(instance: np.ndarray) -> np.ndarray:
    """Return instance ids as colours: neighbouring ids far apart in hue, the same id always the same; 0 is paper."""
    table = np.array([PAPER_RGB] + [id_colour(i) for i in range(1, int(instance.max(initial=0)) + 1)], dtype=np.uint8)
    return table[instance]


def id_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of the ``number``-th thing: hue advances by the golden angle, lightness cycles in four steps.

    Hues come close again after 13, 21, 34, 55 things (Fibonacci numbers), none of which is a multiple of 4.
    """
    hue = (number / GOLDEN_RATIO) % 1.0
    value, saturation = ((0.86, 0.55), (0.66, 0.70), (0.95, 0.36), (0.74, 0.40))[number % 4]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def label_font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return the font of all labels: the DejaVu Sans that comes with matplotlib, the same on every machine."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size_px)


def save_png(path: Path, rgb: np.ndarray) -> None:
    """Write a picture losslessly, without time stamps."""
    Image.fromarray(rgb).save(path, format="PNG", optimize=True)


def save_jpeg(path: Path, rgb: np.ndarray) -> None:
    """Write a picture for the page where a PNG would be several times larger; full colour resolution."""
    Image.fromarray(rgb).save(path, format="JPEG", quality=88, subsampling=0, optimize=True)
