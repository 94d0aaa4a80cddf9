"""The haze factor: air that scatters light, so that distant surfaces fade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.fields import scope, setting, span, variants
from megasynth_attr.core.ranges import Range
from megasynth_attr.scene.factor import Draw, Factor, Records
from megasynth_attr.scene.spec import Vec3

PROBES = np.array([0.5, 1.0, 2.0, 4.0])  # distances at which two hazes are compared, scene units


@dataclass(frozen=True)
class HazeSettings:
    """Scattering air; none by default."""

    scope: str = scope()
    variants: int = variants()
    density: Range[float] = span(0.0, 0.0, "extinction coefficient, 1 / scene unit; 0: no haze", minimum=0, maximum=10)
    colour: Range[float] = span(
        0.7, 1.0, "share of the scattered light that is not absorbed; each of red, green, blue", minimum=0, maximum=1
    )
    anisotropy: Range[float] = span(
        0.0, 0.6, "mean cosine of scattering: 1 forwards, 0 isotropic, -1 backwards", minimum=-0.95, maximum=0.95
    )
    reach: float = setting(6.0, "the haze fills the cube that reaches from -reach to reach", minimum=1, maximum=100)


@dataclass(frozen=True)
class Haze:
    """A homogeneous medium in a cube around the origin."""

    density: float  # extinction, 1 / scene unit
    rgb: Vec3  # single-scattering albedo
    anisotropy: float  # mean cosine of the Henyey-Greenstein phase function
    reach: float  # half the cube's edge, scene units


def sample(rng: np.random.Generator, settings: HazeSettings, draw: Draw) -> Haze:
    """Return a Haze."""
    density, anisotropy = settings.density.draw(rng), settings.anisotropy.draw(rng)
    rgb = settings.colour.draw(rng, 3)
    return Haze(rounded(density), rounded(rgb), rounded(anisotropy), rounded(settings.reach))


def describe(haze: Haze, records: Records) -> np.ndarray:
    """Return 5×3, linear RGB: the share of white light scattered in front of a surface at each of the PROBES; then the
    first of these shares times the mean cosine of scattering."""
    scattered = (1 - np.exp(-haze.density * PROBES))[:, None] * np.array(haze.rgb)
    return np.vstack([scattered, haze.anisotropy * scattered[:1]])


FACTOR = Factor(
    name="haze",
    order=50,
    settings=HazeSettings,
    data=Haze,
    sample=sample,
    describe=describe,
    changes_depth=False,
)
