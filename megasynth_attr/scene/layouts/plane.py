"""A picture on a wall: the layout of 2D face anti-spoofing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.scene.layout import Item, KeepoutOf, Layout, Site
from megasynth_attr.scene.layouts.counts import Counts
from megasynth_attr.scene.layouts.shell import ShellSettings, add_shell
from megasynth_attr.scene.spec import Box

LARGE = SMALL = Uniform(0, 0)  # it has no such boxes


@dataclass(frozen=True)
class PlaneSettings(ShellSettings):
    """The picture and the room it hangs in, layout units."""

    plane_size: tuple[float, float, float] = setting((20.0, 20.0, 12.0), "plane: the room", minimum=1, maximum=1000)
    picture_size: tuple[float, float, float] = setting(
        (0.3, 3.0, 4.0), "plane: depth, width and height of the picture", minimum=0.001, maximum=1000
    )

    def check_picture(self, name: str) -> None:
        """Raise ConfigError if the picture does not fit into the room."""
        if any(p > r for p, r in zip(self.picture_size, self.plane_size, strict=True)):
            raise ConfigError(f"{name}.picture_size={list(self.picture_size)}: larger than {name}.plane_size")


def sample(rng: np.random.Generator, settings: PlaneSettings, counts: Counts, keepout_of: KeepoutOf) -> Layout:
    """Return an empty room with one thin box against the middle of the wall x = 0, its front face towards +x.

    Nothing in it is random: which picture it shows is drawn by the texture factor.
    """
    extent, size = np.array(settings.plane_size), np.array(settings.picture_size)
    site = Site(extent, 0.0, keepout=None)
    add_shell(site, settings.wall_thickness, window=None)
    centre = np.array([size[0] / 2, extent[1] / 2, extent[2] / 2])
    site.add(Item(Box("picture", rounded(centre), rounded(size)), surface="picture"))
    return site.finish("plane", None)
