"""A painted tile and its five maps: colour helpers, normals from height, statistics, 8-bit conversion, PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from megasynth_attr.core.srgb import linear_from_srgb
from megasynth_attr.textures.procedural.noise import Array, IntArray

MAPS = ("basecolor", "normal", "roughness", "metallic", "height")
COLOR_MAPS = ("basecolor", "normal")  # these have three channels, the others one
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Surface:
    """What a material function paints. All arrays are (N, N) or (N, N, 3); scalars are constants over the tile."""

    color: Array  # (N, N, 3) sRGB-encoded, 0 … 1
    height: Array  # any range; one unit is `relief` tile widths
    roughness: Array | float  # 0 … 1
    metallic: Array | float = 0.0  # 0 … 1
    relief: float = 0.02  # tile widths per unit of height


@dataclass(frozen=True)
class Statistics:
    """Averages of a material that the isolation matrix compares."""

    mean_linear_rgb: tuple[float, float, float]
    std_luminance: float
    mean_roughness: float
    mean_metallic: float


def rgb(color: str) -> Array:
    """Return the sRGB-encoded colour "#rrggbb" as (3,) in 0 … 1."""
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / np.float32(255.0)


def smooth(low: float, high: float, value: Array) -> Array:
    """Return the smoothstep of ``value``: 0 below ``low``, 1 above ``high`` (``low`` > ``high`` turns it around)."""
    t = np.clip((value - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def mix(a: Array | float, b: Array | float, weight: Array | float) -> Array:
    """Return a + (b − a)·weight; the weight (N, N) is broadcast over the channels of colours (N, N, 3) or (3,)."""
    if isinstance(weight, np.ndarray) and (3,) in (np.shape(a)[-1:], np.shape(b)[-1:]):
        weight = weight[..., None]
    return np.asarray(a + (b - a) * weight)


def ramp(value: Array, colors: Sequence[str]) -> Array:
    """Return the colour gradient through evenly spaced ``colors`` looked up at ``value`` in 0 … 1, (N, N, 3)."""
    stops = np.stack([rgb(color) for color in colors])
    positions = np.linspace(0.0, 1.0, 1024)
    table = np.stack([np.interp(positions, np.linspace(0.0, 1.0, len(stops)), stops[:, c]) for c in range(3)], axis=1)
    index = np.clip(value * 1023.0 + 0.5, 0.0, 1023.0).astype(np.int64)
    return table.astype(np.float32)[index]


def pick(colors: Sequence[str], index: IntArray) -> Array:
    """Return ``colors[index mod count]`` per pixel, (N, N, 3)."""
    return np.stack([rgb(color) for color in colors])[index % len(colors)]


def tint(color: Array, factor: Array) -> Array:
    """Return the colour (N, N, 3), or (3,), with its brightness multiplied by ``factor`` (N, N), as (N, N, 3)."""
    return color * factor[..., None]


def normals_from_height(height: npt.NDArray[np.floating], relief: float) -> Array:
    """Return the unit normals (N, N, 3) of a periodic height field, OpenGL convention: +x right, +y **up**, +z out.

    ``height`` is (N, N) with row 0 at the top; one unit of it is ``relief`` tile widths, so slopes do not depend on
    the resolution. Gradients are central differences that wrap around.
    """
    n = height.shape[0]
    scale = np.float32(0.5 * n * relief)
    right = (np.roll(height, -1, axis=1) - np.roll(height, 1, axis=1)) * scale
    down = (np.roll(height, -1, axis=0) - np.roll(height, 1, axis=0)) * scale
    normal = np.empty((*height.shape, 3), np.float32)
    inverse = 1.0 / np.sqrt(1.0 + right * right + down * down)
    normal[..., 0] = -right * inverse
    normal[..., 1] = down * inverse  # y points up, rows grow downwards: −∂h/∂(up) = +∂h/∂(row)
    normal[..., 2] = inverse
    return normal


def to_bytes(value: npt.NDArray[np.floating]) -> Bytes:
    """Return values of 0 … 1 as rounded 8-bit integers, clipped."""
    return (np.clip(value, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def maps_of(surface: Surface) -> dict[str, Bytes]:
    """Return the five 8-bit maps of a painted tile: basecolor (N, N, 3) sRGB, normal (N, N, 3), the others (N, N).

    Height is stretched to the full 8-bit range. Basecolor is kept within sRGB 22 … 245, the range of real albedos.
    """
    shape = surface.height.shape
    low, high = float(surface.height.min()), float(surface.height.max())
    height = (surface.height - low) / max(high - low, 1e-6)
    return {
        "basecolor": to_bytes(np.clip(surface.color, 22 / 255, 245 / 255)),
        "normal": to_bytes(normals_from_height(surface.height, surface.relief) * 0.5 + 0.5),
        "roughness": to_bytes(np.clip(np.broadcast_to(np.asarray(surface.roughness), shape), 0.03, 1.0)),
        "metallic": to_bytes(np.broadcast_to(np.asarray(surface.metallic), shape)),
        "height": to_bytes(height),
    }


def statistics_of(maps: dict[str, Bytes]) -> Statistics:
    """Return the statistics of 8-bit maps: means in linear light, and the deviation of linear Rec.709 luminance."""
    table = linear_from_srgb(np.arange(256) / 255.0)
    linear = table[maps["basecolor"]]
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    mean = linear.reshape(-1, 3).mean(axis=0)
    return Statistics(
        mean_linear_rgb=(round(float(mean[0]), 5), round(float(mean[1]), 5), round(float(mean[2]), 5)),
        std_luminance=round(float(luminance.std()), 5),
        mean_roughness=round(float(maps["roughness"].mean()) / 255.0, 5),
        mean_metallic=round(float(maps["metallic"].mean()) / 255.0, 5),
    )


def png_bytes(pixels: Bytes) -> bytes:
    """Return the PNG file of (N, N) grey or (N, N, 3) colour pixels; low compression, since reading speed counts."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=2)
    return buffer.getvalue()
