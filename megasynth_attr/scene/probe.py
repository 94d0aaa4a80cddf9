"""A light probe: how much light arrives at the origin, for 64 normals. Describes lighting without rendering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from megasynth_attr.scene.spec import Lighting

# Irradiance of a clamped cosine keeps these shares of the spherical harmonics of degree 0, 1, 2
# (Ramamoorthi and Hanrahan 2001, "An efficient representation for irradiance environment maps", eq. 9).
COSINE_LOBE = np.array([np.pi, 2 * np.pi / 3, np.pi / 4])[[0, 1, 1, 1, 2, 2, 2, 2, 2]]


def fibonacci_sphere(count: int) -> np.ndarray:
    """Return ``count`` × 3 unit vectors spread evenly over the sphere."""
    index = np.arange(count) + 0.5
    height, azimuth = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), height], axis=-1)


PROBE_NORMALS = fibonacci_sphere(64)


def spherical_harmonics(directions: np.ndarray) -> np.ndarray:
    """Return (..., 9) real spherical harmonics up to degree 2 of (..., 3) unit vectors."""
    x, y, z = np.moveaxis(directions, -1, 0)
    basis = [
        np.full_like(x, 0.282095),
        0.488603 * y, 0.488603 * z, 0.488603 * x,
        1.092548 * x * y, 1.092548 * y * z, 0.315392 * (3 * z**2 - 1), 1.092548 * x * z, 0.546274 * (x**2 - y**2),
    ]  # fmt: skip
    return np.stack(basis, axis=-1)


def equirectangular_directions(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (directions H×W×3, solid angles H×W) of an equirectangular picture's pixels.

    Row 0 is the zenith (+z); the centre column looks along +x, columns to its right towards -y (as in Cycles).
    """
    polar = (np.arange(height) + 0.5) / height * np.pi
    azimuth = np.pi - (np.arange(width) + 0.5) / width * 2 * np.pi
    sine = np.sin(polar)[:, None]
    directions = np.stack(
        [sine * np.cos(azimuth), sine * np.sin(azimuth), np.broadcast_to(np.cos(polar)[:, None], (height, width))],
        axis=-1,
    )
    area = np.broadcast_to(sine * (np.pi / height) * (2 * np.pi / width), (height, width))
    return directions, area


def project_hdri(radiance: np.ndarray) -> np.ndarray:
    """Return 9×3 harmonics coefficients of an equirectangular picture (H×W×3 linear radiance)."""
    directions, area = equirectangular_directions(*radiance.shape[:2])
    return np.einsum("hwk,hwc,hw->kc", spherical_harmonics(directions), radiance, area)


def irradiance(lighting: Lighting, hdris: Mapping[str, Any], normals: np.ndarray) -> np.ndarray:
    """Return N×3 unshadowed irradiance (W/m²) at the origin for N×3 normals; a window sun is taken in its own frame."""
    if lighting.hdri is None:
        ambient = np.pi * lighting.ambient_strength * np.asarray(lighting.ambient_rgb)
        total = np.broadcast_to(ambient, (len(normals), 3)).copy()
    else:
        turn = np.radians(-lighting.hdri.rotation_deg)
        rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        basis = spherical_harmonics(normals @ rotation.T) * COSINE_LOBE
        coefficients = np.asarray(hdris[lighting.hdri.name].irradiance_sh)
        total = lighting.hdri.strength * np.maximum(basis @ coefficients, 0)
    for sun in lighting.suns:
        cosine = np.maximum(normals @ np.asarray(sun.to_light), 0)
        total += sun.irradiance_w_m2 * cosine[:, None] * np.asarray(sun.rgb)
    for bulb in lighting.bulbs:
        offset = np.asarray(bulb.position)
        squared = max(float(offset @ offset), bulb.radius**2)
        cosine = np.maximum(normals @ offset / np.sqrt(squared), 0)
        total += bulb.power_w / (4 * np.pi * squared) * cosine[:, None] * np.asarray(bulb.rgb)
    for area in lighting.areas:  # they stand at the origin: measured one edge length in front of them
        cosine = np.maximum(-normals @ np.asarray(area.direction), 0)
        total += area.power_w / (np.pi * area.edge**2) * cosine[:, None] * np.asarray(area.rgb)
    return total
