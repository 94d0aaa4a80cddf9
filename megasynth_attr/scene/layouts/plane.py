"""A picture on a wall: the layout of 2D face anti-spoofing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.scene.layout import Item, KeepoutOf, Layout, Site
from megasynth_attr.scene.layouts.shell import add_shell
from megasynth_attr.scene.spec import Box

if TYPE_CHECKING:
    from megasynth_attr.scene.factors.geometry import GeometrySettings
    from megasynth_attr.scene.layouts.counts import Counts


def sample(rng: np.random.Generator, settings: GeometrySettings, counts: Counts, keepout_of: KeepoutOf) -> Layout:
    """Return an empty room with one thin box against the middle of the wall x = 0, its front face towards +x.

    Nothing in it is random: the picture is the texture factor's.
    """
    extent, size = np.array(settings.plane_size), np.array(settings.picture_size)
    site = Site(extent, 0.0, keepout=None)
    add_shell(site, settings.wall_thickness, window=None)
    centre = np.array([size[0] / 2, extent[1] / 2, extent[2] / 2])
    site.add(Item(Box("picture", rounded(centre), rounded(size)), surface="picture"))
    return site.finish("plane", None)
